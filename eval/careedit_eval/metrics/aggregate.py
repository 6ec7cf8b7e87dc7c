"""From rows to a benchmark's number: micro (over samples, as HumanEdit and MagicBrush) and macro (over kinds, as GEdit)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from careedit_eval.errors import MetricError


class Mean(NamedTuple):
    """A mean with the number of its samples."""

    mean: float
    """The mean over the samples."""
    n: int
    """The number of samples in the mean."""


def by_kind(values: Sequence[tuple[str, float]]) -> dict[str, Mean]:
    """The mean per kind of (kind, value) rows, in the order of the kinds' first rows."""
    rows: dict[str, list[float]] = defaultdict(list)
    for kind, value in values:
        rows[kind].append(value)
    return {kind: Mean(sum(found) / len(found), len(found)) for kind, found in rows.items()}


def micro(kinds: Mapping[str, Mean]) -> Mean:
    """The mean over all samples, from means per kind; raises `MetricError` without samples."""
    total = sum(kind.n for kind in kinds.values())
    if not total:
        raise MetricError("No samples were measured, so a mean cannot be computed; check the errors of the run.")
    return Mean(sum(kind.mean * kind.n for kind in kinds.values()) / total, total)


def macro(kinds: Mapping[str, Mean]) -> Mean:
    """The mean over kinds that have samples, with equal weights; raises `MetricError` without samples."""
    found = [kind for kind in kinds.values() if kind.n]
    if not found:
        raise MetricError("No samples were measured, so a mean cannot be computed; check the errors of the run.")
    return Mean(sum(kind.mean for kind in found) / len(found), sum(kind.n for kind in found))
