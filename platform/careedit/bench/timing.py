"""Paired timing and its figures: two ways to do a thing take turns, so that a machine that slows down slows both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from careedit.stats import Interval

Side = TypeVar("Side")


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity that was measured several times within one run."""

    values: tuple[float, ...]
    """One value per round, in the order in which they were measured."""

    @property
    def value(self) -> float:
        """The median: one round that something else disturbed does not move it."""
        return statistics.median(self.values)

    @property
    def spread(self) -> Interval:
        """The smallest and the largest value."""
        return Interval(min(self.values), max(self.values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Figure:
    """`above` over `below`, round by round. Raises `ValueError` for unequal numbers of rounds."""
    return Figure(tuple(a / b for a, b in zip(above, below, strict=True)))


def differences(first: Sequence[float], second: Sequence[float]) -> Figure:
    """`first` minus `second`, round by round. Raises `ValueError` for unequal numbers of rounds."""
    return Figure(tuple(a - b for a, b in zip(first, second, strict=True)))


def turns(sides: Sequence[Side], index: int) -> Sequence[Side]:
    """The sides in the order of round number `index`: forwards and backwards in turn, so that none always runs first."""
    return sides if index % 2 == 0 else sides[::-1]


@dataclass(frozen=True, slots=True)
class Lap:
    """One timed run."""

    seconds: float
    """Wall-clock seconds."""
    cpu_seconds: float
    """Processor seconds of all threads of the process; time in which another process had the core is not in it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How long one thing takes, over how long another takes; one ratio per repeat."""

    what: str
    """What stands above the line."""
    over: str
    """What stands below it."""
    laps: tuple[Lap, ...]
    """Runs of `what`, one per repeat."""
    over_laps: tuple[Lap, ...]
    """Runs of `over`, in the same order."""

    @property
    def wall(self) -> Figure:
        """Ratios of wall-clock time, one per repeat."""
        return ratios([lap.seconds for lap in self.laps], [lap.seconds for lap in self.over_laps])

    @property
    def ratios(self) -> tuple[float, ...]:
        """Wall-clock ratio of each repeat."""
        return self.wall.values

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return self.wall.value

    @property
    def spread(self) -> Interval:
        """The smallest and the largest of `ratios`."""
        return self.wall.spread

    @property
    def cpu_ratio(self) -> float:
        """The median ratio of processor time: steadier than `ratio` on a busy machine, blind to idle cores."""
        return ratios([lap.cpu_seconds for lap in self.laps], [lap.cpu_seconds for lap in self.over_laps]).value

    @property
    def seconds(self) -> tuple[float, float]:
        """Median wall-clock seconds of `what` and of `over`."""
        laps, over_laps = ([lap.seconds for lap in laps] for laps in (self.laps, self.over_laps))
        return statistics.median(laps), statistics.median(over_laps)


def compare(
    what: str,
    run: Callable[[], object],
    over: str,
    baseline: Callable[[], object],
    *,
    repeats: int,
    device: torch.device,
    done: Callable[[], None] = lambda: None,
) -> Comparison:
    """Time `run` against `baseline`: once each untimed to warm up, then `repeats` times each.

    The two take turns, and the turns' order alternates, so that neither always runs on the warmer machine. `done` is
    called after each timed run.
    """
    for warm_up in (baseline, run):
        warm_up()
    laps: list[Lap] = []
    over_laps: list[Lap] = []
    with _no_garbage_collection():
        for repeat in range(repeats):
            for function, kept in turns([(run, laps), (baseline, over_laps)], repeat):
                kept.append(_time(function, device))
                done()
    return Comparison(what, over, tuple(laps), tuple(over_laps))


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads inside, and what it used before outside; None changes nothing."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _time(function: Callable[[], object], device: torch.device) -> Lap:
    _wait(device)
    cpu, start = time.process_time(), time.perf_counter()
    function()
    _wait(device)
    return Lap(time.perf_counter() - start, time.process_time() - cpu)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """As `timeit`: neither side pays for a collection that the other's garbage set off."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _wait(device: torch.device) -> None:
    """Let queued kernels end: a GPU's work is asynchronous."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
