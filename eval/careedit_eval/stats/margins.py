"""Non-inferiority: "not worse by more than a margin" instead of "no difference was seen"."""

from __future__ import annotations

from typing import Literal

from careedit.errors import InputError
from careedit_eval.stats.intervals import Interval


def non_inferiority(
    difference: Interval, margin: float, *, higher_is_better: bool = True
) -> Literal["pass", "worse", "inconclusive"]:
    """What the interval of B - A says of "B is not worse than A by more than `margin`".

    "pass" where the whole interval lies on the good side of the margin (ICH E9, 3.3.2), "worse" where all of it lies
    beyond, "inconclusive" where it holds the margin: too few rows never pass, where a test of difference would find
    nothing. With a 95 % interval each of "pass" and "worse" is a one-sided test at 2.5 %. Raises `InputError` for a
    negative margin.
    """
    if margin < 0:
        raise InputError(f"The margin is {margin}; give how much worse is still acceptable, 0 or more.")
    low, high = difference if higher_is_better else (-difference.high, -difference.low)
    return "pass" if low >= -margin else "worse" if high < -margin else "inconclusive"
