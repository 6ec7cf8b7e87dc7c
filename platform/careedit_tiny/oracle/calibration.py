"""How the oracle judges images with known faults: the measurement behind its thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from PIL import Image

from careedit_tiny.oracle.compare import Thresholds
from careedit_tiny.oracle.corruptions import FAULTS, FLAWS, UNDECIDED, make_picture
from careedit_tiny.oracle.verdict import DEFAULT, Verdict, judge
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.operations import OPERATIONS
from careedit_tiny.world.samples import Sample, Split, draw_sample

Expectation = Literal["pass", "reject", "either"]

PICTURES: tuple[str, ...] = (*FLAWS, *UNDECIDED, *FAULTS)
"""Kinds of images that `calibrate` makes, in their order."""


def expectation(picture: str) -> Expectation:
    """What the oracle should say about an image of this kind."""
    if picture in FLAWS:
        return "pass"
    return "reject" if picture in FAULTS else "either"


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """Verdicts on one kind of image."""

    picture: str
    """Kind of image, for example "JPEG quality 85"."""
    expected: Expectation
    """What the oracle should say about it."""
    n: int
    """Number of images of this kind."""
    passed: float
    """Share that the oracle judges compliant."""
    right: float | None
    """Share judged as expected. None if both verdicts are acceptable."""
    followed: float
    """Share in which the instruction counts as followed."""
    preserved: float
    """Share in which the rest counts as preserved."""
    followed_error: tuple[float, float, float]
    """Quantiles 5 %, 50 %, 95 % of `Verdict.followed_error`."""
    lean: tuple[float, float, float]
    """The same quantiles of `Verdict.lean`."""
    worst_block: tuple[float, float, float]
    """The same quantiles of `Verdict.worst_block`."""


def pictures(
    picture: str, count: int, *, split: Split = "validation", size: int = GEOMETRY.side
) -> Iterator[tuple[Sample, Image.Image]]:
    """`count` samples of all operations in turn, including infeasible ones, each with an image of this kind."""
    operations = (*OPERATIONS, "infeasible")
    made, index, misses = 0, 0, 0
    while made < count:
        sample = draw_sample(operations[index % len(operations)], index // len(operations), split)
        rng = Random(f"calibration:{picture}:{index}")
        index += 1
        image = make_picture(picture, sample, rng, size)
        if image is not None:
            made, misses = made + 1, 0
            yield sample, image
            continue
        misses += 1
        if misses > 1000:
            raise LookupError(picture)


def calibrate(
    count: int,
    *,
    size: int = GEOMETRY.side,
    thresholds: Thresholds = DEFAULT,
    done: Callable[[], object] = lambda: None,
) -> list[CalibrationRow]:
    """One row per entry of `PICTURES`, from `count` images each. `done` is called after every image."""
    rows = []
    for picture in PICTURES:
        verdicts = []
        for sample, image in pictures(picture, count, size=size):
            verdicts.append(judge(sample, image, thresholds=thresholds))
            done()
        rows.append(_row(picture, verdicts))
    return rows


def _row(picture: str, verdicts: list[Verdict]) -> CalibrationRow:
    expected = expectation(picture)
    passed = float(np.mean([verdict.compliant for verdict in verdicts]))
    return CalibrationRow(
        picture=picture,
        expected=expected,
        n=len(verdicts),
        passed=passed,
        right=None if expected == "either" else passed if expected == "pass" else 1 - passed,
        followed=float(np.mean([verdict.followed for verdict in verdicts])),
        preserved=float(np.mean([verdict.preserved for verdict in verdicts])),
        followed_error=_quantiles([verdict.followed_error for verdict in verdicts]),
        lean=_quantiles([verdict.lean for verdict in verdicts]),
        worst_block=_quantiles([verdict.worst_block for verdict in verdicts]),
    )


def _quantiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = (float(value) for value in np.quantile(values, (0.05, 0.5, 0.95)))
    return low, middle, high
