"""What training a learned router needs: losses, calibration, and the threshold of feasibility."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from careedit.errors import InputError

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""The range in which a temperature is fitted. A model that is always right would want 0."""


def top_k_weights(logits: Tensor, k: int) -> Tensor:
    """The mixing weights of B edits as a loss sees them, [B, experts]: p of the best k, 0 elsewhere, not renormalised.

    The softmax comes before top-k and the kept probabilities stay as they are (Switch Transformer, Fedus et al. 2021,
    equation 2: y = p_i(x) E_i(x)). Renormalised over one expert they would be the constant 1, whose gradient is zero
    (`careedit.routing.topk`); so the router learns for every k, 1 included.
    """
    probabilities = logits.softmax(dim=-1)
    best = probabilities.topk(min(k, logits.shape[-1]), dim=-1).indices
    return torch.zeros_like(probabilities).scatter(-1, best, probabilities.gather(-1, best))


def load_balance(logits: Tensor) -> Tensor:
    """sum_e (mean_i p_ie - 1/E)^2 over B edits: L_load of CARE-Edit (arXiv 2603.08589, training losses)."""
    return (logits.softmax(dim=-1).mean(dim=0) - 1 / logits.shape[-1]).square().sum()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that makes logits [N, n] (labels: classes) or [N] (labels: 0 and 1) most likely.

    Temperature scaling (Guo et al. 2017, section 4.2). The search runs over the logarithm, where the likelihood has one
    maximum. Raises `InputError` without logits.
    """
    if not len(logits):
        raise InputError("A temperature cannot be fitted to nothing; give validation edits.")
    values = logits.detach().double()

    def loss(log_temperature: float) -> float:
        scaled = values / math.exp(log_temperature)
        if values.ndim == 1:
            return float(F.binary_cross_entropy_with_logits(scaled, labels.double()))
        return float(F.cross_entropy(scaled, labels.long()))

    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9, "maxiter": 200})
    # Where the model is always right, the loss is 0 at every low temperature.
    return MIN_TEMPERATURE if loss(low) <= found.fun else math.exp(found.x)


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a calibration plot: decisions of about the same probability."""

    confidence: float
    """Mean of the stated probabilities, 0 to 1."""
    accuracy: float
    """Share of the decisions that were right, 0 to 1."""
    count: int
    """How many decisions fall into this bin."""


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
