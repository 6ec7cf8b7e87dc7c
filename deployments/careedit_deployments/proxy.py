"""What Serve's HTTP proxies add: a request whose ingress replica died is answered in a sentence instead of with nothing.

The proxy itself ends such a request without a word, and the client sees an empty 500 or a stream that breaks off. It may be
sent again: an edit that nobody got has changed nothing. `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names `middlewares`;
every process of the cluster must have it in its environment (`careedit_deployments.environment`).
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careedit_deployments.errors import UnavailableError
from careedit_deployments.http.errors import problem_of, respond
from careedit_deployments.http.sse import sse_error

LOST = "The process that worked on this request was lost; send the request again."


def middlewares() -> list[Middleware]:
    """What Serve asks for in each of its proxies."""
    return [Middleware(ClearEnds)]


class ClearEnds:
    """Answers 503 where the app ends without an answer, and ends a stream of events that breaks off with an error event."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = ended = left = streams = False

        async def heard() -> Message:
            nonlocal left
            message = await receive()
            left |= message["type"] == "http.disconnect"
            return message

        async def told(message: Message) -> None:
            nonlocal started, ended, streams
            if message["type"] == "http.response.start":
                started = True
                kinds = [value for name, value in message["headers"] if name == b"content-type"]
                streams = any(kind.startswith(b"text/event-stream") for kind in kinds)
            elif message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
            await send(message)

        await self.app(scope, heard, told)
        lost = UnavailableError(LOST)
        if left or ended:
            return
        if not started:
            await respond(problem_of(lost))(scope, receive, send)
        elif streams:
            await send({"type": "http.response.body", "body": sse_error(lost), "more_body": False})
