"""Edits that a router learns from. Their images are encoded once, as float16 tokens; instructions stay text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from careedit.finetune.stored import join_records
from careedit.routing.transformer.model import RouterBatch, pad_texts

_TENSORS = ("source", "reference_index", "conditions", "targets", "feasible")
_WORDS = ("texts", "operations", "groups", "held_out")


@dataclass(frozen=True, eq=False)
class RouterPool:
    """N labelled edits."""

    experts: tuple[str, ...]
    """Names of the experts, in the order of the columns of `targets`."""
    source: Tensor
    """Visual tokens of the source images, float16 [N, Nv, d]."""
    references: Tensor
    """Visual tokens of the reference images that exist, float16 [R, Nv, d]."""
    reference_index: Tensor
    """Each edit's row in `references`, or -1 for an edit without a reference, [N]."""
    conditions: Tensor
    """Condition values, as the router reads them, [N, 3]."""
    targets: Tensor
    """How probable each expert should be, [N, experts]. Rows sum to 1."""
    feasible: Tensor
    """1 where the instruction applies to the image, otherwise 0, [N]."""
    texts: tuple[str, ...]
    """The instruction of each edit."""
    operations: tuple[str | None, ...]
    """What each instruction asks for, as the function that rephrases it names it; None if unknown."""
    groups: tuple[str, ...]
    """What each edit is an example of. Batches are drawn group by group."""
    held_out: tuple[bool, ...]
    """Whether each edit's phrasing is never used in training."""

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
        """Indices of `count` edits: for each, a group at random, then an edit of that group."""
        members: dict[str, list[int]] = {}
        for i, group in enumerate(self.groups):
            members.setdefault(group, []).append(i)
        return [rng.choice(members[rng.choice(groups)]) for _ in range(count)]

    def where(self, keep: Callable[[int], bool]) -> RouterPool:
        """The edits whose index `keep` accepts."""
        chosen = [i for i in range(len(self)) if keep(i)]
        index = torch.as_tensor(chosen, dtype=torch.long)
        tensors: dict[str, Any] = {name: getattr(self, name)[index] for name in _TENSORS}
        words: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in chosen) for name in _WORDS}
        return replace(self, **tensors, **words)

    def plus(self, other: RouterPool) -> RouterPool:
        """The edits of both pools, which must name the same experts."""
        return join_records(self, other, indices={"reference_index": "references"}, same=("experts",))

    def over(self, experts: Sequence[str]) -> RouterPool:
        """The pool with columns for more experts, none of whose edits are in it."""
        more = torch.zeros(len(self), len(experts) - len(self.experts))
        return replace(self, experts=tuple(experts), targets=torch.cat([self.targets, more], dim=1))


def labelled_pool(
    experts: Sequence[str],
    right: Sequence[str],
    sources: Sequence[Tensor],
    references: Sequence[Tensor | None],
    **fields: Any,
) -> RouterPool:
    """A pool of edits with one right expert each.

    `sources` and `references` are visual tokens [Nv, d], one per edit; `fields` are the other fields of `RouterPool`.
    """
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
