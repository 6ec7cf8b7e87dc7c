"""Rows of the table: who edits, and how well; most are looked up in what every expert made of every scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from careedit.errors import InputError
from careedit.stats import Floats, Interval, bootstrap_mean
from careedit_tiny.bench.quality.outcomes import Outcome
from careedit_tiny.world.samples import Sample

Chosen = Sequence[str]
"""One expert (or the base) per scene."""


@dataclass(frozen=True, eq=False)
class Row:
    """Figures per scene, each [n]; shares between 0 and 1 where a row is an average over choices."""

    compliant: Floats
    """Followed and preserved."""
    followed: Floats
    """The instruction was carried out."""
    preserved: Floats
    """The rest was left alone."""
    preservation_error: Floats
    """Mean absolute difference outside the edit."""
    softened_error: Floats
    """The oracle's figure for it."""
    l1: Floats
    """Mean absolute difference from the truth."""
    nfe: Floats
    """Evaluations of the transformer."""
    seconds: Floats
    """Per edit."""

    @property
    def compliance(self) -> float:
        """Share of scenes edited right."""
        return float(self.compliant.mean())

    @property
    def ci(self) -> Interval:
        """Of `compliance`."""
        return bootstrap_mean(self.compliant)

    def document(self, kinds: Sequence[str]) -> dict[str, Any]:
        """As JSON; `kinds` are the scenes', in their order."""
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
    """A share of scenes with its interval and how many scenes there were."""
    return {"compliance": float(values.mean()), "ci": list(bootstrap_mean(values)), "count": int(values.size)}


def row_of(outcomes: Sequence[Outcome], *, routing_seconds: float = 0.0) -> Row:
    """The row of one outcome per scene; `routing_seconds` are added to each edit's."""
    if not outcomes:
        raise InputError("A row needs one or more outcomes.")
    columns = {field.name: np.array([float(getattr(one, field.name)) for one in outcomes]) for field in fields(Row)}
    columns["seconds"] = columns["seconds"] + routing_seconds
    return Row(**columns)


def looked_up(table: Mapping[str, Sequence[Outcome]], chosen: Chosen) -> list[Outcome]:
    """What the chosen expert made of each scene."""
    return [table[name][i] for i, name in enumerate(chosen)]


def random_row(table: Mapping[str, Sequence[Outcome]], experts: Sequence[str]) -> Row:
    """What a uniformly random choice of expert gets on average, exactly: the mean over the experts, scene by scene."""
    rows = [row_of(table[name]) for name in experts]
    return Row(**{f.name: np.mean([getattr(row, f.name) for row in rows], axis=0) for f in fields(Row)})


def best_single(table: Mapping[str, Sequence[Outcome]], experts: Sequence[str]) -> str:
    """The expert with the highest compliance on the (validation) scenes of `table`; of equals, the one nearest the truth."""
    rows = {name: row_of(table[name]) for name in experts}
    return max(experts, key=lambda name: (rows[name].compliance, -float(rows[name].l1.mean())))


def oracle_choice(table: Mapping[str, Sequence[Outcome]], arms: Sequence[str]) -> list[str]:
    """Per scene, who edits it right; of several, or of none, who comes nearest the truth."""
    scenes = len(table[arms[0]])
    return [max(arms, key=lambda name: (table[name][i].compliant, -table[name][i].l1)) for i in range(scenes)]


def gap_recovered(row: Row, single: Row, oracle: Row) -> float | None:
    """(row - best single) / (oracle - best single) in compliance; None where the gap's interval is not clear of 0.

    A share of a gap that may as well be none can be any number.
    """
    low, _ = bootstrap_mean(oracle.compliant - single.compliant)
    if low <= 0:
        return None
    return (row.compliance - single.compliance) / (oracle.compliance - single.compliance)


def kinds_of(samples: Sequence[Sample]) -> list[str]:
    """Kinds of the scenes."""
    return [sample.kind for sample in samples]
