"""The test of a paired mean difference, the correction for many tests, and non-inferiority within a margin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from careedit.errors import InputError
from careedit.stats import SEED, Interval

EXACT_UP_TO = 13
"""Up to this number of clusters that differ, every assignment of signs is counted: 2^13 of them."""
FLIPS = 10_000
"""The number of random assignments beyond that."""
_AT_ONCE = 4_000_000
"""The number of signs held at once, which limits the memory of a test."""

Key = TypeVar("Key")


def sign_flip_p(sums: ArrayLike) -> float | None:
    """The two-sided p value of a mean difference of 0, from the sums of differences per source image [n].

    The statistic is the total of the sums. Under the hypothesis both signs of a sum are equally probable (Fisher, The Design of
    Experiments, 1935, section 21). The test is exact if at most `EXACT_UP_TO` images differ; otherwise it uses `FLIPS` draws
    and the observed one. None if no image differs.
    """
    array = np.abs(found := np.asarray(sums, np.float64))
    array = array[array > 0]
    if not array.size:
        return None
    total = abs(float(found.sum())) * (1 - 1e-9)  # ties with the observed sum count, whatever their rounding
    if array.size <= EXACT_UP_TO:
        signs = (np.arange(2**array.size)[:, None] >> np.arange(array.size)) & 1
        return float((np.abs(array.sum() - 2 * (signs @ array)) >= total).mean())
    rng = np.random.default_rng([SEED, array.size])
    beyond, step = 1, max(1, _AT_ONCE // array.size)
    for first in range(0, FLIPS, step):
        draws = min(step, FLIPS - first)
        bits = np.unpackbits(np.frombuffer(rng.bytes(-(-draws * array.size // 8)), np.uint8), count=draws * array.size)
        flipped = bits.reshape(draws, array.size).astype(np.float32) @ array.astype(np.float32)
        beyond += int((np.abs(array.sum() - 2 * flipped) >= total * (1 - 1e-5)).sum())
    return beyond / (FLIPS + 1)


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Holm's step-down adjusted p values (Scand. J. Stat. 6, 1979). None stays None and does not count as a test."""
    ordered = sorted((p, i) for i, p in enumerate(p_values.values()) if p is not None)
    adjusted: dict[int, float] = {}
    reached = 0.0
    for rank, (p, i) in enumerate(ordered):
        reached = max(reached, min(1.0, (len(ordered) - rank) * p))
        adjusted[i] = reached
    return {key: adjusted.get(i) for i, key in enumerate(p_values)}


def non_inferiority(
    difference: Interval, margin: float, *, higher_is_better: bool = True
) -> Literal["pass", "worse", "inconclusive"]:
    """Judge "B is not worse than A by more than `margin`" by the interval of B - A.

    "pass" if the whole interval is on the good side of the margin (ICH E9, 3.3.2), "worse" if all of it is beyond the margin,
    and "inconclusive" if it contains the margin. So too few rows never pass. With a 95 % interval, "pass" and "worse" are
    one-sided tests at 2.5 %. Raises `InputError` for a negative margin.
    """
    if margin < 0:
        raise InputError(f"The margin is {margin}; give how much worse is still acceptable, 0 or more.")
    low, high = difference if higher_is_better else (-difference.high, -difference.low)
    return "pass" if low >= -margin else "worse" if high < -margin else "inconclusive"
