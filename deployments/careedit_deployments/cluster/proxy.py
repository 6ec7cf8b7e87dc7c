"""What Serve's HTTP proxies add: the API's own errors where Serve has none or only a line of text, and an end for clients
that do not read.

A request whose ingress replica died Serve ends without a word, and the client sees an empty 500 or a stream that breaks off.
While an application starts or stops, Serve answers 404, which a client takes for "the job is gone". Both may be sent again:
an edit that nobody got has changed nothing. `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names `middlewares`;
every process of the cluster must have it in its environment (`careedit_deployments.cluster.environment`).
"""

from __future__ import annotations

import asyncio

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careedit_deployments.errors import UnavailableError
from careedit_deployments.http.sse import sse_error
from careedit_deployments.problems import problem_of, respond

LOST = "The process that worked on this request was lost; send the request again."
BUSY = "The server cannot take this request now; send the request again."
AWAY = "No application answers at this path now, as while the server starts or stops; send the request again, or check the path."
_SERVES = {404: (AWAY, (b"/-/routes",)), 503: (BUSY, (b"due to backpressure", b"it failed to deploy"))}
"""Statuses that Serve answers by itself, what is said instead, and how Serve's words are known."""
STALLED_S = 60.0
"""Seconds for which a client may read nothing of its answer before it counts as gone."""


def middlewares() -> list[Middleware]:
    """What Serve asks for in each of its proxies."""
    return [Middleware(ClearEnds)]


class ClearEnds:
    """Answers 503 where the app ends without an answer or Serve answers in its place, and ends a stream of events that breaks
    off with an error event."""

    def __init__(self, app: ASGIApp, *, stalled_s: float = STALLED_S) -> None:
        self.app = app
        self._stalled_s = stalled_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Serve's own routes
            await self.app(scope, receive, send)
            return
        started = ended = left = streams = False
        held: Message | None = None  # the head of an answer that may be Serve's, until its words say so
        instead: str | None = None
        stalled = asyncio.Event()

        async def heard() -> Message:
            nonlocal left
            message = await _unless(stalled, receive)
            left |= message["type"] == "http.disconnect"
            return message

        async def told(message: Message) -> None:
            nonlocal started, ended, streams, held, instead
            if message["type"] == "http.response.start" and _may_be_serves(message):
                held = message
                return
            if held is not None:
                head, held = held, None
                instead = _instead(head["status"], message.get("body", b""))
                if instead is None:
                    await told_on(head)
            if instead is None:
                await told_on(message)

        async def told_on(message: Message) -> None:
            nonlocal started, ended, streams
            if message["type"] == "http.response.start":
                started, streams = True, _kind(message).startswith(b"text/event-stream")
            elif message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
            if stalled.is_set():
                return
            try:
                async with asyncio.timeout(self._stalled_s):
                    await send(message)
            except TimeoutError:
                stalled.set()  # what is still to come waits for nobody

        await self.app(scope, heard, told)
        if left or ended or stalled.is_set():
            return
        lost = UnavailableError(instead or LOST)
        if not started:
            await respond(problem_of(lost))(scope, receive, send)
        elif streams:
            await send({"type": "http.response.body", "body": sse_error(lost), "more_body": False})


def _may_be_serves(start: Message) -> bool:
    return start["status"] in _SERVES and _kind(start).startswith(b"text/plain")


def _instead(status: int, words: bytes) -> str | None:
    """What to say in the place of Serve's own words; None for those of an application."""
    told, said = _SERVES[status]
    return told if any(one in words for one in said) else None


def _kind(start: Message) -> bytes:
    return next((value for name, value in start["headers"] if name.lower() == b"content-type"), b"")


async def _unless(gone: asyncio.Event, receive: Receive) -> Message:
    """The next message, or the client's leave as soon as it is `gone`."""
    receiving, going = asyncio.ensure_future(receive()), asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait({receiving, going}, return_when=asyncio.FIRST_COMPLETED)
        return receiving.result() if receiving.done() else {"type": "http.disconnect"}
    finally:
        receiving.cancel()
        going.cancel()
