"""Limits of one tenant: requests per minute, requests and edits at once, pixels of an image.

Each ingress replica counts for itself, so with several replicas a tenant can get up to that many times the limit. The keys of a
tenant share its counts; callers without a key share one count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from careedit import images
from careedit_deployments.errors import ConcurrencyError, OverloadedError, RateLimitError
from careedit_deployments.http.auth import Caller
from careedit_deployments.listening import Limits

MAX_BUCKETS = 10_000
"""Number of buckets above which full ones are dropped; a new bucket is full as well."""

GUARANTEED_PLACES = 4
"""Number of requests that a caller may have in progress as long as any place is free."""


@dataclass
class _Bucket:
    """A token bucket: a request takes one token, and it is refilled at the allowed rate, up to one minute of it."""

    tokens: float
    seen: float


class Buckets:
    """Token buckets by name, each with its own rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def wait(self, name: str, per_minute: int, *, take: bool = True) -> float:
        """Seconds until the next token comes; 0 if the bucket had one, which is then taken unless `take` is off."""
        now = self._clock()
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket.seen < 60}
        bucket = self._buckets.get(name)
        if bucket is None:
            if not take:
                return 0.0
            bucket = self._buckets[name] = _Bucket(float(per_minute), now)
        bucket.tokens = min(float(per_minute), bucket.tokens + (now - bucket.seen) * per_minute / 60)
        bucket.seen = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) * 60 / per_minute
        bucket.tokens -= take
        return 0.0


class Limiter:
    """Counts how many requests callers have in progress, and how often they send one."""

    def __init__(self, limits: Limits, *, places: int = 256, clock: Callable[[], float] = time.monotonic) -> None:
        """`places` is the maximum number of requests of all callers in progress at once."""
        self._limits, self._places = limits, places
        self._buckets = Buckets(clock)
        self._edits: dict[str, int] = {}
        self._requests: dict[str, int] = {}
        self._streams: dict[str, int] = {}
        self.in_progress = 0
        """Number of requests of all callers in progress."""
        self._fetches = 0

    def take(self, caller: Caller) -> None:
        """Count a request. Raises `RateLimitError` with the time after which the next one is allowed."""
        allowed = caller.requests_per_minute or self._limits.requests_per_minute
        if allowed is None:
            return
        if wait := self._buckets.wait(caller.id, allowed):
            raise RateLimitError(
                f"You may make {allowed} requests per minute; wait {wait:.1f} seconds.", retry_after=wait
            )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request of any caller. Raises `OverloadedError` if every place is taken."""
        if self.in_progress >= self._places:
            raise OverloadedError(
                f"The server has {self._places} requests in progress, its maximum; try again in a moment."
            )
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1

    @contextmanager
    def fetch(self) -> Iterator[None]:
        """Hold a place for a request without a key; at most half of the places are for them. Raises `OverloadedError`."""
        if self._fetches >= self._places // 2:
            raise OverloadedError("The server sends as many images at once as it can; try again in a moment.")
        self._fetches += 1
        try:
            with self.place():
                yield
        finally:
            self._fetches -= 1

    @contextmanager
    def request(self, caller: Caller) -> Iterator[None]:
        """Count a request of a caller while it has its `place`. Raises `ConcurrencyError`.

        A quarter of the places is reserved for callers that hold few. Of the others, a caller may hold twice as many as
        stay free, so any number of callers share them, and one alone gets half of all places. (Dynamic thresholds:
        Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998, with alpha = 2.)
        """
        free = max(0, self._places - self.in_progress)
        share = max(min(GUARANTEED_PLACES, free + 1), 2 * (free - self._places // 4))
        with _counted(self._requests, caller, min(self._limits.requests_in_progress, share), "request"):
            yield

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Count an open stream of job events. Raises `ConcurrencyError` if the caller has as many as allowed."""
        with _counted(self._streams, caller, self._limits.event_streams, "event stream"):
            yield

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[None]:
        """Count an edit in flight. Raises `ConcurrencyError` if the caller has as many as allowed."""
        with _counted(self._edits, caller, caller.concurrent_requests or self._limits.concurrent_requests, "edit"):
            yield


@contextmanager
def _counted(counts: dict[str, int], caller: Caller, allowed: int | None, what: str) -> Iterator[None]:
    held = counts.get(caller.id, 0)
    if allowed is not None and held >= allowed:
        raise ConcurrencyError(
            f"You may have {allowed} {what}{'' if allowed == 1 else 's'} in progress at once now; wait for one to end."
        )
    counts[caller.id] = held + 1
    try:
        yield
    finally:
        counts[caller.id] -= 1
        if not counts[caller.id]:
            del counts[caller.id]


def picture_limits(limits: Limits) -> images.Limits:
    """The limits of one image, which the decoder checks on the header, before it decodes pixels."""
    usual = images.DEFAULT_LIMITS
    return images.Limits(
        max_bytes=limits.body_bytes,
        max_pixels=min(limits.pixels, usual.max_pixels),
        max_side=usual.max_side,
        max_aspect=usual.max_aspect,
    )
