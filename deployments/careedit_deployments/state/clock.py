"""`unix_time`: the time of day of this process, which a clock that is set wrongly for a while cannot move.

Leases, lifetimes, ids and stored times use it instead of `time.time`. Durations use `time.monotonic` or `time.perf_counter`.
The reference is the database's clock if the database is a server, so that hosts agree; a SQLite file has no clock of its
own, so it is the host's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

SMALL_S = 1.0
"""Seconds by which the reference may move at once, as it does when a host's clock is corrected a little."""
FOLLOW_S = 600.0
"""Seconds for which a larger move must last before it counts as the right time."""


class SteadyClock:
    """Seconds since 1970, as its reference says. They pass as monotonic time does, whatever is done to the reference."""

    def __init__(
        self, reference: Callable[[], float] = time.time, elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._reference: Callable[[], float] | None = reference
        self._elapsed = elapsed
        self._offset = reference() - elapsed()
        self._moved: tuple[float, float] | None = None  # when it was first seen, and by how much

    def __call__(self) -> float:
        """The time now."""
        if self._reference is not None:
            self._observe(self._reference())
        return self._elapsed() + self._offset

    def follow(self, time_of_database: float) -> None:
        """Take the time that the database says; from now on, it is the reference instead of the host's clock."""
        if self._reference is not None:
            self._reference, self._moved = None, None
            self._offset = time_of_database - self._elapsed()
        self._observe(time_of_database)

    def _observe(self, says: float) -> None:
        elapsed = self._elapsed()
        move = says - elapsed - self._offset
        if abs(move) <= SMALL_S:
            self._offset, self._moved = self._offset + move, None
        elif self._moved is None or abs(move - self._moved[1]) > SMALL_S:
            self._moved = (elapsed, move)
            logger.warning("The clock moved by %+.0f seconds; this counts after it lasted %g seconds.", move, FOLLOW_S)
        elif elapsed - self._moved[0] >= FOLLOW_S:
            self._offset, self._moved = self._offset + move, None


unix_time = SteadyClock()
"""The clock of this process; call it instead of `time.time`."""
