"""What is aimed at on the test split, and what was reached, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from careedit.bench.report import Goal

Document = Mapping[str, Any]
Read = Callable[[Document], float | None]


@dataclass(frozen=True)
class QualityGoal:
    """A bound, the figure that it is for, and what that figure needs."""

    goal: Goal
    """The bound."""
    read: Read
    """The figure in a report's document; None where it could not be measured."""
    needs: tuple[str, ...] = ("learned_top1",)
    """Keys of `missing` that explain why it could not."""


def _at(*path: str | int) -> Read:
    def read(document: Document) -> float | None:
        value: Any = document
        for key in path:
            if value is None:
                return None
            value = value[key]
        return None if value is None else float(value)

    return read


def _least_kind(document: Document) -> float | None:
    row = document["rows"]["learned_top1"]
    return None if row is None else min(kind["compliance"] for kind in row["by_kind"].values())


GOALS: Mapping[str, QualityGoal] = {
    "compliance": QualityGoal(Goal("at least", 0.85), _at("rows", "learned_top1", "compliance")),
    "compliance_of_each_kind": QualityGoal(Goal("at least", 0.65), _least_kind),
    "preservation_error": QualityGoal(Goal("at most", 0.015), _at("rows", "learned_top1", "preservation_error")),
    "learned_minus_unified": QualityGoal(
        Goal("at least", 8.0), _at("learned_minus_unified", "points"), ("learned_top1", "unified")
    ),
    "learned_minus_unified_low": QualityGoal(
        Goal("above", 0.0), _at("learned_minus_unified", "ci", 0), ("learned_top1", "unified")
    ),
    "router_accuracy_seen": QualityGoal(Goal("at least", 0.97), _at("router", "accuracy_seen"), ("router",)),
    "router_accuracy_held_out": QualityGoal(Goal("at least", 0.93), _at("router", "accuracy_held_out"), ("router",)),
    "router_ece": QualityGoal(Goal("at most", 0.03), _at("router", "ece"), ("router",)),
    "router_gap_recovered": QualityGoal(Goal("at least", 0.9), _at("router", "gap_recovered"), ("router",)),
    "infeasible_recall": QualityGoal(Goal("at least", 0.9), _at("router", "infeasible_recall"), ("router",)),
    "infeasible_false_alarm": QualityGoal(Goal("at most", 0.02), _at("router", "infeasible_false_alarm"), ("router",)),
    "chains_all_turns_right": QualityGoal(Goal("at least", 0.6), _at("chains", "all_turns_right"), ("chains",)),
    "chains_drift_ratio": QualityGoal(Goal("at most", 2.0), _at("chains", "drift_ratio"), ("chains",)),
    "reference_right_attribute": QualityGoal(
        Goal("at least", 0.75), _at("reference", "right_attribute"), ("reference",)
    ),
    "identity_drifted": QualityGoal(Goal("at most", 0.02), _at("identity_edits", "drifted"), ("identity_edits",)),
}
"""The goals of the tiny family, in the order in which they are told."""


def verdicts(document: Document) -> dict[str, dict[str, Any]]:
    """Bound, value and verdict of every goal; a figure that could not be measured meets and misses nothing, with why."""
    told: dict[str, dict[str, Any]] = {}
    for name, one in GOALS.items():
        value = one.read(document)
        entry: dict[str, Any] = {"goal": str(one.goal), "bound": one.goal.bound, "value": value}
        if value is None:
            reasons = [document["missing"][key] for key in one.needs if key in document["missing"]]
            entry |= {"met": None, "reason": reasons[0] if reasons else "There was nothing to measure it on."}
        else:
            entry["met"] = one.goal.met_by(value)
        told[name] = entry
    return told
