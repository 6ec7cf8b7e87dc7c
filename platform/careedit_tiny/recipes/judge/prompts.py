"""The judge's prompts for training: exactly its processor's, with what several questions about an edit share put once.

All questions about one edit begin alike (the same instruction, the same pictures). They are packed as a tree of tokens in
which each token sees its ancestors alone, so every question reads as if it stood by itself, at about half the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from careedit_tiny.models.judge import MERGE, PATCH, SIDE

GRID = SIDE // PATCH // MERGE
TOKENS = GRID * GRID
"""Number of tokens per image."""
_TEXT = "\x00"


@dataclass(frozen=True, eq=False)
class Packed:
    """B trees of up to L tokens with Q questions each."""

    codes: Tensor
    """[B, L]: a token's id, or -1 - i for row i of the pictures' features."""
    positions: Tensor
    """Multimodal rotary positions, [3, B, L]."""
    mask: Tensor
    """True where a token (row) sees another (column), [B, 1, L, L]."""
    ends: Tensor
    """Where each question is answered, [B, Q]; 0 for one that is not asked."""

    def to(self, device: torch.device) -> Packed:
        """The trees with their tensors on a device."""
        return Packed(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class Prompts:
    """Turns (pictures, text) into codes as the processor would turn it into ids."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._picture = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        self._ids = lru_cache(maxsize=65536)(self._text_ids)
        self._frame = lru_cache(maxsize=16)(self._frame_ids)

    def codes(self, lead: str, pictures: Sequence[int], text: str) -> list[int]:
        """The prompt that asks `text` about pictures given by their index: token ids, and -1 - (16 index + k)."""
        before, between, after = self._frame(len(pictures))
        left, out = iter(pictures), [*before, *self._ids(lead)]
        for token in between:
            if token == self._picture:
                first = -1 - TOKENS * next(left)
                out += range(first, first - TOKENS, -1)
            else:
                out.append(token)
        return [*out, *self._ids(text), *after]

    def _text_ids(self, text: str) -> tuple[int, ...]:
        # As `TransformersAsker.encode`: what looks like a control token in a text is letters.
        ids = self._processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(ids)

    def _frame_ids(self, count: int) -> tuple[tuple[int, ...], ...]:
        """The ids before, between and after lead and text; each picture is one image token."""
        content = [{"type": "text", "text": _TEXT}, *[{"type": "image"}] * count, {"type": "text", "text": _TEXT}]
        prompt = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return tuple(
            tuple(self._processor.tokenizer(part, add_special_tokens=False)["input_ids"])
            for part in prompt.split(_TEXT)
        )


def pack(questions: Sequence[Sequence[Sequence[int] | None]]) -> Packed:
    """Trees of each edit's questions (codes, or None for one that is not asked); every edit has equally many."""
    trees = [_tree(asked) for asked in questions]
    longest = max(len(codes) for codes, _, _, _ in trees)
    count = len(trees)
    codes = np.zeros((count, longest), np.int64)
    positions = np.zeros((3, count, longest), np.int64)
    # A padded token sees itself alone: a softmax over nothing would be no number.
    mask = np.broadcast_to(np.eye(longest, dtype=bool), (count, longest, longest)).copy()
    for i, (own, parents, where, _) in enumerate(trees):
        codes[i, : len(own)] = own
        positions[:, i, : len(own)] = np.array(where).T
        for node, parent in enumerate(parents):
            if parent >= 0:
                mask[i, node] |= mask[i, parent]
    ends = torch.tensor([ends for _, _, _, ends in trees])
    return Packed(torch.from_numpy(codes), torch.from_numpy(positions), torch.from_numpy(mask)[:, None], ends)


def _tree(
    questions: Sequence[Sequence[int] | None],
) -> tuple[list[int], list[int], list[tuple[int, int, int]], list[int]]:
    """Codes, parents and positions of the tree's tokens, parents first; and each question's last token."""
    codes: list[int] = []
    parents: list[int] = []
    where: list[tuple[int, int, int]] = []
    children: dict[tuple[int, int], int] = {}
    ends = []
    for question in questions:
        node = -1
        for code, position in zip(question or (), _positions(question or ()), strict=True):
            child = children.get((node, code))
            if child is None:
                child = children[node, code] = len(codes)
                codes.append(code)
                parents.append(node)
                where.append(position)
            node = child
        ends.append(max(node, 0))
    return codes, parents, where, ends


def _positions(codes: Sequence[int]) -> list[tuple[int, int, int]]:
    """As `Qwen2_5_VLModel.get_rope_index`: text counts on, a picture's tokens lie in its grid."""
    out: list[tuple[int, int, int]] = []
    now, i = 0, 0
    while i < len(codes):
        if codes[i] < 0:
            out += [(now, now + k // GRID, now + k % GRID) for k in range(TOKENS)]
            now, i = now + GRID, i + TOKENS
        else:
            out.append((now, now, now))
            now, i = now + 1, i + 1
    return out


class Patches:
    """Bytes [U, SIDE, SIDE, 3] to the vision tower's input, as the image processor does it."""

    def __init__(self, processor: Any) -> None:
        images = processor.image_processor
        self._mean = torch.tensor(images.image_mean).view(1, 3, 1, 1)
        self._deviation = torch.tensor(images.image_std).view(1, 3, 1, 1)
        self._frames = images.temporal_patch_size

    def __call__(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """[U * patches, 3 * frames * PATCH * PATCH]; `noise` [U, 3, SIDE, SIDE], of a full scale of 1, is added before."""
        pixels = pictures.permute(0, 3, 1, 2).float() / 255
        if noise is not None:
            pixels = (pixels + noise).clamp(0, 1)
        pixels = (pixels - self._mean) / self._deviation
        blocks = pixels.view(len(pixels), 3, GRID, MERGE, PATCH, GRID, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
        frames = blocks.unsqueeze(6).expand(*blocks.shape[:6], self._frames, *blocks.shape[6:])
        return frames.reshape(-1, 3 * self._frames * PATCH * PATCH)

    def grid(self, count: int) -> Tensor:
        """The `image_grid_thw` of so many pictures."""
        return torch.tensor([[1, SIDE // PATCH, SIDE // PATCH]] * count)
