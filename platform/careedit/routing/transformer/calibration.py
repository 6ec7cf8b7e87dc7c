"""Probabilities that mean what they say: temperatures, calibration error, and the threshold of feasibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from careedit.errors import InputError

_RANGE = (0.05, 20.0)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that makes logits [N, n] (labels: classes) or [N] (labels: 0 and 1) most likely.

    Temperature scaling (Guo et al. 2017, section 4.2), by a golden-section search over its logarithm: the likelihood
    has one maximum. A model that is always right would want 0; the answer stays between 0.05 and 20.
    """
    if not len(logits):
        raise InputError("A temperature cannot be fitted to nothing; give validation edits.")
    values = logits.detach().double()

    def nll(log_t: float) -> float:
        scaled = values / torch.tensor(log_t).double().exp()
        if values.ndim == 1:
            return float(F.binary_cross_entropy_with_logits(scaled, labels.double()))
        return float(F.cross_entropy(scaled, labels.long()))

    low, high = (float(torch.tensor(edge).log()) for edge in _RANGE)
    golden = (5**0.5 - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if nll(left) <= nll(right):
            high = right
        else:
            low = left
    return float(torch.tensor((low + high) / 2).exp())


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a calibration plot."""

    confidence: float
    """Mean stated probability."""
    accuracy: float
    """Share that was right."""
    count: int
    """How many decisions fall into it."""


def calibration_bins(confidence: ArrayLike, right: ArrayLike, *, bins: int = 15) -> tuple[Bin, ...]:
    """The occupied ones of `bins` bins of equal width over 0 to 1; `confidence` and `right` are [n]."""
    stated, correct = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if stated.shape != correct.shape:
        raise InputError("Calibration needs one verdict per stated probability.")
    place = np.clip((stated * bins).astype(int), 0, bins - 1)
    return tuple(
        Bin(float(stated[place == i].mean()), float(correct[place == i].mean()), int((place == i).sum()))
        for i in range(bins)
        if (place == i).any()
    )


def calibration_error(confidence: ArrayLike, right: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error: mean distance of stated probability and share that is right, weighted by count.

    Naeini et al. 2015, with 15 bins as in Guo et al. 2017 (eq. 3); 0 is perfect. Both are [n].
    """
    found = calibration_bins(confidence, right, bins=bins)
    total = sum(one.count for one in found)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in found) / total if total else 0.0


def largest_threshold(feasible: Tensor, *, false_alarms: float) -> float:
    """The largest t such that at most this share of feasible edits, with probabilities [N], lies below t."""
    if not len(feasible):
        raise InputError("A threshold cannot be chosen from nothing; give feasible validation edits.")
    ordered = feasible.double().sort().values
    return float(ordered[min(int(false_alarms * len(ordered)), len(ordered) - 1)])
