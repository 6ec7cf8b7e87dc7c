"""L1, L2 and preservation: distances of pixel values from 0 to 1. L1 and L2 follow MagicBrush's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from careedit_eval.metrics.base import NotApplicableError, ScoreItem, one_by_one, resized
from careedit_eval.metrics.options import NoOptions, PixelOptions
from careedit_eval.records import Measurement, Metric, MetricSpec, Output

RESIZED = "edit resized to the reference's size, Pillow's bicubic; RGB from 0 to 1"


class PixelDistance:
    """The mean over pixels and channels of |edit - reference| (L1) or of its square (L2; no root is taken)."""

    def __init__(self, power: Literal[1, 2] = 1, against: Literal["target", "source"] = "target") -> None:
        self.power, self.against = power, against
        self.needs = frozenset({"target"} if against == "target" else ())
        name = f"l{power}" if against == "target" else f"l{power}_source"
        self.spec = MetricSpec(
            name=name,
            outputs=(Output(name=name, better="lower"),),
            protocol="magicbrush-v1" if against == "target" else "magicbrush-v1, against the source",
            preprocessing=RESIZED,
            reference=against,
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def measure(item: ScoreItem) -> Measurement:
            other = item.target if self.against == "target" else item.pictures.source
            distance = np.abs(difference(item.edited, other))
            value = float(np.mean(distance**self.power))
            return Measurement(values={self.spec.name: value}, notes=item.resizing(other.size))

        return one_by_one(batch, measure)


class Preservation:
    """The mean of |edit - source| over the pixels outside the mask, which should not change."""

    needs = frozenset({"mask"})
    spec = MetricSpec(
        name="preservation",
        outputs=(Output(name="preservation", better="lower"),),
        protocol="careedit-v1",
        preprocessing=f"{RESIZED}; pixels outside the mask",
        reference="source",
    )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def measure(item: ScoreItem) -> Measurement:
            pictures = item.pictures
            if pictures.mask is None:
                raise NotApplicableError(
                    "The source lies on no known place of the mask's canvas, so what is outside is unknown."
                )
            outside = np.asarray(pictures.mask) == 0
            if not outside.any():
                raise NotApplicableError(
                    "The mask covers the whole picture, so there is nothing outside it to preserve."
                )
            distance = np.abs(difference(item.edited, pictures.source))[outside]
            return Measurement(
                values={self.spec.name: float(distance.mean())}, notes=item.resizing(pictures.source.size)
            )

        return one_by_one(batch, measure)


def difference(edited: Image.Image, reference: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Edit minus reference, [H, W, 3] at the reference's size, from -1 to 1."""
    sides = [np.asarray(image, np.float64) / 255 for image in (resized(edited, reference.size), reference)]
    found: np.ndarray[Any, np.dtype[np.float64]] = sides[0] - sides[1]
    return found


def l1(options: PixelOptions) -> Metric:
    """L1 from its options."""
    return PixelDistance(1, options.against)


def l2(options: PixelOptions) -> Metric:
    """L2 from its options."""
    return PixelDistance(2, options.against)


def preservation(_: NoOptions) -> Metric:
    """Preservation; it has no options."""
    return Preservation()
