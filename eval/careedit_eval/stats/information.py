"""How much a choice says about a label: their mutual information, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from careedit.stats import SEED

PERMUTATIONS = 2_000
"""Permutations for the null distribution of the mutual information."""


def mutual_information(first: Sequence[str], second: Sequence[str]) -> float:
    """I(first; second) in nats of two sequences of labels, from their joint counts. 0 means independent."""
    if not first:
        return 0.0
    a, b = _codes(first), _codes(second)
    return _information(a, b)


@dataclass(frozen=True, slots=True)
class Permuted:
    """A statistic with its distribution under random permutations."""

    value: float
    """The statistic of the data."""
    null_mean: float
    """Its mean over the permutations, which is the bias of the estimate if both are independent."""
    null_high: float
    """Its 95th percentile over the permutations."""
    p: float
    """The share of permutations, including the data itself, whose statistic is at least `value`."""


def permuted_information(
    first: Sequence[str], second: Sequence[str], *, permutations: int = PERMUTATIONS, seed: int = SEED
) -> Permuted:
    """The mutual information of two sequences of labels, and that of shuffled ones."""
    value = mutual_information(first, second)
    if not first:
        return Permuted(value, 0.0, 0.0, 1.0)
    a, b = _codes(first), _codes(second)
    rng = np.random.default_rng(seed)
    null = np.array([_information(rng.permutation(a), b) for _ in range(permutations)])
    reached = int((null >= value - 1e-12).sum())
    return Permuted(value, float(null.mean()), float(np.quantile(null, 0.95)), (reached + 1) / (permutations + 1))


def _codes(labels: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    width = int(b.max()) + 1
    joint: NDArray[Any] = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width) / a.size
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    return max(0.0, float(special.rel_entr(joint, apart).sum()))
