"""Non-inferiority: "not worse by more than a margin" instead of "no difference was seen"."""

from __future__ import annotations

from careedit.errors import InputError
from careedit_eval.stats.intervals import Interval


def non_inferior(difference: Interval, margin: float, *, higher_is_better: bool = True) -> bool:
    """Whether B is not worse than A by more than `margin`, judged by the interval of B - A.

    The whole interval must lie on the good side of the margin (ICH E9, 3.3.2): too few rows therefore fail, where a
    test of difference would find nothing and pass. Raises `InputError` for a negative margin.
    """
    if margin < 0:
        raise InputError(f"The margin is {margin}; give how much worse is still acceptable, 0 or more.")
    return difference.low >= -margin if higher_is_better else difference.high <= margin
