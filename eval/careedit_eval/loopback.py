"""A small server of pages for this machine: on the loopback interface only, and only for pages under a loopback name.

A run's images and instructions may be confidential, and the browser that shows them also opens foreign pages. So the `Host` of a
request must be a name of this machine: a foreign name that resolves to 127.0.0.1 (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from careedit.errors import CareEditError, InputError
from careedit.net import host_of, names_of

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
"""The address that a server listens on."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every answer."""

Answer = tuple[bytes, str]
"""The body of an answer and its media type."""
Query = Mapping[str, str]
"""The parameters of a request's address; of a repeated one the first."""


def make_loopback_server(handler: type[LoopbackHandler], subject: Any, port: int) -> ThreadingHTTPServer:
    """A server of `subject` on `port` of the loopback interface, 0 for a free one; the caller runs and closes it.

    Raises `InputError` if the port is in use.
    """
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), partial(handler, subject))
    except OSError as error:
        raise InputError(f"The port {port} cannot be used ({error.strerror}); give another with --port.") from error
    server.daemon_threads = True
    return server


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers one request; a page's own handler names its files and its routes."""

    name: ClassVar[str]
    """The name of the page in sentences, such as "viewer"."""
    pages: ClassVar[Mapping[str, tuple[str, str, str]]]
    """The package, the file and the media type of each of the page's own files, by its path."""

    protocol_version = "HTTP/1.1"
    server_version = "careedit"
    sys_version = ""
    timeout = 30

    def __init__(self, subject: Any, *connection: Any) -> None:
        self.subject = subject
        super().__init__(*connection)

    def routes(self) -> Mapping[str, Callable[[Query], Answer]]:
        """What answers a GET of each path."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer a page, data or an image; refuse a request under a name that is not this machine's."""
        asked = urlsplit(self.path)
        if not self.is_own_host():
            return
        if asked.path in self.pages:
            package, file, kind = self.pages[asked.path]
            self.send(files(package).joinpath(file).read_bytes(), f"{kind}; charset=utf-8")
            return
        route = self.routes().get(asked.path)
        if route is None:
            self.fail(HTTPStatus.NOT_FOUND, f"The {self.name} has no such page.")
            return
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        self.answer(lambda: route(query))

    def is_own_host(self) -> bool:
        """Whether the request is under a name of this machine; if not, it is refused."""
        own = host_of(f"//{self.headers.get('Host', '')}") in names_of(LOOPBACK)
        if not own:
            self.fail(HTTPStatus.FORBIDDEN, f"The {self.name} answers only under localhost and 127.0.0.1.")
        return own

    def answer(self, work: Callable[[], Answer]) -> None:
        """Send what `work` returns, or its error as a sentence."""
        try:
            data, kind = work()
        except CareEditError as error:
            self.fail(self.status_of(error), str(error))
        except KeyError as error:
            self.fail(HTTPStatus.BAD_REQUEST, f"The request lacks {error.args[0]!r}.")
        except Exception:
            logger.exception("The %s failed at %s", self.name, self.path)
            self.fail(HTTPStatus.INTERNAL_SERVER_ERROR, f"The {self.name} failed; its log says why.")
        else:
            self.send(data, kind)

    def status_of(self, error: CareEditError) -> HTTPStatus:
        """The status of an answer to a request that raised `error`."""
        return HTTPStatus.NOT_FOUND

    def fail(self, status: HTTPStatus, message: str) -> None:
        """Send an error as a sentence."""
        self.send(json.dumps({"error": message}).encode(), "application/json", status)

    def send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send an answer."""
        self.send_response(status)
        # An image's address always has the same image.
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


def json_answer(document: Any) -> Answer:
    """A JSON document as an answer."""
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode(), "application/json"
