"""What one caller may ask for: requests per minute, requests and edits at once, pixels of a picture.

Rate and concurrency are counted in each ingress replica by itself; behind several of them a limit is that many times as
wide at most. Callers without a key share one count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from careedit import images
from careedit_deployments.config import Limits
from careedit_deployments.errors import ConcurrencyError, OverloadedError, RateLimitError
from careedit_deployments.http.auth import Caller

MANY = 10_000
"""Buckets above which full ones, which say nothing, are forgotten."""

FEW = 4
"""Requests that a caller may have in progress as long as any place is free."""


@dataclass
class _Bucket:
    """Tokens of one caller: one per request, refilled at the allowed rate, at most a minute's worth."""

    tokens: float
    seen: float


class Limiter:
    """Counts what callers have in progress and how often they ask."""

    def __init__(self, limits: Limits, *, places: int = 256, clock: Callable[[], float] = time.monotonic) -> None:
        """`places` are the requests of all callers that may be in progress at once."""
        self._limits, self._places, self._clock = limits, places, clock
        self._buckets: dict[str, _Bucket] = {}
        self._edits: dict[str, int] = {}
        self._requests: dict[str, int] = {}
        self._streams: dict[str, int] = {}
        self.in_progress = 0
        """Requests of all callers that are in progress."""
        self._fetches = 0

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
    def place(self) -> Iterator[None]:
        """Count a request of any caller while it lasts. Raises `OverloadedError` where every place is taken."""
        if self.in_progress >= self._places:
            raise OverloadedError(
                f"The server has {self._places} requests in progress and takes no more; come back in a moment."
            )
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1

    @contextmanager
    def fetch(self) -> Iterator[None]:
        """Count a request that needs no key while it lasts; half of the places are for them. Raises `OverloadedError`."""
        if self._fetches >= self._places // 2:
            raise OverloadedError("The server sends as many pictures as it can at once; come back in a moment.")
        self._fetches += 1
        try:
            with self.place():
                yield
        finally:
            self._fetches -= 1

    @contextmanager
    def request(self, caller: Caller) -> Iterator[None]:
        """Count a caller's request, which has its `place`, while it lasts. Raises `ConcurrencyError`.

        A quarter of the places is for callers who hold few. Of the others, one may hold twice as many as stay free, so
        that they are shared by however many ask (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on
        Networking 6(2), 1998, with alpha = 2): one alone gets half of all places.
        """
        free = max(0, self._places - self.in_progress)
        share = max(min(FEW, free + 1), 2 * (free - self._places // 4))
        with _counted(self._requests, caller, min(self._limits.requests_in_progress, share), "request"):
            yield

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Count a caller's stream of job events while it lasts. Raises `ConcurrencyError`."""
        with _counted(self._streams, caller, self._limits.event_streams, "event stream"):
            yield

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[None]:
        """Count an edit while it lasts. Raises `ConcurrencyError` where the caller has as many as are allowed."""
        with _counted(self._edits, caller, caller.concurrent_requests or self._limits.concurrent_requests, "edit"):
            yield


@contextmanager
def _counted(counts: dict[str, int], caller: Caller, allowed: int | None, what: str) -> Iterator[None]:
    held = counts.get(caller.id, 0)
    if allowed is not None and held >= allowed:
        raise ConcurrencyError(
            f"This API key may have {allowed} {what}{'' if allowed == 1 else 's'} in progress at once now; wait for one to end."
        )
    counts[caller.id] = held + 1
    try:
        yield
    finally:
        counts[caller.id] -= 1
        if not counts[caller.id]:
            del counts[caller.id]


def picture_limits(limits: Limits) -> images.Limits:
    """The limits of a picture as the decoder checks them, on its header and before its pixels."""
    usual = images.DEFAULT_LIMITS
    return images.Limits(
        max_bytes=limits.body_bytes,
        max_pixels=min(limits.pixels, usual.max_pixels),
        max_side=usual.max_side,
        max_aspect=usual.max_aspect,
    )
