"""The memory of a platform's processes while it works, and whether it grows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

MIB = 2**20
WARM = 0.25
"""Share of a run that does not count: caches fill, allocators settle."""
ALLOWED_SHARE, ALLOWED_MIB = 0.03, 8.0
"""Growth that is called flat, as a share of the beginning and at least in MiB: what allocators keep for themselves."""


@dataclass(frozen=True)
class Level:
    """A process's memory at one moment."""

    second: float
    """Since the first look."""
    mib: float
    """What it alone holds (USS)."""


@dataclass(frozen=True)
class Growth:
    """What became of a process's memory once it was warm."""

    name: str
    """What it is, as Ray calls it."""
    pid: int
    """Its number."""
    begin_mib: float
    """Median of the first third after warming up."""
    end_mib: float
    """Median of the last third."""
    flat: bool
    """Whether it grew by no more than an allocator may."""

    @property
    def grown_mib(self) -> float:
        """From begin to end; negative where memory was given back."""
        return self.end_mib - self.begin_mib


def growth(name: str, pid: int, levels: Sequence[Level]) -> Growth | None:
    """How a process's memory changed; None for one that was not there long enough to be judged: nine warm looks."""
    last = levels[-1].second if levels else 0.0
    warm = [level.mib for level in levels if level.second >= WARM * last]
    if len(warm) < 9:
        return None
    third = len(warm) // 3
    begin, end = statistics.median(warm[:third]), statistics.median(warm[-third:])
    return Growth(name, pid, begin, end, end - begin <= max(ALLOWED_MIB, ALLOWED_SHARE * begin))


class MemoryWatch:
    """Looks at this process's descendants: Ray's, where it started the cluster."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._levels: dict[int, list[Level]] = {}
        self._names: dict[int, str] = {}

    def look(self) -> None:
        """Note what every descendant holds now."""
        second = time.monotonic() - self._started
        for process in psutil.Process().children(recursive=True):
            try:
                mib = process.memory_full_info().uss / MIB
                self._names[process.pid] = _name(process)
            except psutil.Error:
                continue  # it ended in this moment, or is not ours to look at
            self._levels.setdefault(process.pid, []).append(Level(second, mib))

    def told(self) -> list[Growth]:
        """Every process that was there all the time from warming up to the end, the largest growth first."""
        last = max((levels[-1].second for levels in self._levels.values()), default=0.0)
        found = [
            growth(self._names[pid], pid, levels)
            for pid, levels in self._levels.items()
            if levels[0].second <= WARM * last and levels[-1].second == last
        ]
        return sorted((one for one in found if one is not None), key=lambda one: -one.grown_mib)


def _name(process: psutil.Process) -> str:
    """`ServeReplica:careedit:ingress` for a worker of Ray's, which says what it does; else the program's name."""
    title = " ".join(process.cmdline()).strip()
    return (
        title.removeprefix("ray::").split(".", 1)[0].split(" ", 1)[0] if title.startswith("ray::") else process.name()
    )
