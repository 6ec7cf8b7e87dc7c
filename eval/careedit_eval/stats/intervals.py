"""Bootstrap intervals of a mean over rows that share source images.

Rows of one source image (several instructions, several seeds) are not independent, so whole images are resampled (the
cluster bootstrap: Field & Welsh, J. R. Stat. Soc. B 69, 2007). Intervals are BCa (Efron, JASA 82, 1987, eq. 2.3): scores
of edits are skewed and bounded, and the percentile interval, which corrects for neither, is the narrower of the two for
the same error. The seed is part of the protocol, not an option: the same rows give the same bounds on every run.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from careedit.errors import InputError

Floats = NDArray[np.float64]
Method = Literal["bca", "percentile"]

DRAWS = 10_000
"""Bootstrap draws of an interval."""
SEED = 20_240_229
"""Of every draw; the one of `careedit bench quality`."""
LEVEL = 0.95
"""Of every interval."""
_AT_ONCE = 2_000_000
"""Resampled figures held at once, which bounds the memory of a draw."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""


def cluster_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    method: Method = "bca",
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Interval | None:
    """Interval of the mean of `values` [n], clusters (labels [n], by default every row its own) drawn with replacement.

    None with fewer than two clusters, which tell nothing of a spread. Equal cluster means collapse to a point. Where BCa
    is undefined (every draw on one side of the mean) the percentile interval is given. Raises `InputError` for no values
    or a value that is no finite number.
    """
    sums, counts = _totals(values, clusters)
    if sums.size < 2:
        return None
    mean = float(sums.sum() / counts.sum())
    if np.allclose(sums / counts, mean, rtol=0, atol=1e-12):
        return Interval(mean, mean)
    drawn = _draw(sums, counts, draws, seed)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    shares = tails if method == "percentile" else _bca_shares(sums, counts, drawn, mean, tails)
    low, high = np.quantile(drawn, shares)
    return Interval(float(low), float(high))


def cluster_means(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Floats:
    """Mean of `values` [n] per cluster, in the order in which the clusters appear."""
    sums, counts = _totals(values, clusters)
    return np.asarray(sums / counts, np.float64)


def _totals(values: ArrayLike, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and number of values per cluster."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError("An interval needs one or more values; give the rows that were scored.")
    if not np.isfinite(array).all():
        raise InputError("A value is no finite number; an error is an error row, never a NaN among the scores.")
    if clusters is None:
        return array, np.ones_like(array)
    if len(clusters) != array.size:
        raise InputError(f"{array.size} values came with {len(clusters)} clusters; give one cluster per value.")
    codes: dict[Hashable, int] = {}
    index = np.array([codes.setdefault(cluster, len(codes)) for cluster in clusters])
    return np.bincount(index, weights=array).astype(np.float64), np.bincount(index).astype(np.float64)


def _draw(sums: Floats, counts: Floats, draws: int, seed: int) -> Floats:
    """Means of `draws` resamples of the clusters: [draws]."""
    rng = np.random.default_rng([seed, sums.size])
    means = np.empty(draws)
    step = max(1, _AT_ONCE // sums.size)
    for first in range(0, draws, step):
        chosen = rng.integers(sums.size, size=(min(step, draws - first), sums.size))
        means[first : first + len(chosen)] = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return means


def _bca_shares(sums: Floats, counts: Floats, drawn: Floats, mean: float, tails: Floats) -> Floats:
    """Where in the draws the bounds lie; ties with the mean count half, which matters for pass/fail rows."""
    below = float(((drawn < mean).mean() + (drawn <= mean).mean()) / 2)
    if not 0 < below < 1:
        return tails
    bias = stats.norm.ppf(below)
    left_out = (sums.sum() - sums) / (counts.sum() - counts)  # the jackknife over clusters
    away = left_out.mean() - left_out
    spread = float((away**2).sum())
    skew = float((away**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0
    moved = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + moved / (1 - skew * moved)), np.float64)
