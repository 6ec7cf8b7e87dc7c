"""Which optimizer updates which weights: Muon the hidden weight matrices, AdamW everything else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_OUTER = ("embed", "norm", "proj_out", "shared", "relative")
"""Parts of the names of weights that are not hidden matrices: embeddings, modulations, the last projection."""


def optimizers_for(
    parameters: Sequence[nn.Parameter],
    matrices: Sequence[nn.Parameter],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """AdamW (arXiv 1711.05101), and Muon (arXiv 2502.16982) for those parameters that are also in `matrices`.

    Muon's steps are scaled to AdamW's root mean square, so one learning rate serves both.
    """
    chosen = {id(parameter) for parameter in matrices}
    hidden = [parameter for parameter in parameters if id(parameter) in chosen]
    other = [parameter for parameter in parameters if id(parameter) not in chosen]
    found: list[torch.optim.Optimizer] = []
    if other:
        found.append(torch.optim.AdamW(other, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True))
    if hidden:
        muon = torch.optim.Muon(
            hidden, lr=learning_rate, momentum=0.95, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        found.append(muon)
    return found


def hidden_matrices(*modules: nn.Module) -> list[nn.Parameter]:
    """The trained weight matrices between a model's embeddings and its last projection."""
    return [
        parameter
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and not any(part in name for part in _OUTER)
    ]
