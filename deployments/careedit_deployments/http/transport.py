"""What HTTP allows of a message and the routes do not know: HEAD instead of GET, and compressed bodies."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careedit_deployments.errors import CompressedError

NO_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Transport:
    """Answers HEAD as GET without its body, and refuses a body with a `Content-Encoding`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises `CompressedError`."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._head({**scope, "method": "GET"}, receive, send)
            return
        if scope["type"] == "http" and scope["method"] not in NO_BODY:
            check_encoding(Headers(scope=scope).getlist("content-encoding"))
        await self.app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = asyncio.Event()

        async def hear() -> Message:
            """A client that has its answer is gone, so that a stream of events ends."""
            leaving, message = asyncio.create_task(answered.wait()), asyncio.ensure_future(receive())
            try:
                await asyncio.wait({leaving, message}, return_when=asyncio.FIRST_COMPLETED)
                return {"type": "http.disconnect"} if answered.is_set() else message.result()
            finally:
                leaving.cancel()
                message.cancel()

        async def tell(message: Message) -> None:
            if answered.is_set() or message["type"] != "http.response.start":
                return
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            answered.set()

        await self.app(scope, hear, tell)


def check_encoding(stated: list[str]) -> None:
    """Refuse a body that is compressed: its length would say nothing of its size. Raises `CompressedError`."""
    codings = [coding.strip().lower() for value in stated for coding in value.split(",")]
    odd = [coding for coding in codings if coding not in ("", "identity")]
    if odd:
        raise CompressedError(
            f"The body has the content-encoding {', '.join(odd)[:60]!r}, which is not supported; send it uncompressed "
            "(pictures are compressed already)."
        )
