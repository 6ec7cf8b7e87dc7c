"""The rows of the table. Most are looked up: every expert edits every scene once, and a row chooses among these edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from careedit.errors import InputError
from careedit.stats import Floats, bootstrap_mean
from careedit_tiny.evaluation.quality.outcomes import Outcome
from careedit_tiny.world.samples import Sample

Chosen = Sequence[str]
"""One expert, or the base model, per scene."""


@dataclass(frozen=True, eq=False)
class Row:
    """Figures per scene, each [n]. A row that averages over choices has shares between 0 and 1."""

    compliant: Floats
    """1 where the edit is right: followed and preserved."""
    followed: Floats
    """1 where the instruction was carried out."""
    preserved: Floats
    """1 where the rest of the image was left alone."""
    preservation_error: Floats
    """The difference from the right result outside the edited area, as in `Outcome`."""
    softened_error: Floats
    """The oracle's own measure of that difference, as in `Outcome`."""
    l1: Floats
    """The difference from the right result over all pixels, as in `Outcome`."""
    nfe: Floats
    """The number of evaluations of the transformer."""
    seconds: Floats
    """Wall-clock seconds per edit, with routing."""

    @property
    def compliance(self) -> float:
        """The share of scenes that are edited right."""
        return float(self.compliant.mean())

    def document(self, kinds: Sequence[str]) -> dict[str, Any]:
        """The row as JSON data; `kinds` are the kinds of edit of the scenes, in their order."""
        names = np.asarray(kinds)
        return {
            **share(self.compliant),
            "followed": float(self.followed.mean()),
            "preserved": float(self.preserved.mean()),
            "preservation_error": float(self.preservation_error.mean()),
            "preservation_error_softened": float(self.softened_error.mean()),
            "l1": float(self.l1.mean()),
            "nfe": float(self.nfe.mean()),
            "seconds": float(self.seconds.mean()),
            "by_kind": {kind: share(self.compliant[names == kind]) for kind in dict.fromkeys(kinds)},
        }


def share(values: Floats) -> dict[str, Any]:
    """A share of scenes with its interval and the number of scenes."""
    return {"compliance": float(values.mean()), "ci": list(bootstrap_mean(values)), "count": int(values.size)}


def row_of(outcomes: Sequence[Outcome], *, routing_seconds: float = 0.0) -> Row:
    """The row of one outcome per scene. `routing_seconds` is added to the time of each edit."""
    if not outcomes:
        raise InputError("A row needs one or more outcomes.")
    columns = {field.name: np.array([float(getattr(one, field.name)) for one in outcomes]) for field in fields(Row)}
    columns["seconds"] = columns["seconds"] + routing_seconds
    return Row(**columns)


def looked_up(table: Mapping[str, Sequence[Outcome]], chosen: Chosen) -> list[Outcome]:
    """What the chosen expert made of each scene."""
    return [table[name][i] for i, name in enumerate(chosen)]


def random_row(table: Mapping[str, Sequence[Outcome]], experts: Sequence[str]) -> Row:
    """The exact average of a uniformly random choice of expert: the mean over the experts, scene by scene."""
    rows = [row_of(table[name]) for name in experts]
    return Row(**{f.name: np.mean([getattr(row, f.name) for row in rows], axis=0) for f in fields(Row)})


def best_single(table: Mapping[str, Sequence[Outcome]], experts: Sequence[str]) -> str:
    """The expert with the highest compliance on the (validation) scenes of `table`; of equal experts, the one with the lower L1."""
    rows = {name: row_of(table[name]) for name in experts}
    return max(experts, key=lambda name: (rows[name].compliance, -float(rows[name].l1.mean())))


def oracle_choice(table: Mapping[str, Sequence[Outcome]], arms: Sequence[str]) -> list[str]:
    """Per scene, the arm that edits it right; if several do, or none does, the one with the lowest L1."""
    scenes = len(table[arms[0]])
    return [max(arms, key=lambda name: (table[name][i].compliant, -table[name][i].l1)) for i in range(scenes)]


def kinds_of(samples: Sequence[Sample]) -> list[str]:
    """Kinds of the scenes."""
    return [sample.kind for sample in samples]
