"""Which object the words mean: one attention head is taught to look from an object to the words that name it.

The velocity's error alone leaves that unlearned (docs/notebook.md): a head that compares what a token shows with what a word
says learns nothing before it compares rightly. TokenCompose (arXiv 2312.03626) supervises the attention maps of a
diffusion model's noun tokens for the same reason.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn

from careedit.training.labels import GRID, UNKNOWN
from careedit.training.words import WORD_ATTRIBUTES, WordProbe

HEAD = 0
"""The head that is taught, of the first single block: the double blocks have seen by then what each token shows."""
WEIGHT = 0.2
"""Of this loss in the base's."""
CHANGED_SHARE = 0.34
"""Share of an object's tokens that an edit changes, from which the edit is of that object; a new texture leaves some."""
KEEPING = WORD_ATTRIBUTES["operation"].index("identity.look")
"""The operation whose words name the object that does not change."""


class Grounding:
    """The loss of that head; it reads queries and keys from hooks on the transformer, until `detach`."""

    def __init__(self, transformer: FluxTransformer2DModel, words: WordProbe) -> None:
        self.words = words
        attention = cast(Any, transformer).single_transformer_blocks[0].attn
        self._seen: dict[str, Any] = {}
        self._hooks = [
            attention.norm_q.register_forward_hook(partial(self._remember, "query")),
            attention.norm_k.register_forward_hook(partial(self._remember, "key")),
            attention.register_forward_pre_hook(self._remember_positions, with_kwargs=True),
        ]

    def detach(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _remember(self, name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        self._seen[name] = output[:, :, HEAD : HEAD + 1]

    def _remember_positions(self, _: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        self._seen["positions"] = kwargs["image_rotary_emb"]

    def __call__(self, tokens: Tensor, labels: Tensor, edited: Tensor) -> Tensor:
        """Binary cross-entropy of the attention that falls on the words {x}, for every source token that shows an object.

        `tokens` [B, L, d] are T5's, `labels` [B, attributes, T] and `edited` [B, T, 1] of the canvas in the forward pass
        before. Prompts that name no {x} and sources whose scene is unknown add nothing.
        """
        with torch.no_grad():
            read = self.words(tokens.float()).split([len(values) for values in WORD_ATTRIBUTES.values()], dim=2)
            named = read[1].argmax(dim=2) == WORD_ATTRIBUTES["slot"].index("x")
            keeping = read[0][:, 1].argmax(dim=1) == KEEPING
            shown, meant = meant_objects(labels, edited[..., 0] > 0, keeping)
        query, key = (
            apply_rotary_emb(self._seen[name], self._seen["positions"], sequence_dim=1)[:, :, 0].float()
            for name in ("query", "key")
        )
        source = query[:, tokens.shape[1] :][:, source_tokens(labels.shape[-1])]
        attention = (source @ key.transpose(1, 2) / key.shape[-1] ** 0.5).softmax(dim=2)
        mass = (attention[:, :, : tokens.shape[1]] * named[:, None]).sum(dim=2).clamp(1e-4, 1 - 1e-4)
        loss = -torch.where(meant, mass.log(), (1 - mass).log())
        counted = shown & named.any(dim=1, keepdim=True)
        return (loss * counted).sum() / counted.sum().clamp(min=1)


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
