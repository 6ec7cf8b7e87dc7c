"""The mean of each set by kind of edit, and the samples on which two sets differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from careedit_eval.compare.differences import ALL, of_kind
from careedit_eval.records import UNREAD, Output
from careedit_eval.results import ScoreLine, Table
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
    unread: int = 0
    """The number of these errors that are replies of a judge that cannot be read."""
    macro: float | None = None
    """For `ALL`, the mean of the means of the kinds (macro) as in GEdit-Bench and ImgEdit; None if a kind has only errors."""
    kinds: int = 0
    """For `ALL`, the number of kinds that the number applies to."""


def summarise(table: Table, outputs: Mapping[str, Output]) -> list[Mean]:
    """The means of every number, set and kind of edit, without verdicts on pairs of sets."""
    found: list[Mean] = []
    for benchmark in table.benchmarks:
        for arm in table.arms(benchmark):
            for output in outputs.values():
                column = table.column(benchmark, arm, output.name)
                if not column:
                    continue
                named = ((kind, list(of_kind(column, kind).values())) for kind in table.kinds(benchmark))
                kinds = [_mean(benchmark, arm, output, kind, lines) for kind, lines in named if lines]
                whole = _mean(benchmark, arm, output, ALL, list(column.values()))
                found += [_with_macro(whole, kinds), *kinds]
    return found


def _mean(benchmark: str, arm: str, output: Output, kind: str, lines: Sequence[ScoreLine]) -> Mean:
    numbers = [line.value for line in lines if line.value is not None]
    groups = [line.group for line in lines if line.value is not None]
    errors = [line.error for line in lines if line.error is not None]
    unread = sum(error.startswith(UNREAD) for error in errors)
    mean = sum(numbers) / len(numbers) if numbers else None
    interval = mean_interval(numbers, groups, passes=output.passes) if numbers else None
    return Mean(benchmark, arm, output.name, kind, mean, interval, len(numbers), len(errors), unread)


def _with_macro(whole: Mean, kinds: Sequence[Mean]) -> Mean:
    """The mean over all rows with the mean over kinds. Kinds that the number does not apply to are left out."""
    means = [one.mean for one in kinds if one.n or one.errors]
    known = [mean for mean in means if mean is not None]
    macro = sum(known) / len(known) if known and len(known) == len(means) else None
    return replace(whole, macro=macro, kinds=len(means))


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
