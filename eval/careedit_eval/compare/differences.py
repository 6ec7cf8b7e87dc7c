"""B minus A, paired on (sample, seed): difference, interval over source images, tests, wins, power."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from careedit.errors import InputError
from careedit_eval.records import Output
from careedit_eval.results import Pair, ScoreLine, Table
from careedit_eval.stats import (
    Interval,
    Spread,
    clustered_differences,
    detectable_difference,
    holm,
    interval_of_differences,
    scale_of,
    sign_flip_p,
    spread_of,
)

ALL = "all"
"""The name of all kinds together."""
ALPHA = 0.05
"""The level of a line that is judged alone, and of all other lines together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The comparison of one number between two sets on one kind of edit."""

    benchmark: str
    """The name of the benchmark."""
    output: str
    """The name of the number that is compared."""
    kind: str
    """The kind of edit, or `ALL`."""
    better: str
    """Which direction is better: "higher", "lower" or "neither"."""
    pairs: int
    """The number of pairs with numbers of both sets."""
    images: int
    """The number of source images among the pairs. The interval is over these images."""
    mean_a: float | None
    """The mean of A over the pairs."""
    mean_b: float | None
    """The mean of B over the pairs."""
    difference: float | None
    """The mean of B - A over the pairs."""
    interval: Interval | None
    """The 95 % interval of the difference; None with fewer than two source images, or if all numbers are 0."""
    p: float | None
    """The p value of the difference by random signs of the images (`sign_flip_p`); None if nothing differs."""
    p_adjusted: float | None
    """`p` for a line that is judged alone, else Holm's adjusted p over the other lines."""
    effect: float | None
    """Cohen's d_z: the difference over the standard deviation of an image's part in it; None if that is 0."""
    detectable: float | None
    """The true difference that this number of images shows with a power of 0.8, at `level`."""
    wins: int
    """The number of pairs in which B is better; 0 if no direction is better."""
    ties: int
    """The number of pairs without a difference."""
    losses: int
    """The number of pairs in which A is better."""
    errors_a: int
    """The number of errors of set A."""
    errors_b: int
    """The number of errors of set B."""
    unpaired: tuple[str, ...]
    """Samples with a number of one set only, at most 50."""
    alone: bool = False
    """Whether the line is tested alone, as the suite's primary number and the gate's margins are."""
    level: float = ALPHA
    """The level that p must be below if no other line differs: 0.05 over the number of lines that are judged together."""
    spread: Spread | None = None
    """The spread of the differences, for planning; None without an interval."""
    information: bool = False
    """Whether the number is only shown (`Output.information`): it is not tested, and has no verdict."""
    macro_a: float | None = None
    """For `ALL`, the mean of A's means of the kinds over the same pairs; None if there is one kind, or one without pairs."""
    macro_b: float | None = None
    """For `ALL`, the mean of B's means of the kinds over the same pairs; None where `macro_a` is None."""

    @property
    def verdict(self) -> str:
        """In a word: "better", "worse", "different", "no difference seen", or "information only".

        A difference is seen where the adjusted p is below 0.05 and the interval leaves 0 out, both of the same mean.
        """
        if self.information:
            return "information only"
        zero_inside = self.interval is None or self.interval.low <= 0 <= self.interval.high
        if self.p_adjusted is None or self.p_adjusted >= ALPHA or not self.difference or zero_inside:
            return "no difference seen"
        if self.better == "neither":
            return "different"
        return "better" if (self.difference > 0) == (self.better == "higher") else "worse"


def compare_arms(
    table: Table, a: str, b: str, outputs: Mapping[str, Output], *, alone: Collection[tuple[str, str]] = ()
) -> list[Difference]:
    """Every number of every kind that both sets have.

    The numbers and kinds `alone` are tested alone, Holm's correction is over all others. Raises `InputError` where a set is not
    in the table.
    """
    found: list[Difference] = []
    for benchmark in table.benchmarks:
        for name in (a, b):
            if name not in table.arms(benchmark):
                raise InputError(f"The run has no set {name!r}; it has {', '.join(table.arms(benchmark))}.")
        for output in outputs.values():
            left, right = (table.column(benchmark, name, output.name) for name in (a, b))
            if not left and not right:
                continue
            whole, *kinds = (
                difference_of(benchmark, output, kind, of_kind(left, kind), of_kind(right, kind))
                for kind in (ALL, *table.kinds(benchmark))
            )
            found += [_with_macro(whole, kinds), *kinds]
    return _adjusted(found, alone)


