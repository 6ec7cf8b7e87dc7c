"""From logits to a mixture: softmax over all experts *before* the best k are taken.

The other order, as in ICEdit's released router (River-Zhang/ICEdit, icedit/peft/tuners/lora/layer.py: top-k, then
softmax over the k kept logits), makes the weight of a single expert 1 whatever its logit, so a top-1 router gets no
gradient and cannot learn. Here the probabilities come first; loss, calibration and reports use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from careedit.errors import InputError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TopK:
    """A distribution over n experts and the mixture of its best k."""

    probabilities: FloatArray
    """Softmax over all experts, [n], summing to 1."""
    chosen: tuple[int, ...]
    """Indices of the k most probable, best first, of equals the earlier; fewer if the others have probability 0."""
    weights: FloatArray
    """The mixing weights, [len(chosen)]: the probabilities of the chosen, renormalised to sum to 1."""

    @property
    def entropy(self) -> float:
        """Entropy of `probabilities` in nats: 0 where one is certain, ln n where all are equal."""
        return entropy(self.probabilities)


def softmax(logits: ArrayLike, *, temperature: float = 1.0) -> FloatArray:
    """Softmax of logits [n] divided by `temperature`; raises `InputError` unless all is finite and n >= 1."""
    values = np.asarray(logits, np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError("The router's logits must be a list of one or more finite numbers.")
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"The temperature is {temperature}; it must be a positive number.")
    # A difference of two huge logits may overflow to -inf, which is a weight of 0.
    with np.errstate(over="ignore"):
        return np.asarray(special.softmax((values - values.max()) / temperature))


def entropy(probabilities: Sequence[float] | FloatArray) -> float:
    """-sum p ln p in nats; an outcome of probability 0 adds nothing."""
    p = np.asarray(probabilities, np.float64)
    p = p[p > 0]
    return max(0.0, float(-(p * np.log(p)).sum()))


def softmax_top_k(logits: ArrayLike, k: int, *, temperature: float = 1.0) -> TopK:
    """Softmax over logits [n], then the best k, renormalised; a `k` above n takes all."""
    if k < 1:
        raise InputError(f"top_k is {k}; at least one expert must be allowed.", field="top_k")
    probabilities = softmax(logits, temperature=temperature)
    order = np.argsort(-probabilities, kind="stable")[:k]
    # A logit far below the best underflows to probability 0: it would cost an evaluation per step and add nothing.
    order = order[probabilities[order] > 0]
    kept = probabilities[order]
    return TopK(probabilities, tuple(int(i) for i in order), kept / kept.sum())
