"""Statistics of the quality benchmark: bootstrap intervals, mutual information with a null, ROC.

Pure functions of arrays with fixed seeds: the same figures give the same intervals on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from careedit.errors import InputError

Floats = NDArray[np.float64]

RESAMPLES = 10_000
"""Bootstrap resamples of an interval."""
PERMUTATIONS = 2_000
"""Permutations of a null distribution."""
SEED = 20_240_229
"""Of every resampling; part of the protocol, not an option."""
LEVEL = 0.95
"""Of every interval."""

Interval = tuple[float, float]
"""Low and high end."""


def bootstrap_means(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Means of `resamples` resamples of `values` [n], one value per scene, drawn with replacement: [resamples].

    Two calls with arrays of one length draw the same scenes, so that rows are resampled together.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError("A bootstrap needs one or more values, one per scene.")
    return np.asarray(_counts(array.size, resamples, seed) @ array / array.size)


def mean_interval(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """Percentile interval of the mean of `values` [n], bootstrapped over scenes."""
    return _percentiles(bootstrap_means(values, resamples=resamples, seed=seed), level)


def ratio_interval(above: ArrayLike, below: ArrayLike, *, level: float = LEVEL, seed: int = SEED) -> Interval | None:
    """Percentile interval of mean(above) / mean(below), both [n] of the same scenes; None where `below` may be 0."""
    bottom = bootstrap_means(below, seed=seed)
    if (bottom <= 0).any():
        return None
    return _percentiles(bootstrap_means(above, seed=seed) / bottom, level)


def mutual_information(first: Sequence[str], second: Sequence[str]) -> float:
    """I(first; second) in nats of two sequences of labels, from their joint counts; 0 = independent."""
    if not first:
        return 0.0
    a, b = _codes(first), _codes(second)
    return _information(a, b)


@dataclass(frozen=True, slots=True)
class Permuted:
    """A figure beside what chance makes of it."""

    value: float
    """The figure."""
    null_mean: float
    """Its mean over permutations: the bias of the estimate under independence."""
    null_high: float
    """Its 95th percentile over permutations."""
    p: float
    """Share of permutations (and the figure itself) that reach it."""


def permuted_information(
    first: Sequence[str], second: Sequence[str], *, permutations: int = PERMUTATIONS, seed: int = SEED
) -> Permuted:
    """Mutual information of two sequences of labels, and the same with one of them shuffled."""
    value = mutual_information(first, second)
    if not first:
        return Permuted(value, 0.0, 0.0, 1.0)
    a, b = _codes(first), _codes(second)
    rng = np.random.default_rng(seed)
    null = np.array([_information(rng.permutation(a), b) for _ in range(permutations)])
    reached = int((null >= value - 1e-12).sum())
    return Permuted(value, float(null.mean()), float(np.quantile(null, 0.95)), (reached + 1) / (permutations + 1))


def area_under_roc(negatives: ArrayLike, positives: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties half; 0.5 = chance."""
    low, high = np.asarray(negatives, np.float64), np.asarray(positives, np.float64)
    if low.size == 0 or high.size == 0:
        raise InputError("An area under a curve needs scores of both classes.")
    difference = high[:, None] - low[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def recall_at(negatives: ArrayLike, positives: ArrayLike, false_alarms: float) -> float:
    """The largest share of positives above a threshold that at most this share of negatives reaches."""
    low, high = np.asarray(negatives, np.float64), np.asarray(positives, np.float64)
    if low.size == 0 or high.size == 0:
        raise InputError("A recall needs scores of both classes.")
    allowed = int(np.floor(false_alarms * low.size))
    threshold = np.sort(low)[::-1][allowed] if allowed < low.size else -np.inf
    return float((high > threshold).mean())


@lru_cache(maxsize=16)
def _counts(size: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each scene stands in each resample, [resamples, size]: a mean is then one matrix product."""
    rng = np.random.default_rng([seed, size])
    counts = np.zeros((resamples, size), np.float32)
    for row in counts:
        row += np.bincount(rng.integers(size, size=size), minlength=size)
    return counts


def _percentiles(means: Floats, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _codes(labels: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    width = int(b.max()) + 1
    joint: NDArray[Any] = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width) / a.size
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return max(0.0, float((joint[there] * np.log(joint[there] / apart[there])).sum()))
