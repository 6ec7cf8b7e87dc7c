"""Figures from measurements per scene: shares, paired differences, ratios, and steps until a quality is reached."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from careedit.stats import LEVEL, SEED, Interval, bootstrap_ratio
from careedit_eval.stats import difference_interval, mean_interval
from careedit_tiny.evaluation.claims.claim import Figure, NotMeasuredError, Unit

DRAWS = 2_000
"""Resamples of the interval of `steps_ratio`."""


def share(values: ArrayLike, labels: Sequence[Hashable] | None = None) -> Figure:
    """The share of ones among `values` [n], each 0 or 1; rows with one of `labels` are of one scene."""
    array = np.asarray(values, np.float64)
    return _figure(float(array.mean()), mean_interval(array, labels, passes=True), array.size, "share")


def mean(values: ArrayLike) -> Figure:
    """The mean of `values` [n], one per scene."""
    array = np.asarray(values, np.float64)
    return _figure(float(array.mean()), mean_interval(array), array.size, "number")


def points(before: ArrayLike, after: ArrayLike) -> Figure:
    """`after` - `before` in percentage points, paired: two arrays [n] of shares from 0 to 1, one entry per scene."""
    first, last = np.asarray(before, np.float64), np.asarray(after, np.float64)
    found = difference_interval(first, last, passes=True)
    scaled = None if found is None else Interval(100 * found.low, 100 * found.high)
    return _figure(100 * float((last - first).mean()), scaled, first.size, "points")


def ratio(above: ArrayLike, below: ArrayLike) -> Figure:
    """The mean of `above` divided by that of `below`, both [n] and paired. Raises `NotMeasuredError` for a mean of 0."""
    first, last = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if not last.mean():
        raise NotMeasuredError("The quantity to divide by is 0 in every scene, so a ratio does not exist.")
    return _figure(float(first.mean() / last.mean()), bootstrap_ratio(first, last), first.size, "ratio")


def repeats(values: Sequence[float]) -> Figure:
    """A ratio of times: the median of the repeats, with the smallest and the largest as its ends."""
    return Figure(float(np.median(values)), min(values), max(values), n=len(values), unit="ratio")


def error_removed(errors: ArrayLike, untouched: ArrayLike) -> float:
    """1 - the mean error of the edits [n] / that of no edit [n]: 1 is the right result, 0 means no edit."""
    return float(1 - np.asarray(errors).mean() / np.asarray(untouched).mean())


def steps_until(steps: Sequence[int], quality: Sequence[float], wanted: float) -> float:
    """Steps at which a curve of quality over steps first reaches `wanted`, on straight lines between its points and from 0.

    The last of `steps` if it never does.
    """
    at, had = 0.0, 0.0
    for step, value in zip(steps, quality, strict=True):
        if value >= wanted:
            return at if value == had else at + (step - at) * max(0.0, wanted - had) / (value - had)
        at, had = float(step), value
    return at


def steps_ratio(
    slow: tuple[Sequence[int], NDArray[np.float64]],
    fast: tuple[Sequence[int], NDArray[np.float64]],
    untouched: NDArray[np.float64],
    *,
    of_final: float = 0.9,
) -> Figure:
    """How many times as many steps `slow` needs as `fast` to reach the share `of_final` of its own final quality.

    Each is its steps and the errors of its edits [steps, n]; `untouched` [n] are the errors of no edit. The interval is
    bootstrapped over scenes. Raises `NotMeasuredError` if one of them removes no error at its end.
    """
    for name, (_, errors) in (("slower", slow), ("faster", fast)):
        if error_removed(errors[-1], untouched) <= 0:
            raise NotMeasuredError(
                f"The {name} training removes no error after its last step, so it has no quality to reach; raise "
                "--budget-minutes."
            )
    rng = np.random.default_rng([SEED, untouched.size])
    drawn = rng.integers(0, untouched.size, (DRAWS, untouched.size))
    found = [_ratio_of(slow, fast, untouched, rows, of_final) for rows in drawn]
    known = np.array([one for one in found if one is not None])
    tail = (1 - LEVEL) / 2
    ends = Interval(*(float(end) for end in np.quantile(known, [tail, 1 - tail]))) if known.size else None
    value = _ratio_of(slow, fast, untouched, np.arange(untouched.size), of_final)
    if value is None:
        raise NotMeasuredError("The faster training is at its final quality before its first step.")
    return _figure(value, ends, untouched.size, "ratio")


def _ratio_of(
    slow: tuple[Sequence[int], NDArray[np.float64]],
    fast: tuple[Sequence[int], NDArray[np.float64]],
    untouched: NDArray[np.float64],
    rows: NDArray[np.int64],
    of_final: float,
) -> float | None:
    needed = []
    for steps, errors in (slow, fast):
        quality = [error_removed(one[rows], untouched[rows]) for one in errors]
        needed.append(steps_until(steps, quality, of_final * quality[-1]))
    return needed[0] / needed[1] if needed[1] > 0 else None


def _figure(value: float, found: Interval | None, n: int, unit: Unit) -> Figure:
    low, high = (None, None) if found is None else found
    return Figure(value, low, high, n, unit)
