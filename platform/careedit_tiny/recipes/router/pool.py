"""Drawn edits for the router: encoded once, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from careedit.encoders import OpenClipEncoder
from careedit.finetune.router.pool import RouterPool, labelled_pool
from careedit.finetune.stored import load_record, save_record
from careedit.images import mask_share
from careedit.progress import counted
from careedit_tiny.recipes.family import COMPETENCES
from careedit_tiny.world.operations import EXPERT_OF, KINDS
from careedit_tiny.world.samples import Sample, Split, draw_sample

GROUPS = (*KINDS, "infeasible", "infeasible", "infeasible")
"""What a batch is drawn from, each entry as often as the next: the twelve kinds, and instructions that do not apply."""
FIRST = 30_000_000
"""Index of the first training sample. Pools of other recipes start elsewhere."""
_CHUNK = 64


def pool_of(samples: Iterable[Sample], encoder: OpenClipEncoder, experts: Sequence[str]) -> RouterPool:
    """The samples, encoded. An infeasible sample counts for the expert of its operation, as not feasible."""
    kept = [sample for sample in samples if EXPERT_OF[sample.operation] in experts]
    sources: list[Tensor] = []
    references: list[Tensor | None] = []
    conditions: list[tuple[float, ...]] = []
    for first in counted(range(0, len(kept), _CHUNK), "router pool"):
        chunk = kept[first : first + _CHUNK]
        sources += encoder.visual_batch([sample.source_image() for sample in chunk])
        pictures = [picture for sample in chunk if (picture := sample.reference_image()) is not None]
        encoded = iter(encoder.visual_batch(pictures) if pictures else ())
        for sample in chunk:
            references.append(None if sample.reference is None else next(encoded))
            mask = sample.mask_image()
            share = 0.0 if mask is None else mask_share(mask)
            conditions.append((float(mask is not None), share, float(sample.reference is not None)))
    return labelled_pool(
        experts,
        [EXPERT_OF[sample.operation] for sample in kept],
        sources,
        references,
        conditions=torch.tensor(conditions),
        feasible=torch.tensor([float(sample.feasible) for sample in kept]),
        texts=tuple(sample.instruction for sample in kept),
        operations=tuple(sample.operation for sample in kept),
        groups=tuple(sample.kind for sample in kept),
        held_out=tuple(sample.held_out_phrasing for sample in kept),
    )


def fingerprint(encoder: OpenClipEncoder) -> str:
    """Identifies an encoder by its weights, which are the same on every device."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode() + value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def drawn_pool(
    split: Split, encoder: OpenClipEncoder, folder: Path, per_group: int, *, experts: Sequence[str] = tuple(COMPETENCES)
) -> RouterPool:
    """`per_group` edits of every group of a split, kept in `folder/router-pools`."""
    path = folder / "router-pools" / f"{split}.safetensors"
    key = f"{fingerprint(encoder)} {split} {per_group} {' '.join(experts)}"
    pool = load_record(RouterPool, path, key)
    if pool is None:
        first = FIRST if split == "train" else 0
        counts = {kind: per_group * GROUPS.count(kind) for kind in dict.fromkeys(GROUPS)}
        samples = [draw_sample(kind, first + i, split) for kind, count in counts.items() for i in range(count)]
        pool = pool_of(samples, encoder, experts)
        save_record(pool, path, key)
    return pool
