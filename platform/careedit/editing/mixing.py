"""Mixes the velocities of several experts (after the Latent Mixture of CARE-Edit, arXiv 2603.08589).

CARE-Edit mixes hidden states inside its own blocks with a learned gate. Frozen experts on a frozen base have one thing in
common, the velocity, so it is mixed here: v = sum_e w_e v_e with the router's weights, and with a user's mask,
v = m v + (1 - m) v_base with m the mask at token resolution, so that the base alone acts outside the mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from careedit.records import BASE


def mix_velocities(velocities: Mapping[str, Tensor], weights: Mapping[str, float], coverage: Tensor | None) -> Tensor:
    """The mixed velocity, [1, T, C], of one velocity [1, T, C] per name in `mixture_rows`.

    `coverage` is the mask at token resolution, [1, T, 1], or None; sums are in float32, the result has the
    velocities' number format.
    """
    if len(weights) == 1:
        return velocities[next(iter(weights))]
    names = sorted(weights)
    dtype = velocities[names[0]].dtype
    mixed = torch.stack([weights[name] * velocities[name].float() for name in names]).sum(dim=0)
    if coverage is not None:
        mixed = coverage * mixed + (1 - coverage) * velocities[BASE].float()
    return mixed.to(dtype)
