"""One run of the filter benchmark: measure what is missing, look every setting up, say what the goals came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from careedit.bench.report import Goal, environment
from careedit.bench.timing import use_threads
from careedit.stats import LEVEL, RESAMPLES
from careedit_tiny.bench.filter.findings import gain_section, judge_section, share_section
from careedit_tiny.bench.filter.measure import CLIP, CLIP_CAPTION, JUDGE, FilterBench
from careedit_tiny.bench.filter.rows import rows_of

VERSION = 1
"""Of the document."""

Document = Mapping[str, Any]

GOALS: Mapping[str, tuple[Goal, Callable[[Document], float | None]]] = {
    "judge_auc_final": (Goal("at least", 0.95), lambda d: d["judge"]["auc_final"]),
    "judge_auc_preview": (Goal("at least", 0.85), lambda d: d["judge"]["auc_preview"]),
    "judge_order_consistency": (Goal("at least", 0.95), lambda d: d["judge"]["order_consistency"]),
    "nfe_share_at_equal_compliance": (Goal("at most", 0.6), lambda d: d["nfe_share_at_equal_compliance"]),
    "lift_over_single": (Goal("at least", 5.0), lambda d: d["lift_over_single"] and d["lift_over_single"]["points"]),
    "lift_over_single_low": (Goal("above", 0.0), lambda d: d["lift_over_single"] and d["lift_over_single"]["ci"][0]),
    "gap_recovered": (Goal("at least", 0.6), lambda d: d["gap_recovered"]),
}
"""What is aimed at; the lift, or the recovered gap: one of the two is enough."""


def bench_filter(bench: FilterBench, *, threads: int | None = None) -> dict[str, Any]:
    """Measure the early filter of a set; what `bench.cache` holds is not denoised again. Raises `InputError`."""
    started = time.perf_counter()
    with use_threads(threads), torch.no_grad():
        tables = bench.tables()
        facts = environment(bench.editor.engine.base)
    plan, expert_set = bench.plan, bench.editor.expert_set
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
    document["goals"] = {name: _verdict(goal, read(document)) for name, (goal, read) in GOALS.items()}
    document["environment"] = {
        "expert_set": expert_set.name,
        "expert_set_version": expert_set.version,
        "expert_set_sha256": expert_set.sha256,
        "router": bench.editor.router.name,
        "judge": None if bench.judge is None else bench.judge.identity.model_dump(),
        "clip": None if bench.encoder is None else bench.encoder_name,
        "n": len(tables),
        "seed": plan.seed,
        "steps": plan.steps,
        "noises": plan.most,
        "interval": LEVEL,
        "resamples": RESAMPLES,
        "run_seconds": time.perf_counter() - started,
        **facts,
    }
    return document


def _verdict(goal: Goal, value: float | None) -> dict[str, Any]:
    met = None if value is None else goal.met_by(value)
    return {"goal": str(goal), "bound": goal.bound, "value": value, "met": met}
