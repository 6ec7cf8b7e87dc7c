"""The common parts of all benchmark documents: goals with their verdicts, and the computing environment."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Literal

import diffusers
import peft
import torch

from careedit.editing import Family


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that a figure of a benchmark should keep. A missed goal is reported; it does not fail the command."""

    kind: Literal["at most", "at least", "above"]
    """Which side of the bound is good."""
    bound: float
    """The limit, in the figure's unit. A value equal to it meets the goal, except for the kind "above"."""

    def met_by(self, value: float) -> bool:
        """Whether `value` meets the goal."""
        if self.kind == "above":
            return value > self.bound
        return value <= self.bound if self.kind == "at most" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"

    def verdict(self, value: float | None) -> dict[str, Any]:
        """The goal, the value and whether it is met, as a document states it; null for what was not measured."""
        met = None if value is None else self.met_by(value)
        return {"goal": str(self), "bound": self.bound, "value": value, "met": met}


def environment(base: Family) -> dict[str, Any]:
    """What computes: threads, device, number format and versions of the libraries."""
    return {
        "threads": torch.get_num_threads(),
        "device": base.device.type,
        "dtype": str(base.dtype).removeprefix("torch."),
        **versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that compute."""
    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "peft": peft.__version__,
        "python": platform.python_version(),
    }
