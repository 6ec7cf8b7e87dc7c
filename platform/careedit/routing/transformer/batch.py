"""Edits as the router model reads them: token tensors of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from careedit.routing.features import RouterTokens


@dataclass(frozen=True, eq=False)
class RouterBatch:
    """B edits; all tensors float32 on one device, masks bool."""

    source: Tensor
    """[B, Nv, d]."""
    reference: Tensor
    """[B, Nv, d], zero where there is none."""
    has_reference: Tensor
    """[B]."""
    text: Tensor
    """[B, Nt, d], zero behind each text's end."""
    is_text: Tensor
    """[B, Nt]."""
    conditions: Tensor
    """[B, 3], as `careedit.routing.CONDITIONS`."""

    def to(self, device: torch.device | str) -> RouterBatch:
        """The same on another device."""
        return RouterBatch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def pad_texts(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts [Nt_i, d] as ([B, max Nt, d], [B, max Nt]): padded with zeros, and where there is text."""
    padded = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]


def collate(tokens: Sequence[RouterTokens]) -> RouterBatch:
    """The tokens of several edits as one batch."""
    text, is_text = pad_texts([token.text for token in tokens])
    source = torch.stack([token.source for token in tokens])
    references = [torch.zeros_like(token.source) if token.reference is None else token.reference for token in tokens]
    return RouterBatch(
        source=source,
        reference=torch.stack(references),
        has_reference=torch.tensor([token.reference is not None for token in tokens], device=source.device),
        text=text,
        is_text=is_text,
        conditions=torch.tensor([token.conditions for token in tokens], device=source.device),
    )
