"""Intervals, quantiles and the area under a ROC curve: the statistics that more than one package needs.

Nothing depends on a global random state: the same numbers give the same interval on every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from careedit.errors import InputError

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Confidence level of every interval, unless a caller gives another one."""
RESAMPLES = 10_000
"""Resamples of a bootstrap interval."""
SEED = 20_240_229
"""Seed of every resampling. It is part of the benchmarks' protocol, not an option."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    """Lower bound, in the unit of the estimate."""
    high: float
    """Upper bound, in the unit of the estimate."""


def normal_quantile(level: float = LEVEL) -> float:
    """Two-sided quantile of the normal distribution: 1.96 for a level of 0.95."""
    return float(special.ndtri((1 + level) / 2))


def wilson(hits: float, count: float, *, quantile: float | None = None) -> Interval:
    """Score interval of the rate `hits` / `count` (Wilson, JASA 22, 1927). It holds for few rows and for rare hits.

    Both may be fractions: divided by a design effect they count independent rows (Korn & Graubard, Surv. Methodol. 24,
    1998). `quantile` is two-sided, of the normal or of a t distribution; default: the normal's at `LEVEL`.
    """
    z = normal_quantile() if quantile is None else quantile
    middle = (hits + z**2 / 2) / (count + z**2)
    rate = min(1.0, max(0.0, hits / count))
    half = z * math.sqrt(count * rate * (1 - rate) + z**2 / 4) / (count + z**2)
    return Interval(max(0.0, middle - half) if rate > 0 else 0.0, min(1.0, middle + half) if rate < 1 else 1.0)


def bootstrap_mean(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """Percentile interval of the mean of `values` [n], resampled with replacement. Raises `InputError` for no values."""
    return _bootstrap(lambda sample, axis: sample.mean(axis), [values], level, resamples)


def bootstrap_ratio(above: ArrayLike, below: ArrayLike, *, level: float = LEVEL) -> Interval | None:
    """Percentile interval of mean(above) / mean(below), both [n] and paired, `below` 0 or more.

    None where the denominator of a resample is 0. Raises `InputError` for no values.
    """

    undefined = False

    def ratio(top: Floats, bottom: Floats, axis: int) -> Floats:
        nonlocal undefined
        whole = bottom.mean(axis)
        undefined |= bool((whole <= 0).any())
        return np.asarray(top.mean(axis) / np.where(whole > 0, whole, 1.0))

    found = _bootstrap(ratio, [above, below], level, RESAMPLES)
    return None if undefined else found


def _bootstrap(statistic: Callable[..., Any], columns: Sequence[ArrayLike], level: float, resamples: int) -> Interval:
    from scipy import stats  # takes seconds to load, and servers import this module

    arrays = [np.asarray(column, np.float64) for column in columns]
    size = arrays[0].size
    if any(array.ndim != 1 for array in arrays) or size == 0:
        raise InputError("A bootstrap needs one or more values; give one value per scene.")
    if size == 1:  # scipy refuses a single row, of which every resample is the same
        point = float(statistic(*arrays, axis=-1))
        return Interval(point, point)
    found = stats.bootstrap(
        arrays,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=1000,  # bounds the memory; the draws do not depend on it
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng([SEED, size]),  # arrays of one length are resampled alike
    )
    return Interval(*(float(end) for end in found.confidence_interval))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of all values do not exceed (nearest rank).

    Raises `InputError` for no values, or for a percentile outside (0, 100].
    """
    if not values or not 0 < percent <= 100:
        raise InputError(f"{len(values)} values have no percentile {percent:g}; give values, and 0 < percent <= 100.")
    return float(np.percentile(values, percent, method="inverted_cdf"))


def area_under_roc(negatives: ArrayLike, positives: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counted half; 0.5 is chance.

    Raises `InputError` where a class has no scores.
    """
    low, high = np.asarray(negatives, np.float64), np.asarray(positives, np.float64)
    if low.size == 0 or high.size == 0:
        raise InputError("An area under a ROC curve needs scores of both classes.")
    difference = high[:, None] - low[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
