"""L1, L2, PSNR, SSIM and preservation: from pixel values from 0 to 1.

L1 and L2 follow MagicBrush's protocol, PSNR and SSIM PIE-Bench's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, one_by_one, resized
from careedit_eval.metrics.options import NoOptions, PixelOptions, SsimOptions
from careedit_eval.metrics.views import SIZED, View
from careedit_eval.records import Better, Measurement, Metric, MetricSpec, Output

RESIZED = f"{SIZED}; RGB from 0 to 1"
PIE_BENCH = "pie-bench-v1"
"""PnPInversion's `evaluation/matrics_calculator.py`."""
LARGEST_PSNR = 100.0
"""The PSNR of two equal images, in dB, which is infinite: a mean needs a number, and no mean would punish perfection."""
EQUAL = f"equal images count as {LARGEST_PSNR:g} dB"
"""Note on such a PSNR."""
WINDOW, SIGMA = 11, 1.5
"""The side and the standard deviation of SSIM's window, in pixels (Wang and others, 2004)."""

Pixels = np.ndarray[Any, np.dtype[np.float64]]


class PixelMetric:
    """A number from the pixels of the edit and of its reference, both [H, W, 3] from 0 to 1."""

    def __init__(
        self,
        name: str,
        better: Better,
        protocol: str,
        measure: Callable[[Pixels, Pixels], float],
        view: View = View(),  # noqa: B008 - frozen
        *,
        preprocessing: str = RESIZED,
    ) -> None:
        self.view, self._measure, self.needs = view, measure, view.needs
        self.spec = MetricSpec(
            name=view.name(name),
            outputs=(Output(name=view.name(name), better=better),),
            protocol=view.protocol(protocol),
            preprocessing=view.preprocessing(preprocessing),
            reference=view.against,
            settings=view.settings,
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def measure(item: ScoreItem) -> Measurement:
            edited, reference = self.view.pair(item)
            value = self._measure(pixels(resized(edited, reference.size)), pixels(reference))
            notes = (*item.resizing(reference.size), *self.view.decoded(item))
            if self._measure is psnr_of and value == LARGEST_PSNR:
                notes = (*notes, EQUAL)
            return Measurement(values={self.spec.name: value}, notes=notes)

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


def pixels(image: Image.Image) -> Pixels:
    """An RGB image as [H, W, 3] from 0 to 1."""
    return np.asarray(image, np.float64) / 255


def difference(edited: Image.Image, reference: Image.Image) -> Pixels:
    """Edit minus reference, [H, W, 3] at the reference's size, from -1 to 1."""
    found: Pixels = pixels(resized(edited, reference.size)) - pixels(reference)
    return found


def l1_of(edited: Pixels, reference: Pixels) -> float:
    """The mean absolute difference over pixels and channels."""
    return float(np.mean(np.abs(edited - reference)))


def l2_of(edited: Pixels, reference: Pixels) -> float:
    """The mean squared difference over pixels and channels; no root is taken."""
    return float(np.mean(np.abs(edited - reference) ** 2))


def psnr_of(edited: Pixels, reference: Pixels) -> float:
    """The peak signal-to-noise ratio in dB, at most `LARGEST_PSNR`."""
    squared = l2_of(edited, reference)
    return min(LARGEST_PSNR, -10 * float(np.log10(squared))) if squared > 0 else LARGEST_PSNR


def ssim_of(edited: Pixels, reference: Pixels, *, mirrored: bool = True) -> float:
    """The structural similarity of Gaussian windows, each channel alone, then the mean over pixels and channels.

    Windows reach over the border, where the image is mirrored (torchmetrics, and so PIE-Bench), or they lie within the image
    (Wang and others, scikit-image). Raises `MetricError` if the image is smaller than the window.
    """
    height, width = reference.shape[:2]
    if min(height, width) < WINDOW:
        raise MetricError(
            f"The image is {width}x{height}, and SSIM needs {WINDOW} pixels on each side; give larger images."
        )
    margin = WINDOW // 2
    kept = slice(None) if mirrored else slice(margin, -margin)

    def blurred(values: Pixels) -> Pixels:
        found: Pixels = gaussian_filter(values, (SIGMA, SIGMA, 0), mode="mirror", radius=(margin, margin, 0))
        return found[kept, kept]

    one, other = blurred(edited), blurred(reference)
    variances = blurred(edited**2) - one**2 + blurred(reference**2) - other**2
    covariance = blurred(edited * reference) - one * other
    level, contrast = 0.01**2, 0.03**2
    similarity = (2 * one * other + level) * (2 * covariance + contrast)
    similarity /= (one**2 + other**2 + level) * (variances + contrast)
    return float(similarity.mean())


def l1(options: PixelOptions) -> Metric:
    """L1 from its options."""
    return PixelMetric("l1", "lower", "magicbrush-v1", l1_of, options.view)


def l2(options: PixelOptions) -> Metric:
    """L2 from its options; PIE-Bench's MSE with `against: source` and an area."""
    return PixelMetric("l2", "lower", "magicbrush-v1", l2_of, options.view)


def psnr(options: PixelOptions) -> Metric:
    """PSNR from its options."""
    return PixelMetric("psnr", "higher", PIE_BENCH, psnr_of, options.view)


def ssim(options: SsimOptions) -> Metric:
    """SSIM from its options."""
    mirrored = options.borders == "mirrored"
    how = f"{RESIZED}; Gaussian window of {WINDOW} pixels, sigma {SIGMA:g}, borders {options.borders}"
    measure = partial(ssim_of, mirrored=mirrored)
    return PixelMetric(
        "ssim", "higher", PIE_BENCH if mirrored else "ssim-2004", measure, options.view, preprocessing=how
    )


def preservation(_: NoOptions) -> Metric:
    """Preservation; it has no options."""
    return Preservation()
