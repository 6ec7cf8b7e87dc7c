"""How fast a deployment gets through what this process gives it: what Retry-After goes by where its queue is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SMOOTHING = 0.2
"""Weight of the latest interval in the moving average."""
LEAST, MOST = 1.0, 60.0
"""Bounds of an estimate in seconds; before anything was made it is the least."""


class Turnover:
    """Work in hand, and the mean seconds between two ends of it; used from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.in_hand = 0
        """Pieces of work that were begun and have not ended."""
        self._last = 0.0
        self._interval: float | None = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """While the block lasts, one more is in hand. One that raises says nothing about the pace."""
        if not self.in_hand:
            self._last = self._clock()  # what was idle before is no interval
        self.in_hand += 1
        try:
            yield
            now = self._clock()
            taken, self._last = now - self._last, now
            before = taken if self._interval is None else self._interval
            self._interval = before + SMOOTHING * (taken - before)
        finally:
            self.in_hand -= 1

    @property
    def seconds(self) -> float:
        """Estimate of the seconds until all that is in hand has been made: a new attempt then finds room."""
        return min(MOST, max(LEAST, self.in_hand * (self._interval or 0.0)))
