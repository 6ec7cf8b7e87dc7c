"""Measures whether the memory of the platform's processes grows while they work."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 2**20
_REPLICA = re.compile(r"ray::ServeReplica:[^:]*:([^. ]+)")
WARM = 0.25
"""Share of a run that is warm-up and does not count."""
ALLOWED_SHARE, ALLOWED_MIB = 0.03, 8.0
"""Growth that still counts as flat: this share of the beginning, but at least this many MiB. Allocators keep some memory."""


@dataclass(frozen=True)
class Level:
    """Memory of a process at one moment."""

    second: float
    """Seconds since the first measurement."""
    mib: float
    """Memory that only this process uses (USS), in MiB."""


@dataclass(frozen=True)
class Growth:
    """Growth of the memory of a process after the warm-up."""

    name: str
    """Name of the process, as Ray calls it."""
    pid: int
    """Process id on this machine."""
    begin_mib: float
    """Median of the first third after the warm-up, in MiB."""
    end_mib: float
    """Median of the last third, in MiB."""
    flat: bool
    """Whether the growth is within the allowed limit."""

    @property
    def grown_mib(self) -> float:
        """Difference from begin to end in MiB; negative if memory was freed."""
        return self.end_mib - self.begin_mib


def growth(name: str, pid: int, levels: Sequence[Level]) -> Growth | None:
    """Growth of a process. None if it has fewer than nine measurements after the warm-up."""
    last = levels[-1].second if levels else 0.0
    warm = [level.mib for level in levels if level.second >= WARM * last]
    if len(warm) < 9:
        return None
    third = len(warm) // 3
    begin, end = statistics.median(warm[:third]), statistics.median(warm[-third:])
    return Growth(name, pid, begin, end, end - begin <= max(ALLOWED_MIB, ALLOWED_SHARE * begin))


class MemoryWatch:
    """Measures the descendants of this process, which include Ray's processes if it started the cluster."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._levels: dict[int, list[Level]] = {}
        self._names: dict[int, str] = {}

    def look(self) -> None:
        """Record the memory of every descendant."""
        second = time.monotonic() - self._started
        for process in psutil.Process().children(recursive=True):
            try:
                mib = process.memory_full_info().uss / MIB
                self._names[process.pid] = name_of(process.cmdline())
            except psutil.Error:
                continue  # it has just ended, or access is denied
            self._levels.setdefault(process.pid, []).append(Level(second, mib))

    def growths(self) -> list[Growth]:
        """Growth of each process that existed from the warm-up to the end, the largest first."""
        last = max((levels[-1].second for levels in self._levels.values()), default=0.0)
        found = [
            growth(self._names[pid], pid, levels)
            for pid, levels in self._levels.items()
            if levels[0].second <= WARM * last and levels[-1].second == last
        ]
        return sorted((one for one in found if one is not None), key=lambda one: -one.grown_mib)


def name_of(words: Sequence[str]) -> str:
    """A name for people from a process's command line: a replica's deployment, an actor of Ray, or a program's file."""
    line = " ".join(words)
    if found := _REPLICA.match(line):
        return found[1]
    if line.startswith("ray::"):
        return line.removeprefix("ray::").split(".")[0].strip()
    scripts = [word for word in words if word.endswith(".py")] or words[:1]
    return Path(scripts[0]).name if scripts else "unknown"
