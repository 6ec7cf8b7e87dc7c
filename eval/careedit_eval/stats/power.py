"""How small a difference so many source images can show, and how many images a difference needs.

The normal approximation of the paired two-sided test: d = (z_(1-alpha/2) + z_power) * sd / sqrt(n), with sd the standard
deviation of the differences per source image (Cohen, Statistical Power Analysis, 1988, ch. 2).
"""

from __future__ import annotations

import math

from scipy import stats

from careedit.errors import InputError

ALPHA = 0.05
"""Two-sided error of the first kind."""
POWER = 0.8
"""Probability that a difference of the stated size is seen."""


def detectable_difference(deviation: float, images: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that `images` source images show, in the metric's unit."""
    if images < 2:
        raise InputError(f"{images} source images show no difference; give 2 or more.")
    return _factor(alpha, power) * deviation / math.sqrt(images)


def samples_needed(deviation: float, difference: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """How many source images show a true difference of this size; at least 2."""
    if difference <= 0:
        raise InputError(f"The difference is {difference}; give the size that must be seen, above 0.")
    return max(2, math.ceil((_factor(alpha, power) * deviation / difference) ** 2))


def _factor(alpha: float, power: float) -> float:
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
