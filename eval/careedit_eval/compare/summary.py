"""What each set came to: means with intervals, by kind, with how many rows and errors they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from careedit_eval.compare.differences import ALL, of_kind
from careedit_eval.records import Output
from careedit_eval.results import Table
from careedit_eval.stats import Interval, mean_interval


@dataclass(frozen=True, slots=True)
class Mean:
    """One number of one set on one kind of edit: the mean over samples (micro), as HumanEdit and MagicBrush have it."""

    benchmark: str
    """The benchmark."""
    arm: str
    """The set."""
    output: str
    """The number."""
    kind: str
    """Kind of edit, or `ALL`."""
    mean: float | None
    """Over the rows that have a number; None where none has."""
    interval: Interval | None
    """Of the mean, over source images."""
    n: int
    """Rows with a number."""
    errors: int
    """Rows with an error in its place."""


def summarise(table: Table, outputs: Mapping[str, Output]) -> list[Mean]:
    """Every number of every set and kind that there is; verdicts on pairs of sets are not among them."""
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
