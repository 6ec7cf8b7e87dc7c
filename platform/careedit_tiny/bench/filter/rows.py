"""Rows of the table: every strategy, size and chooser, looked up in what became of every noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from careedit.selection.plan import Plan
from careedit.stats import Floats, bootstrap_mean
from careedit_tiny.bench.filter.measure import CLIP, CLIP_CAPTION, JUDGE, NEAREST
from careedit_tiny.bench.filter.plan import FilterPlan
from careedit_tiny.bench.filter.table import ORACLE, SceneTable

SINGLE, RANDOM = "none", "random"
"""The first noise, no filter; a uniformly random choice."""
CHOOSERS = (RANDOM, CLIP, CLIP_CAPTION, JUDGE, NEAREST, ORACLE)
"""In the order of the table."""


@dataclass(frozen=True, eq=False)
class FilterRow:
    """One setting; figures per scene, each [n]."""

    strategy: str
    """Name of the strategy."""
    candidates: int
    """Noises tried."""
    preview_steps: int
    """Steps before the last look."""
    chooser: str
    """Who chose."""
    right: Floats
    """1 where the finished edit is right; its expectation for a random choice."""
    nfe: Floats
    """Transformer evaluations."""
    judged: Floats
    """Pictures that the chooser scored."""
    seconds: Floats
    """Denoising and judging; decoding is not in it."""
    judge_seconds: Floats
    """Judging alone."""

    @property
    def compliance(self) -> float:
        """Share of scenes edited right."""
        return float(self.right.mean())

    @property
    def cost(self) -> float:
        """Mean evaluations per edit."""
        return float(self.nfe.mean())

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "strategy": self.strategy,
            "candidates": self.candidates,
            "preview_steps": self.preview_steps,
            "chooser": self.chooser,
            "nfe": self.cost,
            "compliance": self.compliance,
            "ci": list(bootstrap_mean(self.right)),
            "judged": float(self.judged.mean()),
            "seconds": float(self.seconds.mean()),
            "judge_seconds": float(self.judge_seconds.mean()),
        }


def single_row(tables: Sequence[SceneTable], steps: int) -> FilterRow:
    """One noise, no filter."""
    nothing = np.zeros(len(tables))
    nfe = np.array([float(table.rows * steps) for table in tables])
    seconds = nfe * [table.denoise_seconds for table in tables]
    right = np.array([float(table.right[0]) for table in tables])
    return FilterRow(SINGLE, 1, 0, SINGLE, right, nfe, nothing, seconds, nothing)


def row_of(tables: Sequence[SceneTable], plan: Plan, chooser: str) -> FilterRow:
    """What `chooser` gets out of `plan`."""
    right, nfe, judged = [], [], []
    for table in tables:
        if chooser == RANDOM:
            right.append(float(np.mean(table.right[: plan.candidates])))
            nfe.append(float(table.rows * plan.cost))
            judged.append(0.0)
            continue
        run = table.race(plan, chooser)
        right.append(float(table.right[run.chosen]))
        rest = plan.steps - (0 if plan.restarts else run.looks[-1].steps)
        nfe.append(float(table.rows * (run.cost + rest)))
        judged.append(float(sum(len(look.alive) for look in run.looks)))
    waiting = np.array(judged) * [table.judge_seconds.get(chooser, 0.0) for table in tables]
    denoising = np.array(nfe) * [table.denoise_seconds for table in tables]
    return FilterRow(
        plan.strategy,
        plan.candidates,
        plan.preview_steps,
        chooser,
        np.array(right),
        np.array(nfe),
        np.array(judged),
        denoising + waiting,
        waiting,
    )


def rows_of(tables: Sequence[SceneTable], plan: FilterPlan) -> list[FilterRow]:
    """The whole table, the single noise first; a chooser that was not measured has no rows."""
    known = {RANDOM, *(name for name in tables[0].scores)}
    return [
        single_row(tables, plan.steps),
        *(row_of(tables, setting, chooser) for setting in plan.settings for chooser in CHOOSERS if chooser in known),
    ]
