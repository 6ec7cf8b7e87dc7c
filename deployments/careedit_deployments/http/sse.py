"""Server-sent events. A task of its own reads the events of an edit, so that the edit stops as soon as the client leaves.

Only that task uses the events' iterator. Heartbeats need a wait with a time limit, which would cancel the iterator if it were
awaited directly, and the iterator may hold locks and spans that belong to one task.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, Generic, TypeVar

from fastapi.sse import format_sse_event
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from careedit_deployments.problems import problem_of

HEARTBEAT_S = 10.0
"""Seconds without an event after which a comment is sent, because proxies close idle connections."""

T = TypeVar("T")

_END = object()


class EventStream(Generic[T]):
    """Reads events from an iterator in a task of its own; `close` stops the task and closes the iterator."""

    def __init__(self, events: AsyncIterator[T]) -> None:
        self._events = events
        self._queue: asyncio.Queue[object] = asyncio.Queue(maxsize=2)  # a slow reader slows the edit, not the memory
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that reads events."""
        self._task = asyncio.create_task(self._run(), name="careedit-events")

    async def next(self, timeout: float | None = None) -> T | None:
        """The next event; None if none arrives within `timeout` seconds (a later call returns it).

        Raises `StopAsyncIteration` at the end, or what the iterator raised.
        """
        try:
            async with asyncio.timeout(timeout):
                item = await self._queue.get()
        except TimeoutError:
            return None
        if item is _END:
            if self._error is not None:
                raise self._error
            raise StopAsyncIteration
        return item  # type: ignore[return-value]  # the queue holds T and `_END`

    async def close(self) -> None:
        """Stop the task; returns when the iterator is closed."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            async with aclosing(self._events) as events:  # type: ignore[type-var]  # iterators here are generators
                async for event in events:
                    await self._queue.put(event)
        except Exception as error:  # noqa: BLE001 - `next` raises it
            self._error = error
        await self._queue.put(_END)


def sse(name: str, data: Mapping[str, Any], *, number: int | None = None) -> bytes:
    """One event as bytes; `data` has only values that JSON has."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(event=name, data_str=text, id=None if number is None else str(number))


def sse_error(error: BaseException) -> bytes:
    """An error in a stream that has started, in OpenAI's shape: the status has already been sent."""
    return sse("error", {"type": "error", **problem_of(error).body})


class EventStreamResponse(Response):
    """A response of chunks that ends, and closes their iterator, as soon as the client leaves.

    Starlette's own `StreamingResponse` notices that only at the next chunk, if the server speaks ASGI 2.4.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str] | None = None,
        resources: AsyncExitStack | None = None,
        limit_s: float | None = None,
    ) -> None:
        """`resources` are released when the stream ends, for any reason. After `limit_s` seconds the stream is closed, even
        if its client does not read."""
        self._chunks = chunks
        self._limit_s = limit_s
        self._resources = resources or AsyncExitStack()
        self.status_code = 200
        self.background = None
        self.body = b""
        quiet = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        self.init_headers({**quiet, **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the chunks end or the client leaves; the iterator of the chunks is closed in both cases."""

        async def stream() -> None:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with aclosing(self._chunks) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async with self._resources:
            try:
                async with asyncio.timeout(self._limit_s):
                    await _unless_gone(receive, stream)
            except OSError:  # TimeoutError is one
                raise ClientDisconnect from None


async def unless_gone(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Do `work` while the client waits; the body must have been read. Raises `ClientDisconnect` if the client leaves."""
    return await _unless_gone(request.receive, work)


async def _unless_gone(receive: Receive, work: Callable[[], Awaitable[T]]) -> T:
    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def run() -> T:
        return await work()

    working, watching = asyncio.create_task(run()), asyncio.create_task(watch())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
