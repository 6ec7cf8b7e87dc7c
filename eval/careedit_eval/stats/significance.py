"""The test of a paired mean difference, the correction for many tests, and non-inferiority to a margin."""

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
    """Two-sided p of a mean difference being 0, from the sums of differences per source image [n].

    The statistic is the sum of the sums, so the very mean whose sign is printed; under the hypothesis an image's sum has either
    sign alike (Fisher, The Design of Experiments, 1935, section 21). Exact where at most `EXACT_UP_TO` images differ, else from
    `FLIPS` draws, the observed one counted among them. None where no image differs: there is nothing to test.
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
    """Holm's step-down adjusted p (Scand. J. Stat. 6, 1979); None stays None and does not count as a test."""
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
