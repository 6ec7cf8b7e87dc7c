"""The viewer's server: reads only, for pages of this machine only (`careedit_eval.loopback`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer
from typing import ClassVar

from careedit.errors import InputError
from careedit_eval.loopback import Answer, LoopbackHandler, Query, json_answer, make_loopback_server
from careedit_eval.viewer.library import Library, run_document, sample_document

SCRIPTS = ("view", "state", "list", "sample", "stage", "history")
"""The viewer's scripts."""


def make_server(library: Library, port: int) -> ThreadingHTTPServer:
    """A server of some runs on `port` of the loopback interface, 0 for a free one; the caller runs and closes it.

    Raises `InputError` if the port is in use.
    """
    return make_loopback_server(Handler, library, port)


class Handler(LoopbackHandler):
    """Answers one request of the viewer."""

    subject: Library
    """The runs that the viewer shows."""
    name = "viewer"
    pages: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "/": (__package__, "view.html", "text/html"),
        "/view.css": (__package__, "view.css", "text/css"),
        **{f"/{name}.js": (__package__, f"{name}.js", "text/javascript") for name in SCRIPTS},
    }
    """The files of the page, by their path."""

    def routes(self) -> Mapping[str, Callable[[Query], Answer]]:
        """See `LoopbackHandler`."""
        return {
            "/api/runs": self._runs,
            "/api/run": self._run,
            "/api/sample": self._sample,
            "/api/history": self._history,
            "/edit.png": self._edited,
            "/picture.png": self._picture,
        }

    def _runs(self, query: Query) -> Answer:
        return json_answer(self.subject.runs())

    def _run(self, query: Query) -> Answer:
        return json_answer(run_document(self.subject.run(query["run"])))

    def _history(self, query: Query) -> Answer:
        return json_answer(self.subject.history())

    def _sample(self, query: Query) -> Answer:
        run = self.subject.run(query["run"])
        return json_answer(sample_document(run, query["benchmark"], query["sample"], _seed(query)))

    def _edited(self, query: Query) -> Answer:
        run = self.subject.run(query["run"])
        return run.edited(query["benchmark"], query["arm"], query["sample"], _seed(query)), "image/png"

    def _picture(self, query: Query) -> Answer:
        run = self.subject.run(query["run"])
        return run.picture(query["benchmark"], query["sample"], query["role"]), "image/png"


def _seed(query: Query) -> int:
    try:
        return int(query["seed"])
    except ValueError:
        raise InputError(f"{query['seed'][:40]!r} is not a seed.") from None
