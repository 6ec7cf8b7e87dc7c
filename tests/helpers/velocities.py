"""Inputs of the tiny family's transformer for one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from careedit.experts.applier import ExpertApplier, Inputs


def velocity_inputs(pipeline: Any, *, rows: int = 8, columns: int = 16, words: int = 24) -> dict[str, Any]:
    """Keyword arguments of its `forward`, drawn from one seed: two canvases of `rows` x `columns` tokens."""
    generator, tokens = torch.Generator().manual_seed(3), rows * columns
    ids = torch.zeros(tokens, 3)
    ids[:, 1], ids[:, 2] = torch.arange(tokens) // columns, torch.arange(tokens) % columns
    return {
        "hidden_states": torch.randn(2, tokens, pipeline.transformer.config.in_channels, generator=generator),
        "encoder_hidden_states": torch.randn(2, words, 128, generator=generator),
        "pooled_projections": torch.randn(2, 64, generator=generator),
        "timestep": torch.tensor([0.8, 0.3]),
        "img_ids": ids,
        "txt_ids": torch.zeros(words, 3),
    }


def velocity(applier: ExpertApplier, rows: Sequence[str], inputs: Mapping[str, Any]) -> Tensor:
    """`applier.velocity` of a FLUX.1 transformer's keyword arguments."""
    shared = {name: value for name, value in inputs.items() if name in ("img_ids", "txt_ids") or value is None}
    return applier.velocity(rows, Inputs({name: inputs[name] for name in inputs.keys() - shared.keys()}, shared))
