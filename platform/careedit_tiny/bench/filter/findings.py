"""What the table says: how good the judge is, what filtering gains, and at what share of ICEdit's cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from careedit.routing.transformer import calibration_error
from careedit.selection.plan import Plan
from careedit.stats import SEED, area_under_roc, bootstrap_mean
from careedit_tiny.bench.filter.measure import JUDGE
from careedit_tiny.bench.filter.plan import REFERENCE, FilterPlan, look_key
from careedit_tiny.bench.filter.rows import row_of, single_row
from careedit_tiny.bench.filter.table import ORACLE, SceneTable


def judge_section(tables: Sequence[SceneTable], plan: FilterPlan, chooser: str = JUDGE) -> dict[str, Any]:
    """A chooser against the oracle. Truth is always the verdict on the finished edit, for a preview of the same noise.

    `auc_*_within`: pairs of noises of one scene only, the comparison that a filter makes; easy and hard scenes cancel.
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


def gain_section(tables: Sequence[SceneTable], plan: FilterPlan, chooser: str = JUDGE) -> dict[str, Any]:
    """What filtering gains over a single noise.

    The setting is chosen on one half of the scenes and measured on the other, both ways round, so that the best of many
    settings is not flattered by having been picked.
    """
    if chooser not in tables[0].scores or len(tables) < 2:
        return {"lift_over_single": None, "gap_recovered": None}
    rows = {setting: row_of(tables, setting, chooser) for setting in plan.settings}
    bound = {setting: row_of(tables, setting, ORACLE) for setting in plan.settings}
    single = single_row(tables, plan.steps)
    odd = np.random.default_rng(SEED).permutation(len(tables)) % 2 == 1
    got, best = single.right.copy(), single.right.copy()
    settings = []
    for measured in (odd, ~odd):
        picked = max(rows, key=lambda setting: (rows[setting].right[~measured].mean(), -rows[setting].cost))
        got[measured], best[measured] = rows[picked].right[measured], bound[picked].right[measured]
        settings.append(_named(picked))
    points, gap = 100 * (got - single.right), float((best - single.right).mean())
    return {
        "lift_over_single": {"points": float(points.mean()), "ci": list(bootstrap_mean(points)), "settings": settings},
        "gap_recovered": float((got - single.right).mean()) / gap if gap > 0 else None,
    }


def share_section(tables: Sequence[SceneTable], plan: FilterPlan, chooser: str = JUDGE) -> dict[str, Any]:
    """The cheapest setting that is right as often as the best `restart` of six noises, and its share of that one's NFE."""
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
    """(score, right) of every noise that has a score."""
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
    """Mean over the scenes that have both a right and a wrong edit."""
    values = [_auc(*_pooled([table], chooser, key)) for table in tables]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _named(plan: Plan) -> dict[str, Any]:
    return {"strategy": plan.strategy, "candidates": plan.candidates, "preview_steps": plan.preview_steps}
