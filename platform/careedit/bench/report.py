"""What a run of the benchmark says: ratios, goals, verdicts, and everything that they were computed from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import diffusers
import peft
import torch

from careedit.bench.subject import Subject
from careedit.bench.timing import Comparison
from careedit.editing import EditorBase

VERSION = 1
"""Of the document that `Report.document` gives."""

MEMORY = "memory_share_per_expert"
"""The one figure that is counted, not timed."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that a figure should keep."""

    kind: Literal["at most", "at least", "above"]
    """Which side is good."""
    bound: float
    """The bound itself still meets the goal, but not where the value must lie above it."""

    def met_by(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
        if self.kind == "above":
            return value > self.bound
        return value <= self.bound if self.kind == "at most" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"


GOALS: Mapping[str, Goal] = {
    "switch_ratio_shared": Goal("at most", 1.05),
    "mixed_batch_speedup": Goal("at least", 2.0),
    MEMORY: Goal("at most", 0.03),
    "loop_over_pipeline": Goal("at most", 1.0),
}
"""What is aimed at; a figure that is not here is told without a verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure against its goal."""

    value: float
    """The figure."""
    goal: Goal
    """What was aimed at."""

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.goal.met_by(self.value)


@dataclass(frozen=True)
class Report:
    """One run."""

    environment: Mapping[str, Any]
    """What was measured, with what."""
    comparisons: Mapping[str, Comparison]
    """The timed ratios."""
    shares: Mapping[str, float]
    """Weights per expert over the base's: `flux`, `subject`, `subject_rank_32`."""

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name."""
        return {name: comparison.ratio for name, comparison in self.comparisons.items()} | {MEMORY: self.shares["flux"]}

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Of each figure that has a goal."""
        return {name: Verdict(value, GOALS[name]) for name, value in self.figures.items() if name in GOALS}

    def document(self) -> dict[str, Any]:
        """As JSON: the figures at the top level, then goals, details and environment."""
        details: dict[str, Any] = {name: _detail(comparison) for name, comparison in self.comparisons.items()}
        details[MEMORY] = dict(self.shares)
        goals = {
            name: {"goal": str(verdict.goal), "bound": verdict.goal.bound, "value": verdict.value, "met": verdict.met}
            for name, verdict in self.verdicts.items()
        }
        return {
            "version": VERSION,
            **self.figures,
            "goals": goals,
            "details": details,
            "environment": dict(self.environment),
        }


def describe(subject: Subject, *, repeats: int, steps: int, batch: int) -> dict[str, Any]:
    """What was measured and with what, without naming the machine. To be called with the measured number of threads."""
    return {
        "expert_set": subject.name,
        "experts": len(subject.library.names),
        "base_parameters": subject.shapes.count,
        "panel": subject.panel,
        "steps": steps,
        "batch": batch,
        "repeats": repeats,
        **environment(subject.base),
    }


def environment(base: EditorBase) -> dict[str, Any]:
    """What computes: threads, device, number format and versions."""
    return {
        "threads": torch.get_num_threads(),
        "device": base.device.type,
        "dtype": str(base.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "peft": peft.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def _detail(comparison: Comparison) -> dict[str, Any]:
    low, high = comparison.spread
    return {
        "what": comparison.what,
        "over": comparison.over,
        "seconds": [lap.seconds for lap in comparison.laps],
        "over_seconds": [lap.seconds for lap in comparison.over_laps],
        "ratios": list(comparison.ratios),
        "spread": {"low": low, "high": high},
        "cpu_ratio": comparison.cpu_ratio,
        "cpu_seconds": [lap.cpu_seconds for lap in comparison.laps],
        "over_cpu_seconds": [lap.cpu_seconds for lap in comparison.over_laps],
    }
