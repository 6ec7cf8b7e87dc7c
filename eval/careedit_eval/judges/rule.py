"""The rule of a suite for the judge of its primary number: a judge below a floor decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from careedit.errors import InputError
from careedit_eval.judges.check import JudgeCheck
from careedit_eval.records import MetricSpec
from careedit_eval.suite import JudgeRule, Suite

FOLDER = "judges"
"""The folder of checks in the folder of evaluations."""
AGAIN = "`careedit eval judge-check SUITE --votes FILE --run RUN` (or `--pairs PATH`)"


@dataclass(frozen=True)
class Ruling:
    """Whether a judge meets the rule."""

    outcome: Literal["pass", "below", "inconclusive"]
    """Whether every floor is met, a figure is below its floor, or a figure has too few groups."""
    reason: str = ""
    """The figure and the floor, as a part of a sentence; empty for "pass"."""


def file_of(out: Path, key: str, number: str) -> Path:
    """The file of the latest check of a judge in the folder of evaluations."""
    return out / FOLDER / f"{number}-{key[:16]}.json"


def ruling_of(rule: JudgeRule, check: JudgeCheck) -> Ruling:
    """What the rule says about a checked judge. A figure below its floor counts before one with too few groups."""
    few: list[str] = []
    for name, floor in rule.floors.items():
        figure = check.figures[name]
        if figure.value is None or figure.groups < rule.min_groups:
            why = f" ({figure.note.rstrip('.')})" if figure.value is None and figure.note else ""
            few.append(f"{name} has {figure.groups} groups of edits, of {rule.min_groups} that it needs{why}")
        elif figure.value < floor:
            return Ruling("below", f"{name} is {figure.value:.3f}, below the floor of {floor:g}")
    if rule.max_self_preference is not None:
        figure = check.figures["self_preference"]
        if figure.value is None or figure.groups < rule.min_groups:
            few.append(f"self_preference has {figure.groups} groups of edits, of {rule.min_groups} that it needs")
        elif figure.value > rule.max_self_preference:
            return Ruling("below", f"self_preference is {figure.value:+.3f}, above {rule.max_self_preference:g}")
    return Ruling("inconclusive", few[0]) if few else Ruling("pass")


def require_judge(suite: Suite, specs: Sequence[MetricSpec], *, folder: Path, out: Path) -> None:
    """Raise `InputError` unless the judge of the suite's primary number meets the suite's rule, if it has one.

    `folder` is the folder of the suite's file, `out` the folder of evaluations.
    """
    rule, number = suite.judge, suite.primary
    if rule is None:
        return
    spec = next(spec for spec in specs if any(one.name == number for one in spec.outputs))
    file = folder / rule.check if rule.check is not None else file_of(out, spec.key, number)
    if rule.check is None and not file.is_file():
        raise InputError(
            f"{number} cannot be the primary number, because the suite states floors for its judge and the judge was never "
            f"checked; check it with {AGAIN}."
        )
    check = JudgeCheck.read(file)
    if (check.metric_key, check.number) != (spec.key, number):
        raise InputError(
            f"{number} cannot be the primary number, because the check in {file} is of another judge ({check.number} by "
            f"{check.metric.backbone}); check this one with {AGAIN}."
        )
    ruling = ruling_of(rule, check)
    if ruling.outcome != "pass":
        raise InputError(
            f"{number} cannot be the primary number: of its judge ({spec.backbone}), {ruling.reason}; use another judge, or "
            f"repeat the check with {AGAIN}."
        )
