"""The tables of means: numbers and kinds as rows, sets as columns, with as many digits as tell the sets apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from careedit_eval.compare import Mean
from careedit_eval.compare.differences import ALL
from careedit_eval.compare.words import digits_for, numbers
from careedit_eval.records import Output
from careedit_eval.runs import BenchmarkFacts, Run

REFERENCE = ("identity", "truth", "base", "best_single", "unified", "oracle")
"""Rows of a suite, which are shown after its sets, in this order."""
NAMES = {
    "identity": "identity (no edit)",
    "truth": "truth (the target itself)",
    "base": "base alone",
    "best_single": "best single expert",
    "unified": "unified LoRA",
    "oracle": "oracle routing",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """The mean of one set."""

    mean: str
    """The mean, or a dash."""
    interval: str
    """The 95 % interval; empty without one."""
    n: int
    """The number of rows with a number."""
    errors: int
    """The number of rows with an error instead."""
    unread: int
    """The number of these that are replies of a judge that cannot be read."""


@dataclass(frozen=True, slots=True)
class Row:
    """One mean of every set."""

    label: str
    """The kind of mean, "micro" or "macro", or the kind of edit."""
    cells: tuple[Cell | None, ...]
    """One cell per set; None where the set does not have the number."""
    n: int | None
    """The number of rows, if all sets have as many; else the cells show it."""


@dataclass(frozen=True, slots=True)
class Means:
    """One number: its means over samples and over kinds, and those of each kind."""

    output: Output
    """The number that the means are of."""
    whole: tuple[Row, ...]
    """The mean over samples and, with several kinds, the mean over kinds."""
    kinds: tuple[Row, ...]
    """The mean of each kind; empty with one kind."""


@dataclass(frozen=True, slots=True)
class MeansTable:
    """The means of one benchmark."""

    facts: BenchmarkFacts
    """The facts about the benchmark in the run."""
    sets: tuple[tuple[str, bool], ...]
    """The names of the columns, and whether each is a set of the suite or compared."""
    numbers: tuple[Means, ...]
    """The numbers, in the order of the metrics."""

    @property
    def owned(self) -> list[int]:
        """The indices of the columns that are sets, not reference rows."""
        return [index for index, (_, own) in enumerate(self.sets) if own]


def means_table(run: Run, means: Sequence[Mean], benchmark: str, compared: Sequence[str] = ()) -> MeansTable:
    """The means of one benchmark, first the sets of the suite and the `compared` ones."""
    arms = run.table.arms(benchmark)
    own = [arm.name for arm in run.record.suite.sets if arm.name in arms]
    own += [arm for arm in compared if arm in arms and arm not in own]
    singles = sorted(arm for arm in arms if arm.startswith("single/"))
    rows = [arm for arm in REFERENCE if arm in arms and arm not in own]
    order = [*own, *rows, *singles]
    cells = {(one.output, one.kind, one.arm): one for one in means if one.benchmark == benchmark}
    kinds = run.table.kinds(benchmark)
    found = []
    for output in run.record.outputs.values():
        whole = [cells.get((output.name, ALL, arm)) for arm in order]
        if not any(whole):
            continue
        lines = [_row("micro" if len(kinds) > 1 else "mean", whole)]
        if any(one is not None and one.kinds > 1 for one in whole):
            lines.append(_macro(whole))
        by_kind = [_row(kind, [cells.get((output.name, kind, arm)) for arm in order]) for kind in kinds]
        found.append(Means(output, tuple(lines), tuple(by_kind) if len(kinds) > 1 else ()))
    facts = next(one for one in run.record.benchmarks if one.name == benchmark)
    return MeansTable(facts, tuple((arm, arm in own) for arm in order), tuple(found))


def unread_replies(means: Sequence[Mean]) -> Mapping[str, int]:
    """The number of replies of judges that cannot be read, by set; sets without any are left out."""
    found: dict[str, int] = {}
    for one in means:
        if one.kind == ALL and one.unread:
            found[one.arm] = found.get(one.arm, 0) + one.unread
    return found


def _row(label: str, means: Sequence[Mean | None]) -> Row:
    counts = {one.n for one in means if one is not None}
    texts = numbers(one.mean if one is not None else None for one in means)
    cells = (
        None if one is None else Cell(text, _interval(one, text), one.n, one.errors, one.unread)
        for one, text in zip(means, texts, strict=True)
    )
    return Row(label, tuple(cells), next(iter(counts)) if len(counts) == 1 else None)


def _macro(means: Sequence[Mean | None]) -> Row:
    texts = numbers(one.macro if one is not None else None for one in means)
    cells = (None if one is None else Cell(text, "", 0, 0, 0) for one, text in zip(means, texts, strict=True))
    most = max(one.kinds for one in means if one is not None)
    return Row(f"macro, {most} kinds", tuple(cells), 0)


def _interval(one: Mean, text: str) -> str:
    """The ends, with two digits of the interval's width and at most those of the mean."""
    if one.interval is None or one.interval.low == one.interval.high:
        return ""
    digits = min(len(text.partition(".")[2]) or 2, digits_for(one.interval.high - one.interval.low) - 1)
    return f"{one.interval.low:,.{digits}f} to {one.interval.high:,.{digits}f}"
