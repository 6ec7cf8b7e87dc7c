"""A claim of the papers: what it says, how it is measured here, and the rule that decides whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from careedit.bench.report import Goal
from careedit.errors import CareEditError
from careedit.files import json_digest

if TYPE_CHECKING:
    from careedit_tiny.evaluation.claims.setting import Setting

Unit = Literal["share", "points", "ratio", "number"]
"""What a figure counts: a share from 0 to 1, percentage points, a ratio, or a plain number."""
Outcome = Literal["holds", "does not hold here", "undecided", "not measured"]
"""The verdict on a claim. "undecided" means that the interval is too wide for either answer."""


class NotMeasuredError(CareEditError):
    """A claim that this expert set or this run does not allow to measure; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number with its interval."""

    value: float
    """The estimate, in its unit."""
    low: float | None
    """Lower end of the interval. None for too few scenes to give one."""
    high: float | None
    """Upper end of the interval. None for too few scenes to give one."""
    n: int
    """The number of scenes or repeats behind the figure."""
    unit: Unit = "share"
    """What the figure counts. Default: a share."""

    def __str__(self) -> str:
        return f"{_number(self.value, self.unit)} ({self.interval}; n = {self.n})"

    @property
    def interval(self) -> str:
        """The interval in words, such as "1.2 % to 3.4 %"."""
        if self.low is None or self.high is None:
            return "no interval"
        return f"{_number(self.low, self.unit)} to {_number(self.high, self.unit)}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A bound that one figure must keep if the claim holds."""

    figure: str
    """The name of the figure in `Finding.figures`."""
    goal: Goal
    """The bound, in the figure's unit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the measurement of a claim found."""

    figures: Mapping[str, Figure]
    """Figures by a name that says what they are, the important ones first."""
    columns: Sequence[str] = ()
    """Headings of the table of details. Default: no table."""
    rows: Sequence[Sequence[str]] = ()
    """Rows of the table of details, as text."""
    budget: str = ""
    """What was trained for how many steps, for a claim that needs training."""
    picture: str | None = None
    """File name of a plot in the folder of the run's pictures. None: no plot."""
    unmeasured: str = ""
    """Why the figure that decides does not exist, although others were measured. Default: it exists."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a claim."""

    outcome: Outcome
    """The answer in a word or two."""
    reason: str
    """The answer in a sentence."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its test."""

    id: int
    """The number by which `--claims` names it."""
    title: str
    """Its name in a word or two."""
    statement: str
    """What the claim says, as a sentence."""
    source: str
    """The paper and its section."""
    stated: str
    """The number that the claim is known by, and where that number comes from."""
    method: str
    """How it is measured here."""
    conditions: tuple[Condition, ...]
    """What must be true of the figures if the claim holds. The page's table shows these figures."""
    measure: Callable[[Setting], Finding]
    """Measures the claim's figures. Raises `NotMeasuredError`."""
    trains: bool = False
    """Whether it trains LoRAs and so takes a share of the training budget. Default: no."""
    version: int = 1
    """Raise it when the same set would give other figures: stored findings of older versions are measured again."""

    @property
    def digest(self) -> str:
        """A hash of the test, which a stored finding must match."""
        return json_digest([self.id, self.version, [(one.figure, str(one.goal)) for one in self.conditions]])


def decide(conditions: Sequence[Condition], finding: Finding) -> Verdict:
    """The verdict on a claim from the intervals of what was found.

    A condition is met if the whole interval keeps the bound, and missed if the whole interval breaks it. A claim holds if
    all conditions are met, and does not hold here if one is missed.
    """
    if finding.unmeasured:
        return Verdict("not measured", finding.unmeasured)
    met, missed, open_ = list[str](), list[str](), list[str]()
    for condition in conditions:
        figure, goal = finding.figures[condition.figure], condition.goal
        sentence = (
            f"{condition.figure}: {_number(figure.value, figure.unit)} ({figure.interval}), {_bound(goal, figure.unit)}"
        )
        if figure.low is None or figure.high is None:
            open_.append(sentence)
            continue
        ends = {goal.met_by(figure.low), goal.met_by(figure.high)}
        (met if ends == {True} else missed if ends == {False} else open_).append(sentence)
    if missed:
        return Verdict("does not hold here", f"The interval breaks the bound. {'; '.join(missed)}.")
    if open_:
        return Verdict("undecided", f"An interval does not decide; measure more scenes. {'; '.join(open_)}.")
    return Verdict("holds", f"The interval keeps the bound. {'; '.join(met)}.")


def _bound(goal: Goal, unit: Unit) -> str:
    return f"{goal.kind} {_number(goal.bound, unit)}"


def _number(value: float, unit: Unit) -> str:
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "points":
        return f"{value:+.1f} points"
    return f"{value:.2f}x" if unit == "ratio" else f"{value:.4g}"
