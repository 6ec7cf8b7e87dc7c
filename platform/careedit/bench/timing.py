"""Paired timing: two ways to do the same work run in turn, so that a slow phase of the machine slows both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from careedit.errors import InputError
from careedit.stats import Interval

Side = TypeVar("Side")


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity that is measured several times within one run."""

    values: tuple[float, ...]
    """One value per round, in the order in which they were measured."""

    @property
    def value(self) -> float:
        """The median, which a single disturbed round does not change."""
        return statistics.median(self.values)

    @property
    def spread(self) -> Interval:
        """The smallest and the largest value."""
        return Interval(min(self.values), max(self.values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Figure:
    """`above` divided by `below`, round by round. Raises `ValueError` for unequal numbers of rounds."""
    return Figure(tuple(a / b for a, b in zip(above, below, strict=True)))


def differences(first: Sequence[float], second: Sequence[float]) -> Figure:
    """`first` minus `second`, round by round. Raises `ValueError` for unequal numbers of rounds."""
    return Figure(tuple(a - b for a, b in zip(first, second, strict=True)))


def turns(sides: Sequence[Side], index: int) -> Sequence[Side]:
    """The sides in the order of round number `index`: every second round is reversed, so that no side always runs first."""
    return sides if index % 2 == 0 else sides[::-1]


@dataclass(frozen=True, slots=True)
class Lap:
    """One timed run."""

    seconds: float
    """Wall-clock time of the run, in seconds."""
    cpu_seconds: float
    """Processor time of all threads of the process, in seconds. It excludes time in which other processes ran."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The time of one side divided by the time of another; one ratio per repeat."""

    what: str
    """Name of the numerator's side, for reports."""
    over: str
    """Name of the denominator's side, for reports."""
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
        """The median ratio of processor time: steadier than `ratio` on a busy machine, but it ignores idle cores."""
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

    The two run in turn, and their order alternates, so that neither always runs on the warmer machine. `done` is
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


def measure(run: Callable[[], object], *, repeats: int, device: torch.device) -> float:
    """Median wall-clock seconds of `repeats` runs, after one untimed run to warm up."""
    run()
    with _no_garbage_collection():
        return statistics.median(_time(run, device).seconds for _ in range(repeats))


def check_counts(**counts: int | None) -> None:
    """Raise `InputError` for a number below 1; None passes."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} is {count}; it must be at least 1.")


def _time(function: Callable[[], object], device: torch.device) -> Lap:
    _wait(device)
    cpu, start = time.process_time(), time.perf_counter()
    function()
    _wait(device)
    return Lap(time.perf_counter() - start, time.process_time() - cpu)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """As in `timeit`: no side pays for the collection of the other side's garbage."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _wait(device: torch.device) -> None:
    """Wait for queued kernels, because a GPU works asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
