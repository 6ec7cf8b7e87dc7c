"""HTTP connections of Serve's proxies whose request heads (request line and headers) are bounded in size, number and time.

uvicorn's protocol over httptools takes a header of any length into memory, any number of headers, and waits without end for the
rest of a head. `bound_heads` replaces it in a process before its server starts.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from careedit_deployments.errors import HeadTooLargeError, ServingError, SlowBodyError
from careedit_deployments.problems import problem_of

MAX_HEAD_BYTES = 64 * 2**10
"""Maximum size of the request line and headers of one request, in bytes; other servers allow 32 to 64 KiB."""
MAX_HEADERS = 200
"""Maximum number of headers of one request; Apache and Envoy allow 100."""
HEAD_S = 20.0
"""Seconds in which a head must be complete, from the opening of the connection or from its first byte."""
LINGER_S = 2.0
"""Seconds for which a refused connection is still read, and what arrives dropped, so that the client gets the answer."""


def bound_heads() -> None:
    """Make the servers that this process starts use `BoundedProtocol`."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


class BoundedProtocol(HttpToolsProtocol):
    """A connection that answers 431 to a head that is too large and 408 to one that does not arrive, and then closes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """The arguments are those of uvicorn's protocol."""
        super().__init__(*args, **options)
        self._head: int | None = None  # bytes of the head that is arriving
        self._parsed = 0
        self._error: ServingError | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head must arrive in time."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived. A head that has not ended counts with every byte, also those that are not parsed yet."""
        if self._error is not None:
            return
        last, begun = self.cycle, self._head is not None
        super().data_received(data)
        if not self._is_arriving:
            return
        self._expect_head()
        if self.cycle is last and (begun or last is None):  # else the data may be mostly the body of another request
            self._head = (self._head or 0) + len(data)
            if self._head > MAX_HEAD_BYTES:
                self._refuse(_too_large())

    @property
    def _is_arriving(self) -> bool:
        """Whether a head has begun and neither ended nor been refused."""
        return self._error is None and self._head is not None

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head = self._parsed = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._give_up(_too_large())

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._head = None
        self._expect_nothing()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a head that cannot be parsed, or that was given up while it was parsed."""
        self._expect_nothing()
        if self._error is None:
            super().send_400_response(msg)
        else:
            self._refuse(self._error)

    def _count(self, size: int) -> None:
        self._parsed += size
        if self._parsed > MAX_HEAD_BYTES:
            self._give_up(_too_large())

    def _give_up(self, error: ServingError) -> None:
        """End the parsing: uvicorn answers an error in a callback with `send_400_response`."""
        self._error = error
        raise error

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S, self._too_late)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self._head is None:  # nothing has arrived at all, so no client waits for an answer
            self.transport.close()
            return
        self._refuse(
            SlowBodyError(f"The headers of the request did not arrive within {HEAD_S:g} seconds; send them faster.")
        )

    def _refuse(self, error: ServingError) -> None:
        self._error = error
        self._expect_nothing()
        problem = problem_of(error)
        body = json.dumps(problem.body).encode()
        self.transport.write(
            b"".join(
                (
                    STATUS_LINE[problem.status],
                    b"content-type: application/json\r\nconnection: close\r\n",
                    b"content-length: %d\r\n\r\n" % len(body),
                    body,
                )
            )
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Closing now, while the client sends, would reset the connection before the client has read the answer.
        self._late = self.loop.call_later(LINGER_S, self.transport.close)


def _too_large() -> HeadTooLargeError:
    return HeadTooLargeError(
        f"The request has more than {MAX_HEADERS} headers, or more than {MAX_HEAD_BYTES // 2**10} KiB of address and headers; "
        "send fewer, and everything large in the body."
    )
