"""Statistics that may be looked at any time: online A/B tests are, whatever was planned."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from careedit.errors import InputError
from careedit_eval.stats.intervals import Interval

TIGHTEST_AT = 500
"""Number of rows at which the confidence sequence is narrowest."""


def confidence_sequence(values: ArrayLike, *, alpha: float = 0.05, tightest_at: int = TIGHTEST_AT) -> Interval | None:
    """Interval of a running mean of `values` [n] that holds at all n at once, so peeking costs nothing.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Ann. Stat. 52, 2024,
    theorem 2.2): mean ± sd * sqrt(2 (n rho² + 1) / (n² rho²) * log(sqrt(n rho² + 1) / alpha)), with rho chosen as in their
    appendix to be narrowest at `tightest_at` rows. None with fewer than two values.
    """
    array = np.asarray(values, np.float64)
    if array.size < 2:
        return None
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tightest_at
    n = array.size
    grown = n * rho2 + 1
    half = float(array.std(ddof=1)) * math.sqrt(2 * grown / (n**2 * rho2) * math.log(math.sqrt(grown) / alpha))
    mean = float(array.mean())
    return Interval(mean - half, mean + half)


def sample_ratio_p(seen: Mapping[str, int], weights: Mapping[str, float]) -> float:
    """p of the traffic's split under its weights (chi-squared); a tiny one says that the assignment is broken.

    Look at p < 0.001: a split that differs from what was asked for makes every other figure of an A/B test suspect.
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
        return 0.0  # somebody was sent to an arm that takes no traffic
    expected = [total * weights[arm] / whole for arm in arms]
    return float(stats.chisquare([seen[arm] for arm in arms], expected).pvalue)
