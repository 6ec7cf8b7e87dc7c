"""The arithmetic of the benchmark: ratios within one run, percentiles, and the share of answers that came in time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from careedit.errors import InputError


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity that was taken several times within one run."""

    values: tuple[float, ...]
    """One per round, in the order in which they were taken."""

    @property
    def value(self) -> float:
        """The median: one round that something else disturbed does not move it."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest."""
        return min(self.values), max(self.values)


def ratios(above: Sequence[float], below: Sequence[float]) -> Figure:
    """`above` over `below`, round by round."""
    return Figure(tuple(a / b for a, b in zip(above, below, strict=True)))


def differences(first: Sequence[float], second: Sequence[float]) -> Figure:
    """`first` less `second`, round by round."""
    return Figure(tuple(a - b for a, b in zip(first, second, strict=True)))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of all are no larger than (nearest rank). Raises `InputError`."""
    if not values or not 0 < percent <= 100:
        raise InputError(f"{len(values)} values have no percentile {percent:g}; give values, and 0 < percent <= 100.")
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


def attainment(seconds: Sequence[float | None], allowed: Sequence[float]) -> float:
    """Share of requests that were answered within their allowed seconds; None stands for one that failed."""
    met = [taken is not None and taken <= limit for taken, limit in zip(seconds, allowed, strict=True)]
    if not met:
        raise InputError("No request was sent, so no share of them came in time; give at least one.")
    return sum(met) / len(met)
