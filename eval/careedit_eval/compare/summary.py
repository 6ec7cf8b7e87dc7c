"""The mean of each set by kind of edit, and the samples on which two sets differ most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from careedit_eval.compare.differences import ALL, of_kind
from careedit_eval.records import Output
from careedit_eval.results import Table
from careedit_eval.stats import Interval, mean_interval


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of one number of one set on one kind of edit, over samples (micro) as in HumanEdit and MagicBrush."""

    benchmark: str
    """The name of the benchmark."""
    arm: str
    """The name of the set or row."""
    output: str
    """The name of the number that is averaged."""
    kind: str
    """The kind of edit, or `ALL`."""
    mean: float | None
    """The mean over the rows that have a number; None if no row has one."""
    interval: Interval | None
    """The interval of the mean, over source images."""
    n: int
    """The number of rows that have a number."""
    errors: int
    """The number of rows with an error instead."""


def summarise(table: Table, outputs: Mapping[str, Output]) -> list[Mean]:
    """The means of every number, set and kind of edit, without verdicts on pairs of sets."""
    found: list[Mean] = []
    for benchmark in table.benchmarks:
        for arm in table.arms(benchmark):
            for name, output in outputs.items():
                column = table.column(benchmark, arm, name)
                for kind in (ALL, *table.kinds(benchmark)) if column else ():
                    lines = of_kind(column, kind).values()
                    values = [(line.value, line.group) for line in lines if line.value is not None]
                    numbers, groups = [value for value, _ in values], [group for _, group in values]
                    errors = sum(line.error is not None for line in lines)
                    if not lines:
                        continue
                    mean = sum(numbers) / len(numbers) if numbers else None
                    interval = mean_interval(numbers, groups, passes=output.passes) if numbers else None
                    found.append(Mean(benchmark, arm, name, kind, mean, interval, len(numbers), errors))
    return found


@dataclass(frozen=True, slots=True)
class Flip:
    """The difference of two sets on one sample with one seed."""

    benchmark: str
    """The name of the benchmark."""
    sample_id: str
    """The id of the sample."""
    seed: int
    """The seed of the noise."""
    kind: str
    """The kind of edit of the sample."""
    a: float | None
    """The primary number of set A; None if it failed."""
    b: float | None
    """The number of set B; None if it failed."""
    gain: float
    """How much better B is. A failure of one set counts as infinitely bad."""


@dataclass(frozen=True, slots=True)
class Flips:
    """The largest losses and the largest wins of set B."""

    losses: tuple[Flip, ...]
    """Samples on which B is worse, worst first."""
    wins: tuple[Flip, ...]
    """Samples on which B is better, best first."""


def flips_of(table: Table, a: str, b: str, output: Output, *, count: int = 20) -> Flips:
    """The `count` worst losses and best wins of B by one number; equal ones in the order of their samples."""
    sign = -1.0 if output.better == "lower" else 1.0
    found: list[Flip] = []
    for benchmark in table.benchmarks:
        right = table.column(benchmark, b, output.name)
        for pair, one in table.column(benchmark, a, output.name).items():
            other = right.get(pair)
            if not one.applies or (other is not None and not other.applies):
                continue
            after = None if other is None else other.value
            if one.value is None and after is None:
                continue
            if one.value is None or after is None:
                gain = float("inf") if one.value is None else float("-inf")
            else:
                gain = sign * (after - one.value)
            found.append(Flip(benchmark, *pair, one.kind, one.value, after, gain))
    ordered = sorted(found, key=lambda flip: flip.gain)
    return Flips(
        tuple(flip for flip in ordered[:count] if flip.gain < 0),
        tuple(flip for flip in reversed(ordered[-count:]) if flip.gain > 0),
    )
