"""The scene probe: an auxiliary loss that teaches the transformer what the scene shows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from careedit.errors import CareEditError
from careedit_tiny.recipes.base.labels import ATTRIBUTES, GRID, UNKNOWN

PROBE_WEIGHT = 0.2
"""Weight of the scene probe's cross-entropies, a sum over attributes."""
PROBE_FILE = "probe.safetensors"
"""Where the base's recipe leaves its probe: a LoRA that starts with an untrained one unlearns to please it."""
SHOWN_WEIGHT = 4.0
"""Weight, in the probe's loss, of tokens that show an object or an edit: most of a picture is background."""


class SceneProbe(nn.Module):
    """Linear probes that read from the transformer's hidden states what each token of the canvas shows.

    The given panels are read after the double blocks, the target panel half-way through the single ones, at every noise
    level: so the transformer must see what is there, and settle what the words make of it before it draws that. Only
    training uses it. The velocity's error alone teaches this slowly (docs/notebook.md).
    """

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        width, logits = cast(Any, transformer).inner_dim, sum(map(len, ATTRIBUTES.values()))
        self.given, self.target = nn.Linear(width, logits), nn.Linear(width, logits)
        self._hidden: dict[str, Tensor] = {}
        model = cast(Any, transformer)
        middle = model.single_transformer_blocks[len(model.single_transformer_blocks) // 2 - 1]
        self._hooks = [
            model.transformer_blocks[-1].register_forward_hook(partial(self._remember, "given")),
            middle.register_forward_hook(partial(self._remember, "target")),
        ]

    def detach(self) -> None:
        """Take the probes off the transformer."""
        for hook in self._hooks:
            hook.remove()

    def _remember(self, name: str, _: nn.Module, __: Any, output: tuple[Tensor, Tensor]) -> None:
        self._hidden[name] = output[1].float()  # (text tokens, image tokens)

    def term(self, _: Tensor, labels: Tensor, edited: Tensor) -> Tensor:
        """The weighted loss, as `careedit.finetune.flow.AuxiliaryLoss`."""
        weighted: Tensor = PROBE_WEIGHT * self(labels, edited)
        return weighted

    def forward(self, labels: Tensor, edited: Tensor) -> Tensor:
        """Cross-entropies of the labels [B, len(ATTRIBUTES), T] in the forward pass before; `edited` is [B, T, 1], 0 or 1."""
        if not self._hidden:
            raise CareEditError("The probe has seen no forward pass of the transformer; run it first.")
        side = len(labels[0, 0]) // GRID
        target = (torch.arange(labels.shape[-1], device=labels.device) % side >= side - GRID)[:, None]
        logits = torch.where(target, self.target(self._hidden["target"]), self.given(self._hidden["given"]))
        shown = (labels[:, :1] > 0).transpose(1, 2) | (edited > 0)
        weight = torch.where(shown, SHOWN_WEIGHT, 1.0)[..., 0] * (labels[:, 0] != UNKNOWN)
        loss = torch.zeros((), device=labels.device)
        for attribute, part in enumerate(logits.split([len(values) for values in ATTRIBUTES.values()], dim=2)):  # type: ignore[no-untyped-call]
            entropy = functional.cross_entropy(
                part.transpose(1, 2), labels[:, attribute].long(), ignore_index=UNKNOWN, reduction="none"
            )
            loss = loss + (entropy * weight).sum() / weight.sum().clamp(min=1)
        return loss


def scene_probe(transformer: FluxTransformer2DModel, folder: Path) -> SceneProbe:
    """A probe on the transformer: as the base's recipe left it in `folder`, or a new one, of torch's global generator.

    Where the transformer has been widened since, the probe reads the new channels with weights of zero.
    """
    probe = SceneProbe(transformer)
    if (folder / PROBE_FILE).exists():
        width = cast(Any, transformer).inner_dim
        state = load_file(folder / PROBE_FILE)
        probe.load_state_dict(
            {name: functional.pad(v, (0, width - v.shape[1])) if v.ndim == 2 else v for name, v in state.items()}
        )
    return probe
