"""The router's network: a small transformer over the tokens of one edit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from careedit.routing.features import CONDITIONS
from careedit.routing.transformer.batch import RouterBatch
from careedit.routing.transformer.config import RouterConfig

_TYPES = ("decision", "source", "reference", "text", "condition")


@dataclass(frozen=True, eq=False)
class RouterLogits:
    """What the network says of B edits, before temperatures."""

    experts: Tensor
    """[B, experts]."""
    feasible: Tensor
    """[B], positive where the instruction applies to the picture."""


class RouterModel(nn.Module):
    """Reads [decision; source; reference; text; conditions] and decides from the decision token's last state.

    One projection serves visual and text tokens, because the encoder has put both into one space. Each text token also
    carries its best cosine with a patch of the source and of the reference: whether what it names is there to be seen,
    which is what feasibility hangs on and what two layers would otherwise have to find out by attention alone.
    """

    def __init__(self, config: RouterConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.project = nn.Linear(config.encoder_width, width)
        self.match = nn.Linear(2, width)
        self.conditions = nn.Linear(1, width)
        self.types = nn.Parameter(torch.randn(len(_TYPES), width) * 0.02)
        self.patches = nn.Parameter(torch.randn(config.visual_tokens, width) * 0.02)
        self.words = nn.Parameter(torch.randn(config.text_tokens, width) * 0.02)
        self.which = nn.Parameter(torch.randn(len(CONDITIONS), width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.experts = nn.Linear(width, len(config.experts))
        self.feasible = nn.Linear(width, 1)

    def forward(self, batch: RouterBatch) -> RouterLogits:
        """The logits of a batch whose tokens have the encoder's width and count."""
        count, limit = len(batch.source), self.config.text_tokens
        text, is_text = batch.text[:, :limit], batch.is_text[:, :limit]
        source, reference, words = (_unit(tokens) for tokens in (batch.source, batch.reference, text))
        seen = torch.stack([(words @ source.mT).amax(-1), (words @ reference.mT).amax(-1)], dim=-1)
        everything = torch.ones(count, dtype=torch.bool, device=source.device)
        # (type, tokens, which of them count); a unit token times sqrt(width) has entries around 1.
        scale = self.config.encoder_width**0.5
        parts = [
            (0, torch.zeros(count, 1, self.config.width, device=source.device), everything[:, None]),
            (1, self.project(source * scale) + self.patches, everything[:, None].expand(count, source.shape[1])),
            (3, self.project(words * scale) + self.match(seen) + self.words[: words.shape[1]], is_text),
            (4, self.conditions(batch.conditions[..., None]) + self.which, everything[:, None].expand(count, 3)),
        ]
        if batch.has_reference.any():
            present = batch.has_reference[:, None].expand(count, source.shape[1])
            parts.insert(2, (2, self.project(reference * scale) + self.patches, present))
        states = torch.cat([tokens + self.types[kind] for kind, tokens, _ in parts], dim=1)
        absent = ~torch.cat([present for _, _, present in parts], dim=1)
        decision = self.layers(states, src_key_padding_mask=absent)[:, 0]
        return RouterLogits(self.experts(decision), self.feasible(decision)[:, 0])


def _unit(tokens: Tensor) -> Tensor:
    return F.normalize(tokens.float(), dim=-1)
