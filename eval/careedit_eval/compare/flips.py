"""The samples on which two sets differ most: what a person must look at before believing a mean."""

from __future__ import annotations

from dataclasses import dataclass

from careedit_eval.records import Output
from careedit_eval.results import Table


@dataclass(frozen=True, slots=True)
class Flip:
    """One sample and seed."""

    benchmark: str
    """The benchmark."""
    sample_id: str
    """The sample."""
    seed: int
    """Of the noise."""
    kind: str
    """Kind of edit."""
    a: float | None
    """The primary number of A; None: it failed."""
    b: float | None
    """That of B."""
    gain: float
    """How much better B is; a failure of one side counts as infinitely bad."""


@dataclass(frozen=True, slots=True)
class Flips:
    """Both ends of the list."""

    losses: tuple[Flip, ...]
    """Worst first."""
    wins: tuple[Flip, ...]
    """Best first."""


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
