"""Who chose whom: the experts of each set by kind of edit, what that choice is worth, and where two sets chose differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from careedit_eval.compare.differences import ALL, Difference, difference_of
from careedit_eval.results import EditLine, Table
from careedit_eval.runs import Run
from careedit_eval.stats import Interval
from careedit_eval.stats.information import Permuted, permuted_information

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


@dataclass(frozen=True, slots=True)
class Choice:
    """What a router's choice is worth on one benchmark."""

    benchmark: str
    """The name of the benchmark."""
    arm: str
    """The name of the set."""
    samples: int
    """The number of samples with a known choice."""
    information: Permuted
    """The mutual information of the first choice and the kind of edit, in nats, next to that of shuffled choices."""
    regret: float | None
    """How much better the row "oracle" is in the primary number; None without that row."""
    regret_interval: Interval | None
    """The interval of the regret, over source images."""
    recovered: float | None
    """(own - best single) / (oracle - best single); None without both rows, or if the denominator may be 0."""


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


def choices_of(run: Run) -> list[Choice]:
    """What the choices of the suite's sets are worth, for each benchmark with known choices."""
    arms = [arm.name for arm in run.record.suite.sets]
    return [
        found
        for benchmark in run.table.benchmarks
        for arm in arms
        if (found := _choice(run, benchmark, arm)) is not None
    ]


def _choice(run: Run, benchmark: str, arm: str) -> Choice | None:
    # One row per sample: the router does not see the seed, so further seeds would only repeat its choice.
    rows = {
        line.sample_id: line
        for line in reversed(list(run.table.edits_of(benchmark, arm).values()))
        if first_choice(line)
    }
    if not rows:
        return None
    information = permuted_information(
        [first_choice(line) for line in rows.values()], [line.kind for line in rows.values()]
    )
    output = run.record.outputs[run.record.suite.primary]
    sign = -1.0 if output.better == "lower" else 1.0

    def better(name: str, than: str) -> Difference | None:
        columns = [run.table.column(benchmark, one, output.name) for one in (than, name)]
        found = difference_of(benchmark, output, ALL, *columns)
        return found if found.difference is not None and output.better != "neither" else None

    lost, gap, gained = better("oracle", arm), better("oracle", "best_single"), better(arm, "best_single")
    ends = None if lost is None or lost.interval is None else sorted(sign * end for end in lost.interval)
    recovered = None
    # A share of a gap that may be zero can be any number.
    known = gap is not None and gap.interval is not None and not gap.interval.low <= 0 <= gap.interval.high
    if known and gap and gap.difference and gained is not None and gained.difference is not None:
        recovered = gained.difference / gap.difference
    return Choice(
        benchmark,
        arm,
        len(rows),
        information,
        None if lost is None or lost.difference is None else sign * lost.difference,
        None if ends is None else Interval(*ends),
        recovered,
    )


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
