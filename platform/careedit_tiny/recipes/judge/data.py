"""What the judge learns from: pictures before and after with their instruction, each labelled by the oracle, on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from careedit.finetune.drawing import in_order
from careedit.finetune.stored import join_records, load_record, save_record
from careedit.progress import counted
from careedit_tiny.models.judge import PATCH, SIDE
from careedit_tiny.oracle.corruptions import FAULTS, FLAWS, make_picture
from careedit_tiny.oracle.verdict import Verdict, judge
from careedit_tiny.recipes.clip.data import UNLABELLED, patch_labels
from careedit_tiny.recipes.judge.artefacts import ARTEFACTS
from careedit_tiny.recipes.judge.prompts import GRID
from careedit_tiny.world.operations import KINDS
from careedit_tiny.world.samples import Sample, Split, draw_sample

SHARD = 256
"""Number of samples per file."""
FIRST = 30_000_000
"""Index of the first training sample. Other recipes start elsewhere."""
UNKNOWN = -1
"""The value of an unknown label."""
UNDONE = 0.3
"""Share of samples that are also shown with nothing done, an editor's commonest fault."""
DIFFERENT = 0.03
"""Mean difference, of a full scale of 1, from which a token's patch counts as changed."""


@dataclass(frozen=True)
class Shown:
    """One picture that the judge is shown, and what is true of it."""

    sort: str
    """How it was made, e.g. "wrong colour" or "preview 3"."""
    image: Image.Image
    """The image, RGB, `SIDE` pixels wide."""
    verdict: Verdict
    """The oracle's, on the picture or on what became of it."""
    clean: bool | None
    """Whether it has no artefacts. None if unknown."""
    outcome: Image.Image | None = None
    """For a preview: the finished image, which the verdict is about."""


@dataclass(frozen=True, eq=False)
class JudgePool:
    """N edits, each with the answers to the three questions about it."""

    pictures: Tensor
    """All pictures, bytes [P, SIDE, SIDE, 3]."""
    scenes: Tensor
    """Shape and colour in every patch of those pictures that are drawn scenes, `UNLABELLED` in others, int16 [P, 2, patches]."""
    rows: Tensor
    """Source, edited picture and reference (or -1) of every edit, [N, 3]."""
    labels: Tensor
    """Followed, preserved, clean: 1, 0 or `UNKNOWN`, int8 [N, 3]."""
    wanted: Tensor
    """`scenes` of the truth of every edit, int16 [N, 2, patches]."""
    maps: Tensor
    """Where the source differs from the truth, and where the edit does, token by token, bool [N, 2, 16]."""
    instructions: tuple[str, ...]
    """The instruction of every edit."""
    operations: tuple[str, ...]
    """Operations of the tiny world."""
    kinds: tuple[str, ...]
    """Kinds of the tiny world."""
    sorts: tuple[str, ...]
    """How every edit was made, as `Shown.sort`."""

    def __len__(self) -> int:
        return len(self.instructions)

    def plus(self, other: JudgePool) -> JudgePool:
        """The edits of both pools."""
        return join_records(self, other, indices={"rows": "pictures"})

    def image(self, index: int) -> Image.Image:
        """One of `pictures`."""
        return Image.fromarray(self.pictures[index].numpy())


_WORDS = ("instructions", "operations", "kinds", "sorts")


