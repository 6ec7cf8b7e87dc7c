"""What careedit adds to Serve's HTTP proxies: errors in the API's shape, an end for clients that do not read, bounded headers.

If the ingress replica of a request dies, Serve sends an empty 500 or a stream that breaks off. While an application starts or
stops, Serve answers 404, which a client reads as "the job does not exist". This middleware sends a 503 instead. Retrying is
safe: an edit whose response was lost has no side effects. `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names `middlewares`;
every process of the cluster needs it in its environment (`SERVING` in `careedit_deployments.cluster.lifecycle`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careedit_deployments.cluster.heads import bound_heads
from careedit_deployments.errors import UnavailableError
from careedit_deployments.http.sse import sse_error
from careedit_deployments.problems import problem_of, respond

LOST = "The process that handled this request was lost; send the request again."
BUSY = "The server cannot accept this request now; send the request again."
AWAY = "No application answers at this path now, for example because the server starts or stops; send the request again, or check the path."
_SERVES = {404: (AWAY, (b"/-/routes",)), 503: (BUSY, (b"due to backpressure", b"it failed to deploy"))}
"""Statuses that Serve sends by itself, the message to send instead, and texts that identify Serve's own response."""
STALLED_S = 60.0
"""Seconds without reading after which a client counts as gone."""


def middlewares() -> list[Middleware]:
    """The middlewares of each of Serve's proxies; Serve calls it by its name, before it starts the proxy's server."""
    bound_heads()
    return [Middleware(ResponseEndMiddleware)]


class ResponseEndMiddleware:
    """Sends 503 if the app ends without a response or Serve responds in its place, and ends an interrupted stream of events
    with an error event."""

    def __init__(self, app: ASGIApp, *, stalled_s: float = STALLED_S) -> None:
        self.app = app
        self._stalled_s = stalled_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Serve's own routes
            await self.app(scope, receive, send)
            return
        started = ended = left = streams = False
        held: Message | None = None  # the head of a response that may be Serve's own, until its body is known
        instead: str | None = None
        stalled = asyncio.Event()

        async def receive_or_leave() -> Message:
            nonlocal left
            message = await _unless(stalled, receive)
            left |= message["type"] == "http.disconnect"
            return message

        async def send_unless_serves(message: Message) -> None:
            nonlocal started, ended, streams, held, instead
            if message["type"] == "http.response.start" and _may_be_serves(message):
                held = message
                return
            if held is not None:
                head, held = held, None
                instead = _instead(head["status"], message.get("body", b""))
                if instead is None:
                    await pass_on(head)
            if instead is None:
                await pass_on(message)

        async def pass_on(message: Message) -> None:
            nonlocal started, ended, streams
            if message["type"] == "http.response.start":
                started, streams = True, _kind(message).startswith(b"text/event-stream")
                message = {**message, "headers": _with_one_id(message["headers"])}
            elif message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
            if stalled.is_set():
                return
            try:
                async with asyncio.timeout(self._stalled_s):
                    await send(message)
            except TimeoutError:
                stalled.set()  # drop the rest of the response

        await self.app(scope, receive_or_leave, send_unless_serves)
        if left or ended or stalled.is_set():
            return
        lost = UnavailableError(instead or LOST)
        if not started:
            await respond(problem_of(lost))(scope, receive, send)
        elif streams:
            await send({"type": "http.response.body", "body": sse_error(lost), "more_body": False})


def _with_one_id(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers without the request id that Serve appends to the ingress' own, which comes first."""
    ids = [i for i, (name, _) in enumerate(headers) if name.lower() == b"x-request-id"]
    return [header for i, header in enumerate(headers) if i not in ids[1:]]


def _may_be_serves(start: Message) -> bool:
    return start["status"] in _SERVES and _kind(start).startswith(b"text/plain")


def _instead(status: int, words: bytes) -> str | None:
    """The message to send instead of Serve's own body; None for the body of an application."""
    message, texts = _SERVES[status]
    return message if any(text in words for text in texts) else None


def _kind(start: Message) -> bytes:
    return next((value for name, value in start["headers"] if name.lower() == b"content-type"), b"")


async def _unless(gone: asyncio.Event, receive: Receive) -> Message:
    """The next message, or a disconnect as soon as `gone` is set."""
    receiving, going = asyncio.ensure_future(receive()), asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait({receiving, going}, return_when=asyncio.FIRST_COMPLETED)
        return receiving.result() if receiving.done() else {"type": "http.disconnect"}
    finally:
        receiving.cancel()
        going.cancel()
