"""What became of every noise of a scene: verdicts and scores, from which every strategy's choice is looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from careedit.bench.lines import LineCache
from careedit.selection.plan import JudgeFailed, Plan, Race, race
from careedit_tiny.bench.filter.plan import look_key

VERSION = 1
"""Of a line of the cache."""
FILE = "filter.jsonl"
"""Name of the cache's file in its folder."""
ORACLE = "oracle"
"""Choosing by the verdict on the finished edit: the upper bound of any choice."""


@dataclass(frozen=True, slots=True)
class SceneTable:
    """One scene. Sequences hold one entry per noise."""

    sample: str
    """The scene's id."""
    kind: str
    """Its kind of edit."""
    rows: int
    """Transformer evaluations per step: one per expert of the mixture."""
    right: tuple[bool, ...]
    """The oracle on the finished edits: followed, and the rest preserved."""
    scores: Mapping[str, Mapping[str, tuple[float | None, ...]]]
    """Chooser to look (`look_key`) to scores, None where there is none."""
    consistent: bool | None = None
    """Whether the judge named one winner of a pair in both orders; None where it was not asked, or gave no answer."""
    denoise_seconds: float = 0.0
    """Wall-clock seconds per evaluation."""
    judge_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Chooser to wall-clock seconds per picture."""

    def race(self, plan: Plan, chooser: str) -> Race:
        """What the strategy would choose, by `careedit.selection.plan.race`, the real filter's own rule."""

        def scores_at(steps: int, alive: tuple[int, ...]) -> list[float | None]:
            key = look_key(plan.steps, plan.steps) if chooser == ORACLE else look_key(plan.schedule, steps)
            found = [self.scores[chooser][key][i] for i in alive]
            if all(score is None for score in found):
                raise JudgeFailed("the judge gave no score")
            return found

        return race(plan, scores_at)


class TableCache(LineCache[SceneTable]):
    """Tables by key."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder, FILE, VERSION, _table)


def _table(fields: dict[str, Any]) -> SceneTable:
    scores = {
        chooser: {look: tuple(row) for look, row in looks.items()} for chooser, looks in fields.pop("scores").items()
    }
    return SceneTable(**{**fields, "right": tuple(fields["right"]), "scores": scores})