def pool_of(shown: Sequence[tuple[Sample, Sequence[Shown]]]) -> JudgePool:
    """A pool of samples, each with the pictures that are shown for it."""
    pictures: list[np.ndarray] = []
    scenes: list[np.ndarray] = []
    rows, labels, wanted, maps = [], [], [], []
    words: dict[str, list[str]] = {name: [] for name in _WORDS}

    def add(image: Image.Image, scene: np.ndarray | None = None) -> int:
        pictures.append(np.asarray(image))
        scenes.append(np.full((2, (SIDE // PATCH) ** 2), UNLABELLED, np.int16) if scene is None else scene)
        return len(pictures) - 1

    for sample, views in shown:
        source, truth = sample.source_image(SIDE), sample.target_image(SIDE)
        before = add(source, patch_labels(sample.source))
        truths = patch_labels(sample.target)
        given = sample.reference_image(SIDE)
        reference = -1 if given is None else add(given)
        for view in views:
            rows.append((before, add(view.image, truths if view.sort == "truth" else None), reference))
            wanted.append(truths)
            clean = UNKNOWN if view.clean is None else int(view.clean)
            labels.append((int(view.verdict.followed), int(view.verdict.preserved), clean))
            maps.append(np.stack([differing(source, truth), differing(view.outcome or view.image, truth)]))
            for name, word in zip(_WORDS, (sample.instruction, sample.operation, sample.kind, view.sort), strict=True):
                words[name].append(word)
    fields: dict[str, Any] = {name: tuple(value) for name, value in words.items()}
    return JudgePool(
        pictures=torch.from_numpy(np.stack(pictures)),
        scenes=torch.from_numpy(np.stack(scenes)),
        rows=torch.tensor(rows),
        labels=torch.tensor(labels, dtype=torch.int8),
        wanted=torch.from_numpy(np.stack(wanted)),
        maps=torch.from_numpy(np.stack(maps)),
        **fields,
    )


def differing(one: Image.Image, other: Image.Image) -> np.ndarray:
    """Which of the 16 tokens' patches differ between two pictures, bool [16], row by row."""
    gap = np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean(axis=2) / 255
    blocks = gap.reshape(GRID, SIDE // GRID, GRID, SIDE // GRID).mean(axis=(1, 3))
    return np.asarray(blocks > DIFFERENT).reshape(-1)


def drawn_views(sample: Sample, rng: Random) -> Iterator[Shown]:
    """For one sample: a right edit with a flaw that is forgiven, two wrong ones, and now and then one with an artefact."""
    right = rng.choice(("truth", *FLAWS))
    faults = rng.sample([*FAULTS], len(FAULTS))
    if rng.random() < UNDONE:
        faults.insert(0, next(iter(FAULTS)))
    made = 0
    for name in (right, "truth", *dict.fromkeys(faults)):
        # A sort that this sample does not offer is passed over; the exact truth stands in for a flaw.
        if name == "truth" and made:
            continue
        image = make_picture(name, sample, rng, SIDE)
        if image is not None:
            yield Shown(name, image, judge(sample, image), True)
            made += 1
        if made == 3:
            break
    if rng.random() < 0.5:
        artefact = rng.choice([*ARTEFACTS])
        # A look that blurs is not an artefact, and the question does not show which of both it is.
        base = sample.target_image(SIDE) if rng.random() < 0.7 else sample.source_image(SIDE)
        image = ARTEFACTS["noise" if artefact == "blur" and sample.target.look else artefact](base, rng)
        yield Shown(artefact, image, judge(sample, image), False)


def drawn_pool(folder: Path, split: Split, samples: int, *, first: int = 0) -> JudgePool:
    """`samples` samples of a split, the kinds in turn, with their drawn pictures; kept in `folder`, shard by shard."""
    make = partial(_drawn_shard, split, samples, first)
    return sharded(folder, f"judge-drawn-{split}", samples, f"2 {split} {first}", make)


def _drawn_shard(split: Split, samples: int, first: int, start: int) -> JudgePool:
    drawn = [
        draw_sample(KINDS[i % len(KINDS)], first + i // len(KINDS), split)
        for i in range(start, min(start + SHARD, samples))
    ]
    return pool_of([(sample, [*drawn_views(sample, Random(f"judge:{sample.id}"))]) for sample in drawn])


def sharded(
    folder: Path,
    name: str,
    samples: int,
    key: str,
    make: Callable[[int], JudgePool],
    *,
    workers: int | None = None,
) -> JudgePool:
    """The pool of `samples` samples in files of `SHARD`; a file that exists is not made again.

    `make` makes the file that begins with a sample, in `workers` processes as `careedit.finetune.drawing.in_order` does.
    """
    keys = {start: f"{key} {min(SHARD, samples - start)}" for start in range(0, samples, SHARD)}
    paths = {start: folder / f"{name}-{start:06d}.safetensors" for start in keys}
    pools = {start: load_record(JudgePool, paths[start], keys[start]) for start in keys}
    missing = [start for start, pool in pools.items() if pool is None]
    made = in_order(make, [[start] for start in missing], workers)
    shown = counted(zip(missing, made, strict=True), name, len(missing))
    for start, (pool,) in shown:
        save_record(pool, paths[start], keys[start])
        pools[start] = pool
    whole, *others = (pool for pool in pools.values() if pool is not None)
    for pool in others:
        whole = whole.plus(pool)
    return whole
