"""The server of the voting page: for pages of this machine only (`careedit_eval.loopback`), and without a name of a set.

The page and its addresses hold the random id of a pair, never a set, a sample or a rater.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from careedit.errors import CareEditError, InputError
from careedit_eval.errors import VotesError
from careedit_eval.loopback import Answer, LoopbackHandler, Query, json_answer, make_loopback_server
from careedit_eval.voting.ballots import Ballots

MAX_BODY = 1 << 16
"""The maximum size of a request's body in bytes."""


def make_vote_server(ballots: Ballots, port: int) -> ThreadingHTTPServer:
    """A server of the pairs of a run on `port` of the loopback interface, 0 for a free one; the caller runs and closes it.

    Raises `InputError` if the port is in use.
    """
    return make_loopback_server(Handler, ballots, port)


class Handler(LoopbackHandler):
    """Answers one request of the voting page."""

    subject: Ballots
    """The pairs that raters compare."""
    name = "voting page"
    pages: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "/": (__package__, "vote.html", "text/html"),
        "/vote.css": (__package__, "vote.css", "text/css"),
        "/vote.js": (__package__, "vote.js", "text/javascript"),
    }
    """The files of the page, by their path."""

    def routes(self) -> Mapping[str, Callable[[Query], Answer]]:
        """See `LoopbackHandler`."""
        return {"/picture.png": self._picture}

    def do_POST(self) -> None:
        """Answer with the rater's next pair, or store a verdict."""
        body = self._body()
        if not self.is_own_host():
            return
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers["Host"]:
            self.fail(HTTPStatus.FORBIDDEN, "Only the voting page itself may vote.")
            return
        works: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {"/api/pair": self._pair, "/api/vote": self._vote}
        work = works.get(urlsplit(self.path).path)
        if work is None:
            self.fail(HTTPStatus.NOT_FOUND, "The voting page takes POST /api/pair and POST /api/vote.")
            return
        self.answer(lambda: work(_fields(body)))

    def status_of(self, error: CareEditError) -> HTTPStatus:
        """See `LoopbackHandler`."""
        if isinstance(error, VotesError):
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.BAD_REQUEST if self.command == "POST" else HTTPStatus.NOT_FOUND

    def _body(self) -> bytes | None:
        """The body of the request; None if it has none, or one that is too large or not JSON by its type."""
        length = self.headers.get("Content-Length", "")
        # A form of a foreign page cannot send this type without asking first, and it gets no leave.
        is_json = self.headers.get_content_type() == "application/json"
        if not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= MAX_BODY and is_json):
            self.close_connection = True  # the body is left unread
            return None
        return self.rfile.read(int(length))

    def _pair(self, fields: Mapping[str, Any]) -> Answer:
        return json_answer(self.subject.next_pair(fields["rater"]))

    def _vote(self, fields: Mapping[str, Any]) -> Answer:
        self.subject.vote(fields["rater"], fields["pair"], fields["verdict"])
        return json_answer({"stored": True})

    def _picture(self, query: Query) -> Answer:
        return self.subject.picture(query["pair"], query["place"]), "image/png"


def _fields(body: bytes | None) -> Mapping[str, Any]:
    """The object in a body. Raises `InputError`."""
    try:
        found = None if body is None else json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"The request is not a JSON object of at most {MAX_BODY:,} bytes; send application/json.")
    return found
