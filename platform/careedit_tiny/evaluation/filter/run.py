"""One run of `careedit eval filter`: measure what is missing, look up every setting, and compare figures with the goals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from careedit.bench.report import Goal
from careedit.editing.base_model import use_threads
from careedit_tiny.evaluation.common import Aim, figure, run_facts, verdicts
from careedit_tiny.evaluation.filter.measure import CLIP, CLIP_CAPTION, JUDGE, FilterBench
from careedit_tiny.evaluation.filter.rows import gain_section, judge_section, rows_of, share_section

VERSION = 1
"""The version of the document's layout."""

GOALS: Mapping[str, Aim] = {
    "judge_auc_final": Aim(Goal("at least", 0.95), figure("judge", "auc_final")),
    "judge_auc_preview": Aim(Goal("at least", 0.85), figure("judge", "auc_preview")),
    "judge_order_consistency": Aim(Goal("at least", 0.95), figure("judge", "order_consistency")),
    "nfe_share_at_equal_compliance": Aim(Goal("at most", 0.6), figure("nfe_share_at_equal_compliance")),
    "lift_over_single": Aim(Goal("at least", 5.0), figure("lift_over_single", "points")),
    "lift_over_single_low": Aim(Goal("above", 0.0), figure("lift_over_single", "ci", 0)),
    "gap_recovered": Aim(Goal("at least", 0.6), figure("gap_recovered")),
}
"""The goals of the tiny family. Either the lift or the recovered gap is enough."""


def measure_filter(bench: FilterBench, *, threads: int | None = None) -> dict[str, Any]:
    """Measure the early filter of an expert set. Scenes in `bench.cache` are not denoised again. Raises `InputError`."""
    with use_threads(threads), torch.no_grad():
        return _document(bench)


def _document(bench: FilterBench) -> dict[str, Any]:
    started = time.perf_counter()
    tables, plan = bench.tables(), bench.plan
    document: dict[str, Any] = {
        "version": VERSION,
        "rows": [row.document() for row in rows_of(tables, plan)],
        "judge": judge_section(tables, plan),
        **gain_section(tables, plan),
        **share_section(tables, plan),
        "clip": {
            name: {**judge_section(tables, plan, name), **gain_section(tables, plan, name)}
            for name in (CLIP, CLIP_CAPTION)
        },
        "missing": {
            name: f"No {what} was given, so its rows are left out."
            for name, what in ((JUDGE, "judge"), (CLIP, "CLIP"))
            if name not in tables[0].scores
        },
    }
    document["goals"] = verdicts(document, GOALS)
    document["environment"] = run_facts(
        bench.editor,
        time.perf_counter() - started,
        judge=None if bench.judge is None else bench.judge.identity.model_dump(),
        clip=None if bench.encoder is None else bench.encoder_name,
        n=len(tables),
        seed=plan.seed,
        steps=plan.steps,
        noises=plan.most,
    )
    return document
