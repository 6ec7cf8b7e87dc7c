"""Losses that teach two attention heads what to attend to: the same place of the source, and the words that name an object.

The velocity's error alone leaves both unlearned (docs/notebook.md): a head that compares what a token shows with what a
word says gains nothing before it compares correctly, and one that looks at the right place and its neighbours copies a
blur. TokenCompose (arXiv 2312.03626) supervises attention maps of a diffusion model for the same reason.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn

from careedit_tiny.recipes.base.labels import GRID, UNKNOWN
from careedit_tiny.recipes.base.words import WORD_ATTRIBUTES, WordProbe

NAMING_WEIGHT, COPYING_WEIGHT = 0.2, 0.2
"""Of the two losses in the base's."""
CHANGED_SHARE = 0.34
"""Share of an object's tokens that an edit changes, from which the edit is of that object; a new texture leaves some."""
KEEPING = WORD_ATTRIBUTES["operation"].index("identity.look")
"""The operation whose words name the object that does not change."""


class _Head:
    """The first head of a block: its attention, from hooks that stay until `detach`."""

    def __init__(self, block: nn.Module) -> None:
        attention = cast(Any, block).attn
        self._seen: dict[str, Any] = {}
        self._hooks = [
            attention.norm_q.register_forward_hook(partial(self._remember, "query")),
            attention.norm_k.register_forward_hook(partial(self._remember, "key")),
            attention.register_forward_pre_hook(self._remember_positions, with_kwargs=True),
        ]

    def _remember(self, name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        self._seen[name] = output[:, :, :1]

    def _remember_positions(self, _: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        self._seen["positions"] = kwargs["image_rotary_emb"]

    def detach(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def attention(self, rows: Tensor, image_tokens: int) -> Tensor:
        """Of the image tokens `rows` [R] in the forward pass before, to all tokens whose keys were seen: [B, R, L].

        A single block's are text and image; of a double block, whose text has norms of its own, the image alone.
        """
        query, key = self._seen["query"], self._seen["key"]
        positions = tuple(part[-query.shape[1] :] for part in self._seen["positions"])
        rotate: Any = apply_rotary_emb
        query, key = (rotate(part, positions, sequence_dim=1)[:, :, 0].float() for part in (query, key))
        chosen = query[:, -image_tokens:][:, rows]
        return cast(Tensor, (chosen @ key.transpose(1, 2) / key.shape[-1] ** 0.5).softmax(dim=2))


class TaughtHeads:
    """The losses of both heads: copying in the first double block, naming in the first single one.

    By then the double blocks have seen what each token shows.
    """

    def __init__(self, transformer: FluxTransformer2DModel, words: WordProbe) -> None:
        model = cast(Any, transformer)
        self.words = words
        self._copying, self._naming = _Head(model.transformer_blocks[0]), _Head(model.single_transformer_blocks[0])

    def detach(self) -> None:
        """Take the hooks off the transformer."""
        self._copying.detach()
        self._naming.detach()

    def __call__(self, tokens: Tensor, labels: Tensor, edited: Tensor) -> Tensor:
        """The weighted sum of both in the forward pass before; a scalar.

        `tokens` [B, L, d] are T5's, `labels` [B, attributes, T] and `edited` [B, T, 1] of the canvas.
        """
        return NAMING_WEIGHT * self.naming(tokens, labels, edited) + COPYING_WEIGHT * self.copying(labels.shape[-1])

    def copying(self, count: int) -> Tensor:
        """Cross-entropy of every target token's attention with its place in the source, on a canvas of `count` tokens."""
        here = source_tokens(count)
        attention = self._copying.attention(here + GRID, count)
        here = here.to(attention.device)
        there = attention[:, torch.arange(len(here), device=here.device), here - count]
        return -there.clamp(min=1e-6).log().mean()

    def naming(self, tokens: Tensor, labels: Tensor, edited: Tensor) -> Tensor:
        """Binary cross-entropy of the attention that falls on the words {x}, for every source token that shows an object.

        Prompts that name no {x} and sources whose scene is unknown add nothing.
        """
        with torch.no_grad():
            read = self.words.read(tokens)
            named = read["slot"].argmax(dim=2) == WORD_ATTRIBUTES["slot"].index("x")
            keeping = read["operation"][:, 1].argmax(dim=1) == KEEPING
            shown, meant = meant_objects(labels, edited[..., 0] > 0, keeping)
        count = labels.shape[-1]
        attention = self._naming.attention(source_tokens(count), count)
        mass = (attention[:, :, : tokens.shape[1]] * named[:, None]).sum(dim=2).clamp(1e-4, 1 - 1e-4)
        loss = -torch.where(meant, mass.log(), (1 - mass).log())
        counted = shown & named.any(dim=1, keepdim=True)
        mean: Tensor = (loss * counted).sum() / counted.sum().clamp(min=1)
        return mean


def source_tokens(count: int) -> Tensor:
    """Indices of the source panel's tokens, the last panel but one, among `count` of a canvas: [GRID * GRID]."""
    side = count // GRID
    return torch.arange(count).view(GRID, side)[:, side - 2 * GRID : side - GRID].flatten()


def meant_objects(labels: Tensor, edited: Tensor, keeping: Tensor) -> tuple[Tensor, Tensor]:
    """Per token of the source panel: whether it shows an object, and whether an object that the words mean; [B, GRID**2].

    That is the object which the edit changes, or, where `keeping` [B], the one that it does not. `edited` is [B, T].
    Tokens of one object are those with the same labels.
    """
    here = source_tokens(labels.shape[-1])
    objects = labels[:, :5, here].long()
    shown = (objects[:, 0] > 0) & (objects[:, 0] != UNKNOWN)
    same = (objects[:, :, :, None] == objects[:, :, None, :]).all(dim=1) & shown[:, :, None] & shown[:, None, :]
    changed = (same * edited[:, None, here + GRID]).sum(dim=2) / same.sum(dim=2).clamp(min=1)
    return shown, (changed >= CHANGED_SHARE) != keeping[:, None]
