"""B minus A, paired on (sample, seed): difference, interval over source images, tests, wins, power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from careedit.errors import InputError
from careedit_eval.records import Output
from careedit_eval.results import Pair, ScoreLine, Table
from careedit_eval.stats import (
    Interval,
    cluster_interval,
    cluster_means,
    detectable_difference,
    holm,
    mcnemar_p,
    wilcoxon_p,
)

ALL = "all"
"""The kind that stands for every kind together."""
TIE = 1e-12
"""Differences up to this are none; floats of equal pictures are equal, sums of them nearly."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of two sets on one kind of edit."""

    benchmark: str
    """The benchmark."""
    output: str
    """The number."""
    kind: str
    """Kind of edit, or `ALL`."""
    better: str
    """Which way is up: "higher", "lower", "neither"."""
    pairs: int
    """Pairs with a number on both sides."""
    images: int
    """Source images among them: what the interval is made of."""
    mean_a: float | None
    """Mean of A over the pairs."""
    mean_b: float | None
    """Mean of B over the pairs."""
    difference: float | None
    """Mean of B - A."""
    interval: Interval | None
    """Of the difference; None with fewer than two source images."""
    p: float | None
    """Wilcoxon's, or McNemar's for pass/fail with one pair per image; None where nothing differs."""
    p_adjusted: float | None
    """Holm's, over all kinds and numbers of this comparison."""
    effect: float | None
    """Cohen's d_z: the mean difference per image over its standard deviation; None where that is 0."""
    detectable: float | None
    """The true difference that so many images show with a power of 0.8."""
    wins: int
    """Pairs that B has better; 0 where no way is up."""
    ties: int
    """Pairs without a difference."""
    losses: int
    """Pairs that A has better."""
    errors_a: int
    """Errors of A in place of a number."""
    errors_b: int
    """Errors of B."""
    unpaired: tuple[str, ...]
    """Samples with a number on one side only, at most 50."""
    information: bool = False
    """Whether the number only informs (`Output.information`): it is not tested, and has no verdict."""

    @property
    def verdict(self) -> str:
        """In a word: "better", "worse", "different", or "no difference seen", by the adjusted p."""
        if self.information:
            return "information only"
        if self.p_adjusted is None or self.p_adjusted >= 0.05 or not self.difference:
            return "no difference seen"
        if self.better == "neither":
            return "different"
        return "better" if (self.difference > 0) == (self.better == "higher") else "worse"


def compare_arms(table: Table, a: str, b: str, outputs: Mapping[str, Output]) -> list[Difference]:
    """Every number of every kind that both sets have, Holm's correction over all of them.

    Raises `InputError` where a set is not in the table.
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
            for kind in (ALL, *table.kinds(benchmark)):
                found.append(difference_of(benchmark, output, kind, of_kind(left, kind), of_kind(right, kind)))
    return _adjusted(found)


def _adjusted(found: Sequence[Difference]) -> list[Difference]:
    adjusted = holm({(one.benchmark, one.output, one.kind): one.p for one in found})
    return [replace(one, p_adjusted=adjusted[one.benchmark, one.output, one.kind]) for one in found]


def of_kind(column: Mapping[Pair, ScoreLine], kind: str) -> dict[Pair, ScoreLine]:
    """The lines of one kind, or all."""
    return {pair: line for pair, line in column.items() if kind in (ALL, line.kind)}


def difference_of(
    benchmark: str, output: Output, kind: str, left: Mapping[Pair, ScoreLine], right: Mapping[Pair, ScoreLine]
) -> Difference:
    """One comparison; `p_adjusted` is left open."""
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
    groups = [group for *_, group in values]
    if output.information:
        first, second = float(before.mean()), float(after.mean())
        return replace(base, mean_a=first, mean_b=second, difference=second - first, information=True)
    delta = after - before
    delta[np.abs(delta) <= TIE] = 0.0
    per_image = cluster_means(delta, groups)
    spread = float(per_image.std(ddof=1)) if per_image.size > 1 else 0.0
    up, down = int((delta > 0).sum()), int((delta < 0).sum())
    wins, losses = {"higher": (up, down), "lower": (down, up), "neither": (0, 0)}[output.better]
    # McNemar's pairs must be independent, so with several per image the images' mean differences are ranked instead.
    p = mcnemar_p(up, down) if output.passes and per_image.size == delta.size else wilcoxon_p(per_image)
    return replace(
        base,
        mean_a=float(before.mean()),
        mean_b=float(after.mean()),
        difference=float(delta.mean()),
        interval=cluster_interval(delta, groups),
        p=p,
        effect=float(per_image.mean()) / spread if spread > TIE else None,
        detectable=detectable_difference(spread, per_image.size) if per_image.size > 1 else None,
        wins=wins,
        ties=int((delta == 0).sum()),
        losses=losses,
    )
