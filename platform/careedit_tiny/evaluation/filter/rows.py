"""What the scenes' tables say: every strategy, number of candidates and chooser, how good the judge is, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from careedit.routing.transformer import calibration_error
from careedit.selection.plan import Plan
from careedit.stats import SEED, Floats, area_under_roc, bootstrap_mean
from careedit_tiny.evaluation.filter.measure import CLIP, CLIP_CAPTION, JUDGE, NEAREST, ORACLE, SceneTable
from careedit_tiny.evaluation.filter.plan import REFERENCE, FilterPlan, look_key

SINGLE, RANDOM = "none", "random"
"""The first candidate without a filter; a uniformly random choice."""
CHOOSERS = (RANDOM, CLIP, CLIP_CAPTION, JUDGE, NEAREST, ORACLE)
"""The choosers in the order of the table."""


@dataclass(frozen=True, eq=False)
class FilterRow:
    """One setting of the filter; figures per scene, each [n]."""

    strategy: str
    """The name of the strategy, as in `EarlyFilter`."""
    candidates: int
    """The number of candidates that are tried."""
    preview_steps: int
    """The number of steps before the last preview."""
    chooser: str
    """The chooser, one of `CHOOSERS`."""
    right: Floats
    """1 where the finished edit is right, else 0; for a random choice the expected value."""
    nfe: Floats
    """The number of evaluations of the transformer."""
    judged: Floats
    """The number of images that the chooser scored."""
    seconds: Floats
    """Wall-clock seconds of denoising and judging, without decoding."""
    judge_seconds: Floats
    """Wall-clock seconds of judging alone."""

    @property
    def compliance(self) -> float:
        """The share of scenes that are edited right."""
        return float(self.right.mean())

    @property
    def cost(self) -> float:
        """The mean number of evaluations per edit."""
        return float(self.nfe.mean())

    def document(self) -> dict[str, Any]:
        """The row as JSON data."""
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
    """The row of a single candidate without a filter."""
    nothing = np.zeros(len(tables))
    nfe = np.array([float(table.rows * steps) for table in tables])
    seconds = nfe * [table.denoise_seconds for table in tables]
    right = np.array([float(table.right[0]) for table in tables])
    return FilterRow(SINGLE, 1, 0, SINGLE, right, nfe, nothing, seconds, nothing)


def row_of(tables: Sequence[SceneTable], plan: Plan, chooser: str) -> FilterRow:
    """The row of one setting with one chooser."""
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
    """The whole table, the single candidate first. A chooser that was not measured has no rows."""
    known = {RANDOM, *(name for name in tables[0].scores)}
    return [
        single_row(tables, plan.steps),
        *(row_of(tables, setting, chooser) for setting in plan.settings for chooser in CHOOSERS if chooser in known),
    ]


def judge_section(tables: Sequence[SceneTable], plan: FilterPlan, chooser: str = JUDGE) -> dict[str, Any]:
    """The scores of a chooser against the oracle's verdict on the finished edit, also for a preview of that edit.

    `auc_*_within` compares only candidates of the same scene, as a filter does, so easy and hard scenes do not matter.
    """
    final, preview = look_key(plan.steps, plan.steps), look_key(plan.steps, plan.quarter)
    if chooser not in tables[0].scores:
        return {"auc_final": None, "auc_preview": None, "order_consistency": None, "ece": None}
    stated, right = _pooled(tables, chooser, final)
    agreed = [table.consistent for table in tables if table.consistent is not None]
    return {
        "auc_final": _auc(stated, right),
        "auc_preview": _auc(*_pooled(tables, chooser, preview)),
        "auc_final_within": _within(tables, chooser, final),
        "auc_preview_within": _within(tables, chooser, preview),
        "auc_by_look": {key: _auc(*_pooled(tables, chooser, key)) for key in tables[0].scores[chooser]},
        "auc_within_by_look": {key: _within(tables, chooser, key) for key in tables[0].scores[chooser]},
        "order_consistency": float(np.mean(agreed)) if agreed else None,
        "pairs": len(agreed),
        "ece": calibration_error(stated, right) if right.size else None,
        "scored": int(right.size),
        "unreadable": sum(row.count(None) for table in tables for row in table.scores[chooser].values()),
        "seconds_per_picture": float(np.mean([table.judge_seconds[chooser] for table in tables])),
    }


@dataclass(frozen=True, eq=False)
class Gain:
    """Right edits per scene, each [n], with the filter and without it."""

    single: Floats
    """1 where a single candidate is right, else 0."""
    chosen: Floats
    """1 where the chooser's candidate is right, else 0."""
    best: Floats
    """1 where the oracle's candidate is right, else 0."""
    settings: Sequence[Plan]
    """The two settings of the filter: the one that is measured on the first half of the scenes, and on the second."""


