"""From logits to weights in training, and what keeps every expert in use."""

from __future__ import annotations

import torch
from torch import Tensor


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
