"""Statistics that are valid at any time, because people look at online A/B tests while these run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from careedit.errors import InputError
from careedit.stats import Interval

TIGHTEST_AT = 500
"""The number of rows at which the confidence sequence is narrowest."""


class Anytime(NamedTuple):
    """An estimate that remains valid if one looks after every row."""

    value: float
    """The estimate from all data so far."""
    interval: Interval
    """An interval that is valid at all times at once with the stated probability."""
    p: float
    """The p value of 0, valid at any time: 1 - the widest level whose interval excludes 0."""


def confidence_sequence(values: ArrayLike, *, alpha: float = 0.05, tightest_at: int = TIGHTEST_AT) -> Anytime | None:
    """The running mean of `values` [n], with an interval that is valid at all n at once, however often one looks.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Ann. Stat. 52, 2024,
    theorem 2.2): mean ± sd * sqrt(2 (n rho² + 1) / (n² rho²) * log(sqrt(n rho² + 1) / alpha)), with rho chosen as in their
    appendix so that it is narrowest at `tightest_at` rows. None for fewer than two values.
    """
    array = np.asarray(values, np.float64)
    if array.size < 2:
        return None
    return _sequence(float(array.mean()), float(array.std(ddof=1)), array.size, alpha, tightest_at)


def difference_sequence(
    after: ArrayLike, before: ArrayLike, *, alpha: float = 0.05, tightest_at: int = TIGHTEST_AT
) -> Anytime | None:
    """The same for mean(after) - mean(before) of two independent groups, which may grow at different rates.

    The difference of means is asymptotically linear, with variance n (s_a² / n_a + s_b² / n_b) per row over all n = n_a + n_b
    rows, so theorem 2.2 applies (section 3 of the same paper). None for fewer than two values in a group. If both groups have a
    spread of 0, the interval is a point and p is 1 or 0.
    """
    one, other = np.asarray(after, np.float64), np.asarray(before, np.float64)
    if min(one.size, other.size) < 2:
        return None
    n = one.size + other.size
    variance = n * (one.var(ddof=1) / one.size + other.var(ddof=1) / other.size)
    return _sequence(float(one.mean() - other.mean()), math.sqrt(variance), n, alpha, tightest_at)


def _sequence(value: float, deviation: float, n: int, alpha: float, tightest_at: int) -> Anytime:
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tightest_at
    grown = n * rho2 + 1
    spread = 2 * grown / (n**2 * rho2)
    half = deviation * math.sqrt(spread * math.log(math.sqrt(grown) / alpha))
    if deviation == 0:
        return Anytime(value, Interval(value, value), float(value == 0))
    # The interval excludes 0 at every level above this one.
    p = math.sqrt(grown) * math.exp(-(value**2) / (deviation**2 * spread))
    return Anytime(value, Interval(value - half, value + half), min(1.0, p))


def sample_ratio_p(seen: Mapping[str, int], weights: Mapping[str, float]) -> float:
    """The p value of the split of the traffic under its weights (chi-squared test).

    A p below 0.001 shows that the assignment is broken, and then no other figure of the A/B test is reliable.
    """
    if set(seen) != set(weights):
        raise InputError(
            f"Traffic of {sorted(seen)} was compared with weights of {sorted(weights)}; name the same arms."
        )
    total, whole = sum(seen.values()), sum(weights.values())
    arms = [arm for arm in seen if weights[arm] > 0]
    if total == 0 or len(arms) < 2:
        return 1.0
    if sum(seen[arm] for arm in arms) != total:
        return 0.0  # a user was assigned to an arm that takes no traffic
    expected = [total * weights[arm] / whole for arm in arms]
    return float(stats.chisquare([seen[arm] for arm in arms], expected).pvalue)
