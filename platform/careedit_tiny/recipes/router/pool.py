"""Edits that a router learns from, their pictures encoded once: tokens in float16, words kept as words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from careedit.encoders import OpenClipEncoder
from careedit.files import atomic_path, write_atomic
from careedit.images import mask_share
from careedit.routing.transformer import RouterBatch, pad_texts
from careedit_tiny.recipes.router.words import in_other_words
from careedit_tiny.world.operations import EXPERT_OF, KINDS
from careedit_tiny.world.samples import Sample, Split, draw_sample

GROUPS = (*KINDS, "infeasible", "infeasible", "infeasible")
"""What a batch is drawn from, each as often as the next: the twelve kinds, and instructions that do not apply."""
_CHUNK = 64
_TENSORS = ("source", "references", "reference_index", "conditions", "targets", "feasible")


@dataclass(frozen=True, eq=False)
class RouterPool:
    """N labelled edits."""

    experts: tuple[str, ...]
    """What the columns of `targets` stand for."""
    source: Tensor
    """Visual tokens, float16 [N, Nv, d]."""
    references: Tensor
    """Visual tokens of the references that there are, float16 [R, Nv, d]."""
    reference_index: Tensor
    """Row of `references` per edit, -1 without one, [N]."""
    conditions: Tensor
    """[N, 3]."""
    targets: Tensor
    """How probable each expert should be, [N, experts], rows summing to 1."""
    feasible: Tensor
    """1 where the instruction applies to the picture, [N]."""
    texts: tuple[str, ...]
    """Instructions."""
    operations: tuple[str | None, ...]
    """Operations of the tiny world; None for edits from elsewhere."""
    groups: tuple[str, ...]
    """What each edit is an example of."""
    held_out: tuple[bool, ...]
    """Whether its phrasing is never used in training."""

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, chosen: Sequence[int], texts: Sequence[Tensor]) -> RouterBatch:
        """The chosen edits with these text tokens, one [Nt, d] each."""
        index = torch.as_tensor(chosen, dtype=torch.long)
        rows = self.reference_index[index]
        reference = torch.zeros(len(index), *self.source.shape[1:])
        reference[rows >= 0] = self.references[rows[rows >= 0]].float()
        text, is_text = pad_texts(texts)
        return RouterBatch(
            self.source[index].float(), reference, rows >= 0, text.cpu(), is_text.cpu(), self.conditions[index]
        )

    def draw(self, count: int, groups: Sequence[str], rng: Random) -> list[int]:
        """Indices of `count` edits, a group at random for each, then an edit of it."""
        members = self._members()
        return [rng.choice(members[rng.choice(groups)]) for _ in range(count)]

    def said_otherwise(self, chosen: Sequence[int], rng: Random) -> list[str]:
        """The instructions of the chosen edits in other words."""
        return [in_other_words(self.texts[i], self.operations[i], rng) for i in chosen]

    def where(self, keep: Callable[[int], bool]) -> list[int]:
        """Indices that `keep` says yes to."""
        return [i for i in range(len(self)) if keep(i)]

    def subset(self, chosen: Sequence[int]) -> RouterPool:
        """The chosen edits alone."""
        index = torch.as_tensor(chosen, dtype=torch.long)
        words: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in chosen)
            for name in ("texts", "operations", "groups", "held_out")
        }
        tensors: dict[str, Any] = {name: getattr(self, name)[index] for name in _TENSORS if name != "references"}
        return replace(self, **tensors, **words)

    def plus(self, other: RouterPool) -> RouterPool:
        """Both pools' edits; they must name the same experts."""
        moved = torch.where(other.reference_index >= 0, other.reference_index + len(self.references), -1)
        tensors: dict[str, Any] = {
            name: torch.cat([getattr(self, name), moved if name == "reference_index" else getattr(other, name)])
            for name in _TENSORS
        }
        words: dict[str, Any] = {
            name: getattr(self, name) + getattr(other, name) for name in ("texts", "operations", "groups", "held_out")
        }
        return replace(self, **tensors, **words)

    def _members(self) -> Mapping[str, list[int]]:
        members: dict[str, list[int]] = {}
        for i, group in enumerate(self.groups):
            members.setdefault(group, []).append(i)
        return members


def labelled_pool(
    experts: Sequence[str],
    right: Sequence[str],
    sources: Sequence[Tensor],
    references: Sequence[Tensor | None],
    **fields: Any,
) -> RouterPool:
    """A pool of edits of which one expert each is right; `sources` and `references` are visual tokens [Nv, d] per edit."""
    source = torch.stack([tokens.half().cpu() for tokens in sources])
    given = [tokens.half().cpu() for tokens in references if tokens is not None]
    there = torch.tensor([tokens is not None for tokens in references])
    label = torch.tensor([list(experts).index(name) for name in right])
    return RouterPool(
        experts=tuple(experts),
        source=source,
        references=torch.stack(given) if given else source.new_zeros(0, *source.shape[1:]),
        reference_index=torch.where(there, there.cumsum(0) - 1, -1),
        targets=torch.nn.functional.one_hot(label, len(experts)).float(),
        **fields,
    )


def pool_of(samples: Iterable[Sample], encoder: OpenClipEncoder, experts: Sequence[str]) -> RouterPool:
    """The samples encoded; an infeasible one counts for the expert of its operation, as not feasible."""
    kept = [sample for sample in samples if EXPERT_OF[sample.operation] in experts]
    sources: list[Tensor] = []
    references: list[Tensor | None] = []
    conditions: list[tuple[float, ...]] = []
    for first in track(range(0, len(kept), _CHUNK), description="router pool", console=Console(stderr=True)):
        chunk = kept[first : first + _CHUNK]
        sources += encoder.visual_batch([sample.source_image() for sample in chunk])
        pictures = [picture for sample in chunk if (picture := sample.reference_image()) is not None]
        encoded = iter(encoder.visual_batch(pictures) if pictures else ())
        for sample in chunk:
            references.append(None if sample.reference is None else next(encoded))
            mask = sample.mask_image()
            given = (
                float(mask is not None),
                0.0 if mask is None else mask_share(mask),
                float(sample.reference is not None),
            )
            conditions.append(given)
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


def tiny_samples(split: Split, per_group: int, *, first: int = 0) -> list[Sample]:
    """`per_group` samples of every kind and of infeasible instructions, thrice as many of the latter."""
    counts = {kind: per_group * GROUPS.count(kind) for kind in dict.fromkeys(GROUPS)}
    return [draw_sample(kind, first + i, split) for kind, count in counts.items() for i in range(count)]


def kept_pool(path: Path, key: str, make: Callable[[], RouterPool]) -> RouterPool:
    """The pool in `path` (a .safetensors file), made and written there first if it is not; `key` says what it is of."""
    words_path = path.with_suffix(".json")
    if path.exists() and words_path.exists():
        words = json.loads(words_path.read_text("utf-8"))
        if words.pop("key") == key:
            fields: dict[str, Any] = {**load_file(path), **{name: tuple(value) for name, value in words.items()}}
            return RouterPool(**fields)
    pool = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("experts", "texts", "operations", "groups", "held_out")
    words_path.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        save_file({name: getattr(pool, name).contiguous() for name in _TENSORS}, temporary)
    write_atomic(words_path, json.dumps({"key": key, **{name: getattr(pool, name) for name in names}}))
    return pool
