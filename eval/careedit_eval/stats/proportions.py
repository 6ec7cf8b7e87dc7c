"""Score intervals of counts: they hold for few rows and rare events, and are no point where nothing happened.

Counts may be fractions: divided by a design effect they are those of so many independent rows (Korn & Graubard, Surv.
Methodol. 24, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable


def rate_interval(passed: float, rows: float, quantile: float) -> tuple[float, float]:
    """Interval of a rate, `passed` of `rows` (Wilson, JASA 22, 1927); `quantile` is that of the normal or t distribution."""
    square = quantile**2
    middle = (passed + square / 2) / (rows + square)
    rate = min(1.0, max(0.0, passed / rows))
    half = quantile * math.sqrt(rows * rate * (1 - rate) + square / 4) / (rows + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def flips_interval(won: float, lost: float, rows: float, quantile: float) -> tuple[float, float]:
    """Interval of the difference of two paired rates: `won` of `rows` pairs went from fail to pass, `lost` back.

    Tango (Stat. Med. 17, 1998, eq. 8 to 10): all differences that a score test does not reject. With no flip among n pairs
    it is ± q² / (n + q²), about the rule of three.
    """

    def rejected(difference: float) -> bool:
        away = won - lost - rows * difference
        return away**2 > quantile**2 * rows * flips_variance(won / rows, lost / rows, difference)

    estimate = (won - lost) / rows
    return _last_inside(rejected, estimate, -1.0), _last_inside(rejected, estimate, 1.0)


def flips_variance(won: float, lost: float, difference: float) -> float:
    """Variance of one pair's difference where the true mean is `difference`, from the observed shares of flips.

    The share lost is the likeliest under that mean (Tango, eq. 9).
    """
    half = (2 - won + lost) * difference - won - lost
    root = math.sqrt(max(0.0, half**2 + 8 * lost * difference * (1 - difference)))
    likeliest = (root - half) / 4
    return max(0.0, 2 * likeliest + difference * (1 - difference))


def _last_inside(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where between the two the rejection begins, by bisection."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return outside
