"""The viewer's server: reads only, on the loopback interface only, and only for pages under a loopback name.

A run's images and instructions may be confidential, and the browser that shows them also opens foreign pages. So the `Host` of a
request must be a name of this machine: a foreign name that resolves to 127.0.0.1 (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from careedit.errors import CareEditError, InputError
from careedit.net import host_of, names_of
from careedit_eval.viewer.library import Library, run_document, sample_document

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
"""The address that the server listens on."""
PAGES = {
    "/": ("view.html", "text/html"),
    "/view.css": ("view.css", "text/css"),
    "/view.js": ("view.js", "text/javascript"),
    "/state.js": ("state.js", "text/javascript"),
    "/list.js": ("list.js", "text/javascript"),
    "/sample.js": ("sample.js", "text/javascript"),
    "/stage.js": ("stage.js", "text/javascript"),
    "/history.js": ("history.js", "text/javascript"),
}
"""The viewer's own files by their path."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every answer."""


def make_server(library: Library, port: int) -> ThreadingHTTPServer:
    """A server of some runs on `port` of the loopback interface, 0 for a free one; the caller runs and closes it.

    Raises `InputError` if the port is in use.
    """
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), partial(Handler, library))
    except OSError as error:
        raise InputError(f"The port {port} cannot be used ({error.strerror}); give another with --port.") from error
    server.daemon_threads = True
    return server


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server_version = "careedit"
    sys_version = ""
    timeout = 30

    def __init__(self, library: Library, *connection: Any) -> None:
        self._library = library
        super().__init__(*connection)

    def do_GET(self) -> None:
        """Answer a page, data or an image; refuse a request under a name that is not this machine's."""
        asked = urlsplit(self.path)
        if host_of(f"//{self.headers.get('Host', '')}") not in names_of(LOOPBACK):
            self._fail(HTTPStatus.FORBIDDEN, "The viewer answers only under localhost and 127.0.0.1.")
            return
        if asked.path in PAGES:
            name, kind = PAGES[asked.path]
            self._send(files(__package__).joinpath(name).read_bytes(), f"{kind}; charset=utf-8")
            return
        route = {
            "/api/runs": self._runs,
            "/api/run": self._run,
            "/api/sample": self._sample,
            "/api/history": self._history,
            "/edit.png": self._edited,
            "/picture.png": self._picture,
        }.get(asked.path)
        if route is None:
            self._fail(HTTPStatus.NOT_FOUND, "The viewer has no such page.")
            return
        self._answer(route, {name: values[0] for name, values in parse_qs(asked.query).items()})

    def _answer(self, route: Callable[[dict[str, str]], tuple[bytes, str]], query: dict[str, str]) -> None:
        try:
            data, kind = route(query)
        except CareEditError as error:
            self._fail(HTTPStatus.NOT_FOUND, str(error))
        except KeyError as error:
            self._fail(HTTPStatus.BAD_REQUEST, f"The request lacks {error.args[0]!r}.")
        except Exception:
            logger.exception("The viewer failed at %s", self.path)
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, "The viewer failed; its log says why.")
        else:
            self._send(data, kind)

    def _runs(self, query: dict[str, str]) -> tuple[bytes, str]:
        return _json(self._library.runs())

    def _run(self, query: dict[str, str]) -> tuple[bytes, str]:
        return _json(run_document(self._library.run(query["run"])))

    def _history(self, query: dict[str, str]) -> tuple[bytes, str]:
        return _json(self._library.history())

    def _sample(self, query: dict[str, str]) -> tuple[bytes, str]:
        run = self._library.run(query["run"])
        return _json(sample_document(run, query["benchmark"], query["sample"], _seed(query)))

    def _edited(self, query: dict[str, str]) -> tuple[bytes, str]:
        run = self._library.run(query["run"])
        return run.edited(query["benchmark"], query["arm"], query["sample"], _seed(query)), "image/png"

    def _picture(self, query: dict[str, str]) -> tuple[bytes, str]:
        run = self._library.run(query["run"])
        return run.picture(query["benchmark"], query["sample"], query["role"]), "image/png"

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self._send(json.dumps({"error": message}).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        # Images are addressed by run and sample, and a run does not change.
        keep = "private, max-age=600" if kind.startswith("image/") and status == HTTPStatus.OK else "no-store"
        for name, value in (HEADERS | {"Content-Type": kind, "Cache-Control": keep}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        try:
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:  # the browser no longer wants an image that was scrolled away
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: instructions and ids are in them."""


def _json(document: Any) -> tuple[bytes, str]:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode(), "application/json"


def _seed(query: dict[str, str]) -> int:
    try:
        return int(query["seed"])
    except ValueError:
        raise InputError(f"{query['seed'][:40]!r} is not a seed.") from None
