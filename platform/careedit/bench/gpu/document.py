"""The document of `careedit bench gpu`: figures and goals from the cases that were measured, and the planner's seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from careedit.bench.report import Goal, versions

VERSION = 1
"""Version of the document that `make_document` returns."""
KIND = "bench gpu"
"""Value of the document's field `kind`, by which the planner knows it."""

GOALS: Mapping[str, Goal] = {
    "loop_over_stock": Goal("at most", 0.85),
    "mixed_over_merged": Goal("at least", 0.9),
    "share_of_peak": Goal("at least", 0.55),
}
"""Goal of each figure by its name."""

PEAK_BATCH = "4"
"""Number of rows at which the share of the peak is judged."""

Cases = Mapping[str, Mapping[str, Any]]


def make_document(
    settings: Mapping[str, Any], cases: Cases, names: Sequence[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """The document of a run that has finished `cases`, of all its cases `names`. What is not known is null."""
    every = {name: cases.get(name, {"state": "not measured", "reason": "the run ended before it"}) for name in names}
    figures = figures_of(every)
    return {
        "version": VERSION,
        "kind": KIND,
        "family": settings["family"],
        "reduced": settings["reduced"],
        "figures": figures,
        "goals": {name: _judged(name, figures[name], every, settings["reduced"]) for name in GOALS},
        "profile": None if settings["reduced"] else profile_of(every),
        "cases": every,
        "settings": dict(settings),
        "environment": {
            "device": device.type,
            "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "dtype": str(dtype).removeprefix("torch."),
            **versions(),
        },
    }


def figures_of(cases: Cases) -> dict[str, float | None]:
    """The figures by name; null for what was not measured. With compiled blocks where they were measured."""
    edit, compiled = cases["edit"], cases["compiled"]
    best = _best(cases)
    merged = best.get("step_s", {}) if best is compiled else {}
    one = merged.get(max(merged, key=int)) if merged else cases["merged"].get("batch_s")
    slots = cases["compiled_slots"] if merged else cases["slots"]
    peak, work = cases["peak"].get("tflop_per_s"), cases["steps"].get("tflop_per_row")
    step = best.get("step_s", {}).get(PEAK_BATCH)
    rate = None if work is None or step is None else int(PEAK_BATCH) * work / step
    return {
        "loop_over_stock": _ratio(compiled.get("edit_s", edit.get("edit_s")), edit.get("stock_edit_s")),
        "mixed_over_merged": _ratio(one, slots.get("batch_s")),
        "share_of_peak": _ratio(rate, peak),
        "eager_loop_over_stock": _ratio(edit.get("edit_s"), edit.get("stock_edit_s")),
        "compiled_stock_over_stock": _ratio(compiled.get("stock_edit_s"), edit.get("stock_edit_s")),
        "eager_mixed_over_merged": _ratio(cases["merged"].get("batch_s"), cases["slots"].get("batch_s")),
        "peft_over_slots": _ratio(cases["peft_and_spans"].get("peft_s"), slots.get("batch_s")),
        "spans_over_slots": _ratio(cases["peft_and_spans"].get("spans_s"), slots.get("batch_s")),
        "fp8_over_steps": _ratio(_largest(cases["fp8"]), _largest(cases["steps"])),
        "step_cache_over_all_steps": cases["step_cache"].get("ratio"),
    }


def profile_of(cases: Cases) -> dict[str, Any] | None:
    """The seconds that `careedit plan --measured` takes, and how the blocks ran; null without steps and edits."""
    best, edit = _best(cases), cases["edit"]
    times = {int(rows): seconds for rows, seconds in best.get("step_s", {}).items()}
    if 1 not in times or "encode_s" not in edit:
        return None
    most, rows = max(times), edit["edit_rows"]
    growth = times[most] / times[1]
    fixed = 0.0 if most == 1 else min(1.0, max(0.0, (most - growth) / (most - 1)))
    mixed = figures_of(cases)["mixed_over_merged"]
    return {
        "step_s": times.get(rows, rows * times[1]),
        "fixed": fixed,
        "encode_s": edit["encode_s"],
        "decode_s": edit["decode_s"],
        "shared_ratio": None if mixed is None else max(1.0, 1 / mixed),
        "blocks": "compiled" if best is cases["compiled"] else "eager",
    }


def _largest(case: Mapping[str, Any]) -> float | None:
    """Seconds of a step with the most rows."""
    times = case.get("step_s", {})
    return times[max(times, key=int)] if times else None


def _best(cases: Cases) -> Mapping[str, Any]:
    """The case with the steps that count: with compiled blocks where they were measured."""
    return cases["compiled"] if cases["compiled"]["state"] == "measured" else cases["steps"]


def _judged(name: str, value: float | None, cases: Cases, reduced: bool) -> dict[str, Any]:
    needed = {"loop_over_stock": "edit", "mixed_over_merged": "slots", "share_of_peak": "steps"}[name]
    reason = None
    if reduced:
        value, reason = None, "the reduced form says nothing about speed"
    elif value is None:
        reason = cases[needed]["reason"] or f"no batch of {PEAK_BATCH} was measured"
    verdict = GOALS[name].verdict(value)
    state = {True: "met", False: "not met", None: "not measured"}[verdict["met"]]
    return {**verdict, "state": state, "reason": reason}


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below
