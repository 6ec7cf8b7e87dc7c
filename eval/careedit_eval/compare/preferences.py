"""The preferences of a pairwise judge: how often it prefers B, how certain that is, and whether it agrees with itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from careedit_eval.records import MetricSpec, Output
from careedit_eval.results import Pair, ScoreLine, Table
from careedit_eval.stats import Clusters, Game, Interval, interval_of_differences, sign_flip_p

CONSISTENT = 0.6
"""If fewer pairs than this share get the same answer in both orders, a judge's preferences are not reliable."""


@dataclass(frozen=True, slots=True)
class Preference:
    """The preference of one pairwise judge between two sets on one benchmark."""

    benchmark: str
    """The name of the benchmark."""
    output: str
    """The name of the number: 1 if B is preferred in both orders, 0 if A is, 0.5 for a tie or if the orders disagree."""
    a: str
    """The name of the set in use."""
    b: str
    """The name of the set that may replace it."""
    share: float
    """The mean of that number: the share of pairs in which B is preferred, with ties as a half."""
    interval: Interval | None
    """The 95 % interval of the share, over source images; None with fewer than two."""
    p: float | None
    """The p value against a share of one half, by random signs of the images; None if all pairs are tied."""
    wins: int
    """The number of pairs in which B is preferred."""
    ties: int
    """The number of pairs without a preference."""
    losses: int
    """The number of pairs in which A is preferred."""
    images: int
    """The number of source images among the pairs."""
    errors: int
    """The number of pairs without a verdict."""
    consistency: float | None
    """The share of pairs with the same answer in both orders; None if the judge does not report it."""

    @property
    def verdict(self) -> str:
        """ "B preferred", "A preferred" or "no preference seen", where interval and test agree at 0.05."""
        inside = self.interval is None or self.interval.low <= 0.5 <= self.interval.high
        if inside or self.p is None or self.p >= 0.05 or self.share == 0.5:
            return "no preference seen"
        return "B preferred" if self.share > 0.5 else "A preferred"

    @property
    def line(self) -> str:
        """The preference in one line."""
        ends = "" if self.interval is None else f" ({self.interval.low:.1%} to {self.interval.high:.1%})"
        orders = "" if self.consistency is None else f", order consistency {self.consistency:.1%}"
        errors = f", {self.errors} errors" if self.errors else ""
        return (
            f"{self.output} on {self.benchmark}: {self.b} preferred to {self.a}: {self.share:.1%}{ends}, W/T/L "
            f"{self.wins}/{self.ties}/{self.losses}, {self.images:,} pictures{orders}{errors}: {self.verdict}"
        )

    @property
    def warning(self) -> str | None:
        """A warning if the judge contradicts itself too often; else None."""
        if self.consistency is None or self.consistency >= CONSISTENT:
            return None
        return (
            f"The judge of {self.output} gives one answer in both orders in only {self.consistency:.1%} of pairs "
            f"(below {CONSISTENT:.0%}): its preferences are mostly of the order. Use another judge."
        )


def preferences_of(table: Table, a: str, b: str, specs: Sequence[MetricSpec]) -> list[Preference]:
    """The preferences of every pairwise judge between two sets, by benchmark; empty if nothing was judged."""
    return [
        found
        for benchmark in table.benchmarks
        for win, consistent in pairwise_outputs(specs)
        if (found := _preference(table, benchmark, a, b, win, consistent)) is not None
    ]


def pairwise_outputs(specs: Sequence[MetricSpec]) -> Iterator[tuple[Output, Output | None]]:
    """For every pairwise metric, the number with the winner and the number with the agreement of both orders."""
    for spec in specs:
        if spec.reference == "rival":
            wins = [one for one in spec.outputs if one.better == "higher"]
            agree = [one for one in spec.outputs if one.better == "neither" and one.passes]
            if wins:
                yield wins[0], next(iter(agree), None)


def games_of(table: Table, output: str) -> list[Game]:
    """All verdicts of a pairwise number, for a ranking. Images of two benchmarks always count as different."""
    return [
        Game(line.arm, line.rival, (1 + np.sign(line.value - 0.5)) / 2, (line.benchmark, line.group))
        for line in table.scores
        if line.output == output and line.rival is not None and line.value is not None
    ]


def _preference(
    table: Table, benchmark: str, a: str, b: str, win: Output, consistent: Output | None
) -> Preference | None:
    column = _either(table, benchmark, a, b, win.name)
    lines = [line for line in column.values() if line.value is not None]
    if not lines:
        return None
    # The table has every two sets once, whichever of them is the rival.
    values = [1 - line.value if line.arm == a else line.value for line in lines if line.value is not None]
    agreed = None if consistent is None else _mean(_either(table, benchmark, a, b, consistent.name))
    errors = len(column) - len(lines)
    return preference_from(values, [line.group for line in lines], benchmark, win.name, a, b, errors, agreed)


def preference_from(
    values: Sequence[float], groups: Sequence[Hashable], benchmark: str, output: str, a: str, b: str,
    errors: int = 0, consistency: float | None = None,
) -> Preference:  # fmt: skip
    """The preference in verdicts [n], 1 for B, 0 for A and 0.5 for a tie, on the source images `groups` [n]; n is not 0."""
    rows = Clusters(np.array(values, np.float64) - 0.5, groups)
    found = interval_of_differences(rows, 0.5)
    up, down = int((rows.values > 0).sum()), int((rows.values < 0).sum())
    return Preference(
        benchmark, output, a, b, 0.5 + rows.mean,
        None if found is None else Interval(max(0.0, 0.5 + found.low), min(1.0, 0.5 + found.high)),
        sign_flip_p(rows.sums), up, len(values) - up - down, down, rows.size, errors, consistency,
    )  # fmt: skip


def _either(table: Table, benchmark: str, a: str, b: str, output: str) -> Mapping[Pair, ScoreLine]:
    return table.column(benchmark, b, output, a) or table.column(benchmark, a, output, b)


def _mean(column: Mapping[Pair, ScoreLine]) -> float | None:
    values = [line.value for line in column.values() if line.value is not None]
    return sum(values) / len(values) if values else None
