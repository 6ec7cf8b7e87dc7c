"""Who chose whom: the experts of each set by kind of edit, and the samples on which two sets chose different ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from careedit_eval.results import EditLine, Table
from careedit_eval.runs import Run

MOST = 20
"""The maximum number of pairs of choices that are listed; the others are counted."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The experts of one set."""

    arm: str
    """The name of the set."""
    experts: tuple[str, ...]
    """The experts that it used, the most frequent first."""
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    """For each kind of edit, the number of edits with each expert as the first choice; all kinds together first."""


@dataclass(frozen=True, slots=True)
class Switch:
    """The samples on which A's router chose one expert and B's another."""

    a: str
    """The first choice of set A."""
    b: str
    """The first choice of set B."""
    edits: int
    """The number of edits with this pair of choices."""
    kinds: str
    """The kinds of edit, the most frequent first, with their counts."""
    before: float | None
    """The mean of the primary number of A on these edits; None if no edit has one on both sides."""
    after: float | None
    """The mean of the primary number of B on the same edits."""
    samples: tuple[str, ...]
    """The ids of the first samples."""


@dataclass(frozen=True, slots=True)
class Switches:
    """How two sets routed one benchmark."""

    benchmark: str
    """The name of the benchmark."""
    same: int
    """The number of edits with the same first choice."""
    edits: int
    """The number of edits of which both choices are known."""
    found: tuple[Switch, ...]
    """The different choices, the most frequent first."""
    left_out: int
    """The number of further pairs of choices."""


def first_choice(line: EditLine) -> str:
    """The expert with the largest weight, from "erase 0.70, style 0.30"; empty if the edit has no trace."""
    weights = (part.rpartition(" ") for part in line.experts.split(", ") if part)
    return max(weights, key=lambda part: float(part[2]), default=("", "", ""))[0]


def usage_of(table: Table, benchmark: str, arm: str) -> Usage | None:
    """The experts of a set by kind; None if no edit of it says which it used."""
    chosen = [(line.kind, first) for line in table.edits_of(benchmark, arm).values() if (first := first_choice(line))]
    if not chosen:
        return None
    experts = tuple(name for name, _ in Counter(first for _, first in chosen).most_common())
    counts = Counter(chosen)
    kinds = sorted({kind for kind, _ in chosen})
    rows = [(kind, tuple(counts[kind, name] for name in experts)) for kind in kinds]
    return Usage(arm, experts, (("all", tuple(map(sum, zip(*(row for _, row in rows), strict=True)))), *rows))


def switches_of(run: Run, a: str, b: str) -> list[Switches]:
    """Where two sets chose different experts, per benchmark with known choices of both."""
    found = []
    for benchmark in run.table.benchmarks:
        left, right = (run.table.edits_of(benchmark, arm) for arm in (a, b))
        both = [(one, right[pair]) for pair, one in left.items() if pair in right]
        known = [(first_choice(one), first_choice(other), other) for one, other in both]
        known = [one for one in known if one[0] and one[1]]
        groups: dict[tuple[str, str], list[EditLine]] = {}
        for before, after, line in known:
            if before != after:
                groups.setdefault((before, after), []).append(line)
        if known:
            ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
            switches = tuple(_switch(run, benchmark, (a, b), names, lines) for names, lines in ordered[:MOST])
            same = len(known) - sum(map(len, groups.values()))
            found.append(Switches(benchmark, same, len(known), switches, max(0, len(ordered) - MOST)))
    return found


def _switch(
    run: Run, benchmark: str, arms: tuple[str, str], names: tuple[str, str], lines: Sequence[EditLine]
) -> Switch:
    columns = [run.table.column(benchmark, arm, run.record.suite.primary) for arm in arms]
    pairs = [(line.sample_id, line.seed) for line in lines]
    values = [
        (before.value, after.value)
        for pair in pairs
        if (before := columns[0].get(pair)) is not None and (after := columns[1].get(pair)) is not None
        if before.value is not None and after.value is not None
    ]
    kinds: Mapping[str, int] = Counter(line.kind for line in lines)
    said = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    samples = tuple(dict.fromkeys(line.sample_id for line in lines))
    means = [mean(side) for side in zip(*values, strict=True)] if values else [None, None]
    return Switch(*names, len(lines), said, means[0], means[1], samples[:3])
