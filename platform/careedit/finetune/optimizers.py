"""Muon for the hidden weight matrices, AdamW for everything else, behind one face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

_OUTER = ("embed", "norm", "proj_out", "shared", "relative")
"""Parts of names of weights that are no hidden matrices: embeddings, modulations, the last projection."""


class Optimizers:
    """AdamW (arXiv 1711.05101), and Muon (arXiv 2502.16982) for those parameters that are listed as matrices.

    Muon's steps are scaled to AdamW's root mean square, so one learning rate serves both.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        matrices: Sequence[nn.Parameter],
        *,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        chosen = {id(parameter) for parameter in matrices}
        hidden = [parameter for parameter in parameters if id(parameter) in chosen]
        other = [parameter for parameter in parameters if id(parameter) not in chosen]
        self._parts: list[torch.optim.Optimizer] = []
        if other:
            self._parts.append(torch.optim.AdamW(other, betas=betas, weight_decay=weight_decay, fused=True))
        if hidden:
            self._parts.append(
                torch.optim.Muon(hidden, momentum=0.95, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, learning_rate: float) -> None:
        """Move every parameter."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each part."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Take up what `state_dict` gave."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def hidden_matrices(*modules: nn.Module) -> list[nn.Parameter]:
    """The trained weight matrices between a model's embeddings and its last projection."""
    return [
        parameter
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and not any(part in name for part in _OUTER)
    ]
