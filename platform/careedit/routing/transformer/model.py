"""The learned router's network: a small transformer over the tokens of one edit, its configuration and its input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from careedit.errors import ManifestError
from careedit.files import write_atomic
from careedit.record import BaseRecord, error_sentence
from careedit.routing.features import CONDITIONS, RouterTokens

CONFIG_FILE, WEIGHTS_FILE = "router.json", "router.safetensors"
"""The two files of a learned router, in one folder."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_TYPES = ("decision", "source", "reference", "text", "condition")


class RouterConfig(BaseRecord):
    """Shape, labels and calibration of a learned router; the content of `router.json`."""

    format_version: Literal[1] = 1
    """Version of this file's format."""
    experts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the experts that it chooses from, in the order of its logits."""
    encoder_width: Annotated[int, Field(ge=1)]
    """Width of the tokens that the encoder gives."""
    visual_tokens: Annotated[int, Field(ge=1)]
    """Number of visual tokens of a picture."""
    text_tokens: Annotated[int, Field(ge=2)] = 77
    """Number of text tokens that have a position; later ones are dropped."""
    width: Annotated[int, Field(ge=8)] = 128
    """Width of the states inside the transformer."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Number of layers of the transformer."""
    heads: Annotated[int, Field(ge=1)] = 8
    """Number of attention heads in each layer."""
    temperature: Positive = 1.0
    """Divides the expert logits; fitted on validation edits."""
    feasible_temperature: Positive = 1.0
    """Divides the feasibility logit; fitted on validation edits."""
    feasible_threshold: Share = 0.0
    """Minimum feasibility: below it, the base edits alone because the instruction does not apply to the picture."""
    confidence_threshold: Share = 0.0
    """Minimum probability of the best expert: below it, the base edits alone."""
    least_share: Share = 0.05
    """Minimum weight of an expert in a mixture, as a share of the first expert's: each one costs an evaluation per step."""

    def save(self, path: Path) -> None:
        """Write as JSON, through a temporary name."""
        write_atomic(path, f"{self.model_dump_json(indent=1)}\n".encode())

    @classmethod
    def load(cls, path: Path) -> RouterConfig:
        """Read what `save` wrote; raises `ManifestError`."""
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except OSError as error:
            raise ManifestError(f"The router's {path.name} cannot be read ({error.strerror}); restore it.") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ManifestError(f"The router's {path.name} is not JSON; restore it.") from error
        except ValidationError as error:
            raise ManifestError(error_sentence(error, f"The router's {path.name}")) from error


@dataclass(frozen=True, eq=False)
class RouterBatch:
    """B edits; all tensors float32 on one device, masks bool."""

    source: Tensor
    """Visual tokens of the sources, [B, Nv, d]."""
    reference: Tensor
    """Visual tokens of the references, [B, Nv, d]; zero for an edit without one."""
    has_reference: Tensor
    """Which edits have a reference, [B]."""
    text: Tensor
    """Text tokens, [B, Nt, d], zero behind each text's end."""
    is_text: Tensor
    """Where the text is not padding, [B, Nt]."""
    conditions: Tensor
    """The conditions, [B, 3], in the order of `careedit.routing.CONDITIONS`."""

    def to(self, device: torch.device | str) -> RouterBatch:
        """The batch with its tensors on another device."""
        return RouterBatch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def pad_texts(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts [Nt_i, d], padded with zeros to [B, max Nt, d], and the mask [B, max Nt] of what is not padding."""
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


@dataclass(frozen=True, eq=False)
class RouterLogits:
    """The output of the network for B edits, before temperatures."""

    experts: Tensor
    """A logit per expert, [B, experts]."""
    feasible: Tensor
    """A logit, [B], positive if the instruction applies to the picture."""


class RouterModel(nn.Module):
    """Reads [decision; source; reference; text; conditions] and decides from the decision token's last state.

    One projection serves visual and text tokens, because the encoder maps both into one space. Each text token also
    carries its best cosine with a patch of the source and of the reference, which shows whether what it names is visible.
    Feasibility depends on that, and two layers would otherwise have to find it by attention alone.
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
        # (type, tokens, which of them are present); a unit token times sqrt(width) has entries around 1.
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
