"""What one caller may ask for: requests per minute and edits at once, bytes of a body, pixels of a picture.

Rate and concurrency are counted in each ingress replica by itself; behind several of them a limit is that many times as
wide at most. Callers without a key share one count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Message, Receive

from careedit import images
from careedit_deployments.config import Limits
from careedit_deployments.errors import RateLimitError
from careedit_deployments.http.auth import Caller
from careedit_deployments.http.errors import ConcurrencyError, TooLargeError

MANY = 10_000
"""Buckets above which full ones, which say nothing, are forgotten."""


@dataclass
class _Bucket:
    """Tokens of one caller: one per request, refilled at the allowed rate, at most a minute's worth."""

    tokens: float
    seen: float


class Limiter:
    """Counts what callers have in hand and how often they ask."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._in_hand: dict[str, int] = {}

    def take(self, caller: Caller) -> None:
        """Count a request. Raises `RateLimitError`, which says when the next one is allowed."""
        allowed = caller.requests_per_minute or self._limits.requests_per_minute
        if allowed is None:
            return
        now = self._clock()
        if len(self._buckets) > MANY:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket.seen < 60}
        bucket = self._buckets.setdefault(caller.id, _Bucket(float(allowed), now))
        bucket.tokens = min(float(allowed), bucket.tokens + (now - bucket.seen) * allowed / 60)
        bucket.seen = now
        if bucket.tokens < 1:
            wait = (1 - bucket.tokens) * 60 / allowed
            raise RateLimitError(
                f"This API key may make {allowed} requests per minute; wait {wait:.1f} seconds.", retry_after=wait
            )
        bucket.tokens -= 1

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[None]:
        """Count an edit while it lasts. Raises `ConcurrencyError` where the caller has as many as are allowed."""
        allowed = caller.concurrent_requests or self._limits.concurrent_requests
        held = self._in_hand.get(caller.id, 0)
        if allowed is not None and held >= allowed:
            raise ConcurrencyError(
                f"This API key may have {allowed} edit{'' if allowed == 1 else 's'} in hand at once; wait for one to end."
            )
        self._in_hand[caller.id] = held + 1
        try:
            yield
        finally:
            self._in_hand[caller.id] -= 1
            if not self._in_hand[caller.id]:
                del self._in_hand[caller.id]


def check_length(declared: str | None, limit: int) -> None:
    """Refuse a body by the length that it states, before a byte of it is read. Raises `TooLargeError`."""
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)


def limited(receive: Receive, limit: int) -> Receive:
    """`receive` that raises `TooLargeError` once a body has more than `limit` bytes, whatever length it stated."""
    total = 0

    async def count() -> Message:
        nonlocal total
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > limit:
                raise _too_large(limit)
        return message

    return count


def picture_limits(limits: Limits) -> images.Limits:
    """The limits of a picture as the decoder checks them, on its header and before its pixels."""
    usual = images.DEFAULT_LIMITS
    return images.Limits(
        max_bytes=limits.body_bytes,
        max_pixels=min(limits.pixels, usual.max_pixels),
        max_side=usual.max_side,
        max_aspect=usual.max_aspect,
    )


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The body is larger than {limit / 2**20:g} MiB, the limit; compress the pictures.")
