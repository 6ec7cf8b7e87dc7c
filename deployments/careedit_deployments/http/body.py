"""A request's body while it arrives: no larger, no slower and no later than the limits allow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.types import Message, Receive

from careedit_deployments.config import Limits
from careedit_deployments.errors import ServingError, SlowBodyError, TooLargeError

MOST_VALUES = 10_000
"""Values of a JSON body. A parser takes a thousand bytes for each, so 50 MB of them would take gigabytes and half a minute."""


class Body:
    """Stands between a route and the server; `receive` takes the place of ASGI's."""

    def __init__(
        self, receive: Receive, limits: Limits, *, json: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`json`: the body may be JSON, so its values are counted."""
        self._receive, self._limits, self._json, self._clock = receive, limits, json, clock
        self._began, self._size, self._values, self._complete = clock(), 0, 0, False
        self.refusal: ServingError | None = None
        """Why the body was refused, if it was. A form parser may hide the error that it met."""

    async def receive(self) -> Message:
        """The next message. Raises `TooLargeError` or `SlowBodyError`, and raises it again when it is asked again."""
        if self.refusal is not None:
            raise self.refusal
        if self._complete:  # what comes now is the end of the connection, and may take its time
            return await self._receive()
        try:
            async with asyncio.timeout(self.seconds_left) as limit:
                message = await self._receive()
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._refuse(_slow(self._limits)) from None
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            self._size += len(chunk)
            self._complete = not message.get("more_body", False)
            if self._size > self._limits.body_bytes:
                raise self._refuse(_too_large(self._limits))
            if self._json:
                self._values += sum(chunk.count(sign) for sign in (b",", b"[", b"{"))
                if self._values > MOST_VALUES:
                    raise self._refuse(
                        TooLargeError(
                            f"The body has more than {MOST_VALUES:,} values; send pictures as base64, not as numbers."
                        )
                    )
        return message

    @property
    def seconds_left(self) -> float:
        """Seconds within which the next message must come."""
        limits = self._limits
        end = min(limits.body_s, limits.body_grace_s + self._size / limits.body_rate)
        return self._began + end - self._clock()

    def _refuse(self, error: ServingError) -> ServingError:
        self.refusal = error
        return error


def check_length(declared: str | None, limits: Limits) -> None:
    """Refuse a body by the length that it states, before a byte of it is read. Raises `TooLargeError`."""
    if declared is not None and declared.isdigit() and int(declared) > limits.body_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {limits.body_bytes / 2**20:g} MiB, the limit; compress the pictures."
    )


def _slow(limits: Limits) -> SlowBodyError:
    return SlowBodyError(
        f"The body did not arrive in time: it may take {limits.body_s:g} seconds in all, and after {limits.body_grace_s:g} "
        f"seconds {limits.body_rate:,} bytes must have come per second; send it faster, or compress the pictures."
    )