def _with_macro(whole: Difference, kinds: Sequence[Difference]) -> Difference:
    """The comparison of all kinds with the means over kinds. Kinds that the number does not apply to are left out."""
    applies = [one for one in kinds if one.pairs or one.errors_a or one.errors_b]
    means = [(one.mean_a, one.mean_b) for one in applies if one.mean_a is not None and one.mean_b is not None]
    if len(means) < 2 or len(means) < len(applies):
        return whole
    macro_a, macro_b = (sum(side) / len(means) for side in zip(*means, strict=True))
    return replace(whole, macro_a=macro_a, macro_b=macro_b)


def _adjusted(found: Sequence[Difference], alone: Collection[tuple[str, str]]) -> list[Difference]:
    """The lines with `p_adjusted`, their level, and what they show at it."""
    marked = [replace(one, alone=(one.output, one.kind) in alone) for one in found]
    together = {(one.benchmark, one.output, one.kind): one.p for one in marked if not one.alone}
    adjusted = holm(together)
    level = ALPHA / max(1, sum(p is not None for p in together.values()))
    return [
        replace(one, p_adjusted=one.p)
        if one.alone
        else replace(
            one,
            p_adjusted=adjusted[one.benchmark, one.output, one.kind],
            level=level,
            detectable=None if one.spread is None else detectable_difference(one.spread, one.images, alpha=level),
        )
        for one in marked
    ]


def of_kind(column: Mapping[Pair, ScoreLine], kind: str) -> dict[Pair, ScoreLine]:
    """The lines of one kind of edit, or of all."""
    return {pair: line for pair, line in column.items() if kind in (ALL, line.kind)}


def difference_of(
    benchmark: str, output: Output, kind: str, left: Mapping[Pair, ScoreLine], right: Mapping[Pair, ScoreLine]
) -> Difference:
    """One comparison, as if it were judged alone; `p_adjusted` is not set."""
    values = [
        (one.value, other.value, one.group)
        for pair, one in left.items()
        if (other := right.get(pair)) is not None and one.value is not None and other.value is not None
    ]
    numbered = [{pair for pair, line in side.items() if line.value is not None} for side in (left, right)]
    unpaired = sorted({sample for sample, _ in numbered[0] ^ numbered[1]})
    errors = [sum(line.error is not None for line in side.values()) for side in (left, right)]
    base = Difference(
        benchmark, output.name, kind, output.better, len(values), len({group for *_, group in values}),
        None, None, None, None, None, None, None, None, 0, 0, 0, errors[0], errors[1], tuple(unpaired[:50]),
    )  # fmt: skip
    if not values:
        return base
    before, after = np.array([[one, other] for one, other, _ in values]).T
    if output.information:
        first, second = float(before.mean()), float(after.mean())
        return replace(base, mean_a=first, mean_b=second, difference=second - first, information=True)
    rows = clustered_differences(before, after, [group for *_, group in values])
    scale = scale_of(before, after, passes=output.passes)
    spread = spread_of(rows, scale)
    up, down = int((rows.values > 0).sum()), int((rows.values < 0).sum())
    wins, losses = {"higher": (up, down), "lower": (down, up), "neither": (0, 0)}[output.better]
    return replace(
        base,
        mean_a=float(before.mean()),
        mean_b=float(after.mean()),
        difference=rows.mean,
        interval=interval_of_differences(rows, scale),
        p=sign_flip_p(rows.sums),
        effect=rows.mean / spread.deviation if spread is not None and spread.deviation > 0 else None,
        detectable=None if spread is None else detectable_difference(spread, rows.size, alpha=ALPHA),
        wins=wins,
        ties=rows.values.size - up - down,
        losses=losses,
        spread=spread,
    )