def cross_fitted_gain(tables: Sequence[SceneTable], plan: FilterPlan, chooser: str = JUDGE) -> Gain:
    """What the filter gains over a single candidate, over two or more scenes.

    The setting is chosen on one half of the scenes and measured on the other half, and the other way round. Otherwise the
    best of many settings would look better than it is.
    """
    rows = {setting: row_of(tables, setting, chooser) for setting in plan.settings}
    bound = {setting: row_of(tables, setting, ORACLE) for setting in plan.settings}
    single = single_row(tables, plan.steps)
    odd = np.random.default_rng(SEED).permutation(len(tables)) % 2 == 1
    got, best = single.right.copy(), single.right.copy()
    settings = []
    for measured in (odd, ~odd):
        picked = max(rows, key=lambda setting: (rows[setting].right[~measured].mean(), -rows[setting].cost))
        got[measured], best[measured] = rows[picked].right[measured], bound[picked].right[measured]
        settings.append(picked)
    return Gain(single.right, got, best, settings)


def gain_section(tables: Sequence[SceneTable], plan: FilterPlan, chooser: str = JUDGE) -> dict[str, Any]:
    """What the filter gains over a single candidate, by `cross_fitted_gain`."""
    if chooser not in tables[0].scores or len(tables) < 2:
        return {"lift_over_single": None, "gap_recovered": None}
    gain = cross_fitted_gain(tables, plan, chooser)
    points, gap = 100 * (gain.chosen - gain.single), float((gain.best - gain.single).mean())
    settings = [_named(setting) for setting in gain.settings]
    return {
        "lift_over_single": {"points": float(points.mean()), "ci": list(bootstrap_mean(points)), "settings": settings},
        "gap_recovered": float((gain.chosen - gain.single).mean()) / gap if gap > 0 else None,
    }


def share_section(tables: Sequence[SceneTable], plan: FilterPlan, chooser: str = JUDGE) -> dict[str, Any]:
    """The cheapest setting that is right as often as the best `restart` of six candidates, and its share of that NFE."""
    nothing = {"nfe_share_at_equal_compliance": None, "equal_compliance": None}
    if chooser not in tables[0].scores:
        return nothing
    rows = {setting: row_of(tables, setting, chooser) for setting in plan.settings}
    yardsticks = [s for s in plan.settings if s.strategy == "restart" and s.candidates == REFERENCE]
    best = max(yardsticks, key=lambda setting: (rows[setting].compliance, -rows[setting].cost))
    yardstick = rows[best]
    as_good = [setting for setting in rows if rows[setting].compliance >= yardstick.compliance]
    cheapest = min(as_good, key=lambda setting: rows[setting].cost)
    row = rows[cheapest]
    points = 100 * (row.right - yardstick.right)
    return {
        "nfe_share_at_equal_compliance": row.cost / yardstick.cost,
        "equal_compliance": {
            "setting": _named(cheapest),
            "nfe": row.cost,
            "compliance": row.compliance,
            "yardstick": _named(best),
            "yardstick_nfe": yardstick.cost,
            "yardstick_compliance": yardstick.compliance,
            "points": float(points.mean()),
            "ci": list(bootstrap_mean(points)),
        },
    }


def _pooled(tables: Sequence[SceneTable], chooser: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(score, right) of every candidate that has a score."""
    pairs = [
        (score, right)
        for table in tables
        for score, right in zip(table.scores[chooser][key], table.right, strict=True)
        if score is not None
    ]
    return np.array([one for one, _ in pairs]), np.array([float(one) for _, one in pairs])


def _auc(scores: np.ndarray, right: np.ndarray) -> float | None:
    return area_under_roc(scores[right == 0], scores[right == 1]) if 0 < right.sum() < right.size else None


def _within(tables: Sequence[SceneTable], chooser: str, key: str) -> float | None:
    """The mean over the scenes that have both right and wrong edits."""
    values = [_auc(*_pooled([table], chooser, key)) for table in tables]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _named(plan: Plan) -> dict[str, Any]:
    return {"strategy": plan.strategy, "candidates": plan.candidates, "preview_steps": plan.preview_steps}
