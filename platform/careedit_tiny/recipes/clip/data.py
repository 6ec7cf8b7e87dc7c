"""What the tiny CLIP is shown: scenes drawn once, and words for them that change from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from careedit.files import atomic_path
from careedit.finetune.drawing import in_order
from careedit.progress import counted
from careedit_tiny.models.clip import CONFIG, tokenizer
from careedit_tiny.recipes.base.items import UNKNOWN
from careedit_tiny.recipes.clip.captions import group_scene, named_objects, vocabulary
from careedit_tiny.world.draw import draw_scene
from careedit_tiny.world.operations import KINDS
from careedit_tiny.world.samples import SPLITS, Split, draw_sample
from careedit_tiny.world.scene import COLOURS, LOOKS, SHAPES, SIZES, Scene, random_scene

SIDE, PATCH = CONFIG["vision_cfg"]["image_size"], CONFIG["vision_cfg"]["patch_size"]
GRID = SIDE // PATCH
DRAWN_TOGETHER = 500
"""Scenes that a process draws at a time."""
COLOUR_NAMES, OTHER, UNLABELLED = tuple(COLOURS), -1, -2


def scene_at(index: int) -> tuple[Scene, str | None]:
    """Training scene `index` and, every other time, an instruction for it: the source of a sample of the train split."""
    if index % 2:
        sample = draw_sample(KINDS[index // 2 % len(KINDS)], 10_000_000 + index)
        return sample.source, sample.instruction
    rng = Random(f"clip:{index}")
    scene = group_scene(rng)
    if rng.random() < 0.2:
        scene = replace(scene, look=rng.choice(LOOKS))
    return scene, None


def scenes_of(split: Split, count: int) -> list[Scene]:
    """Scenes to measure retrieval on, functions of the split and their index alone."""
    return [random_scene(Random(f"clip:{SPLITS[split][i]}"), minimum=1, maximum=4) for i in range(count)]


def pictures(scenes: Sequence[Scene], path: Path | None = None) -> np.ndarray:
    """The drawn scenes, bytes [N, 64, 64, 3]; kept in `path`, so that a resumed run need not draw them again."""
    if path is not None and path.exists():
        kept: np.ndarray = np.load(path)
        if len(kept) == len(scenes):
            return kept
    groups = [range(len(scenes))[i : i + DRAWN_TOGETHER] for i in range(0, len(scenes), DRAWN_TOGETHER)]
    made = in_order(partial(_picture, tuple(scenes)), groups)
    shown = counted(made, "scenes", len(groups))
    drawn = np.stack([picture for group in shown for picture in group])
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, drawn)
    return drawn


def _picture(scenes: tuple[Scene, ...], index: int) -> np.ndarray:
    return np.asarray(draw_scene(scenes[index], SIDE))


def to_pixels(drawn: np.ndarray) -> Tensor:
    """Bytes [B, H, W, 3] -> the model's input [B, 3, H, W]: (x - 0.5) / 0.25, as its preprocessing says."""
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 63.75 - 2


def patch_labels(scene: Scene) -> np.ndarray:
    """Which object each patch shows: [2, patches] of indices of shape and colour, `OTHER` where none.

    All are `UNLABELLED` under a look, which changes colours and outlines.
    """
    labels = np.full((2, GRID, GRID), OTHER if scene.look is None else UNLABELLED, np.int16)
    if scene.look is None:
        centres = (np.arange(GRID) + 0.5) / GRID
        for thing in scene.things:
            # A patch belongs to an object when its centre lies inside the object's box; every object has one at least.
            reach = max(SIZES[thing.size] / 2, 0.51 / GRID)
            x, y = (thing.cell % 3 + 0.5) / 3 + thing.dx, (thing.cell // 3 + 0.5) / 3 + thing.dy
            inside = np.ix_(abs(centres - y) <= reach, abs(centres - x) <= reach)
            labels[0][inside] = SHAPES.index(thing.shape)
            labels[1][inside] = COLOUR_NAMES.index(thing.colour)
    return labels.reshape(2, -1)


@dataclass(frozen=True, eq=False)
class Texts:
    """A batch of texts as the recipe's compact token ids."""

    ids: Tensor
    """[B, L], 0 after the end and for an unknown word."""
    ends: Tensor
    """Index of each text's end token, [B]."""
    named: Tensor
    """[M, 4]: text, token, shape, colour (`OTHER` where no colour is said) of every object that a text names."""


class CompactTokenizer:
    """open_clip's tokenizer, with the ids of the words that training shows numbered from 1 in their old order.

    The model is trained with that many rows and then put into a full table, whose other rows are zero. The order is
    kept because CLIP finds the end token by its id, the highest.
    """

    def __init__(self) -> None:
        self._full: Any = tokenizer()
        ids = {token for word in vocabulary() for token in self._full.encode(word)}
        self.used: tuple[int, ...] = (*sorted(ids), self._full.sot_token_id, self._full.eot_token_id)
        self._compact = {token: i for i, token in enumerate(self.used, start=1)}
        self.encode = lru_cache(maxsize=4096)(self._encode)

    @property
    def size(self) -> int:
        """Rows of the compact table, row 0 (zero) included."""
        return len(self.used) + 1

    def _encode(self, word: str) -> tuple[int, ...]:
        return (0,) if word == UNKNOWN else tuple(self._compact.get(token, 0) for token in self._full.encode(word))

    def __call__(self, texts: Sequence[str]) -> Texts:
        """The texts, cut at the model's context."""
        limit = CONFIG["text_cfg"]["context_length"]
        rows: list[list[int]] = []
        named: list[tuple[int, int, int, int]] = []
        for text in texts:
            words = text.replace(",", " , ").lower().split()
            row, last = [self._compact[self._full.sot_token_id]], []
            for word in words:
                row += self.encode(word)
                last.append(len(row) - 1)
            row = [*row[: limit - 1], self._compact[self._full.eot_token_id]]
            for i, shape, colour in named_objects(words):
                if last[i] < len(row) - 1:
                    hue = OTHER if colour is None else COLOUR_NAMES.index(colour)
                    named.append((len(rows), last[i], SHAPES.index(shape), hue))
            rows.append(row)
        ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return Texts(ids, torch.tensor([len(row) - 1 for row in rows]), torch.tensor(named).reshape(-1, 4))
