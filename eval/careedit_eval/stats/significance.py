"""Tests of paired differences, and the correction for making many of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

EXACT_BELOW = 25
"""Discordant pairs below which McNemar's test is exact."""

Key = TypeVar("Key")


def wilcoxon_p(differences: ArrayLike) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test; give one difference per source image, which are independent.

    Zeros are ranked and then dropped (Pratt, JASA 54, 1959); scipy computes it exactly up to 50 differences without
    ties. None where all differences are zero: there is nothing to test.
    """
    array = np.asarray(differences, np.float64)
    if not array.any():
        return None
    return float(stats.wilcoxon(array, zero_method="pratt", method="auto").pvalue)


def mcnemar_p(won: int, lost: int) -> float | None:
    """Two-sided p of McNemar's test for pass/fail: `won` pairs went from fail to pass, `lost` from pass to fail.

    Exact (binomial) below `EXACT_BELOW` discordant pairs, else chi-squared with Edwards' correction. None without any.
    """
    discordant = won + lost
    if not discordant:
        return None
    if discordant < EXACT_BELOW:
        return float(stats.binomtest(won, discordant).pvalue)
    return float(stats.chi2.sf(max(0, abs(won - lost) - 1) ** 2 / discordant, 1))


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Holm's step-down adjusted p (Scand. J. Stat. 6, 1979); None stays None and is no test that counts."""
    told = sorted((p, i) for i, p in enumerate(p_values.values()) if p is not None)
    adjusted: dict[int, float] = {}
    reached = 0.0
    for rank, (p, i) in enumerate(told):
        reached = max(reached, min(1.0, (len(told) - rank) * p))
        adjusted[i] = reached
    return {key: adjusted.get(i) for i, key in enumerate(p_values)}
