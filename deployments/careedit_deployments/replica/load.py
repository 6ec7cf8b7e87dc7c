"""Denoising work that waits at a replica, in seconds: the input of autoscaling and Retry-After."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

SMOOTHING = 0.2
"""Weight of the latest measurement in a moving average."""


class Load:
    """Announced work in row-pixels (evaluations times pixels of the canvas), and the recent seconds per row-pixel."""

    def __init__(self) -> None:
        self.last_seconds = 0.0
        """Seconds that the latest batch took."""
        self._lock = Lock()
        self._pending: dict[int, float] = {}
        self._pace: float | None = None
        self._per_edit: float | None = None
        self._next = 0

    @contextmanager
    def announced(self, work: float) -> Iterator[int]:
        """Count `work`, minus what `spend` takes off, as waiting until the context ends; yields the key for `spend`."""
        with self._lock:
            key, self._next = self._next, self._next + 1
            self._pending[key] = work
            self._per_edit = _averaged(self._per_edit, work)
        try:
            yield key
        finally:
            with self._lock:
                del self._pending[key]

    def spend(self, key: int, work: float) -> None:
        """Take finished work off what was announced."""
        with self._lock:
            if key in self._pending:
                self._pending[key] = max(0.0, self._pending[key] - work)

    def did(self, work: float, seconds: float) -> None:
        """Record that a batch of `work` took `seconds`."""
        with self._lock:
            self.last_seconds = seconds
            if work > 0:
                self._pace = _averaged(self._pace, seconds / work)

    @property
    def edits(self) -> int:
        """Announcements that have not ended."""
        return len(self._pending)

    @property
    def queued_seconds(self) -> float:
        """Estimated seconds of stepping that are announced and not done; 0 before the first batch."""
        with self._lock:
            return sum(self._pending.values()) * (self._pace or 0.0)

    @property
    def seconds_per_edit(self) -> float:
        """Estimated seconds of stepping that one more edit adds."""
        with self._lock:
            return (self._per_edit or 0.0) * (self._pace or 0.0)


def _averaged(before: float | None, now: float) -> float:
    return now if before is None else before + SMOOTHING * (now - before)
