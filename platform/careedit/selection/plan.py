"""From what a request asks for to the looks that it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from careedit.errors import InputError
from careedit.records import EarlyFilter
from careedit.selection.base import Look, Plan, Strategy
from careedit.selection.continuing import Continue
from careedit.selection.halving import Halving
from careedit.selection.none import NoFilter
from careedit.selection.restart import Restart

STRATEGIES: Mapping[str, Strategy] = {
    "none": NoFilter(),
    "restart": Restart(),
    "continue": Continue(),
    "halving": Halving(),
}
"""By the name that a request gives."""


def make_plan(wanted: EarlyFilter, steps: int) -> Plan:
    """The looks of a filter for an edit of `steps` steps; its `cost` is what a run without early exit spends exactly.

    With an early exit, a strategy that looks only once looks half-way too, where only a clearly good candidate counts.
    Raises `InputError` where a preview would take as many steps as the edit.
    """
    strategy = STRATEGIES[wanted.strategy]
    if wanted.strategy == "none" or wanted.candidates == 1:  # nothing to choose from
        return Plan(wanted.strategy, 1, 0, steps, ())
    last = max(1, steps // 4) if wanted.preview_steps is None else wanted.preview_steps
    if last >= steps:
        raise InputError(
            f"preview_steps is {last} and the edit has {steps} step{'' if steps == 1 else 's'}; "
            "the filter must look before the end, so give fewer preview steps or more steps.",
            field="preview_steps",
        )
    looks = strategy.looks(wanted.candidates, last)
    if wanted.early_exit is not None and len(looks) == 1 and last > 1:
        looks = (Look(ceil(last / 2), wanted.candidates), *looks)
    return Plan(wanted.strategy, wanted.candidates, last, steps, looks, strategy.restarts, wanted.early_exit)
