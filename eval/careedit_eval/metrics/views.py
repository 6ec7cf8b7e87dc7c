"""What a metric sees of an edit and of its reference: which of two images, how it is decoded, and one side of the mask.

PIE-Bench (PnPInversion, arXiv 2310.01506) measures the two sides of a mask apart: the rest of both images is black. MagicBrush's
script decodes with Pillow alone, without colour profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, resized, size_of
from careedit_eval.records import Scalar

Against = Literal["target", "source"]
Area = Literal["all", "inside", "outside"]
Colour = Literal["managed", "as-script"]
DECODED = "the published script decodes the reference otherwise"
"""Note on a number whose reference Pillow alone decodes to other pixels."""
SIZED = "edit resized to the reference's size, Pillow's bicubic"


@dataclass(frozen=True)
class View:
    """What is compared. The default changes neither name nor identity of a metric."""

    against: Against = "target"
    """The image that the edit is compared with."""
    area: Area = "all"
    """The side of the mask that is seen; the other side is black in both images."""
    colour: Colour = "managed"
    """How the reference is decoded: as careedit does, or by Pillow's `convert("RGB")` alone."""

    def name(self, base: str) -> str:
        """The name of the metric, such as "psnr_source_outside"."""
        return base + ("_source" if self.against == "source" else "") + ("" if self.area == "all" else f"_{self.area}")

    def protocol(self, base: str) -> str:
        """The protocol in words."""
        against = ", against the source" if self.against == "source" else ""
        return base + against + ("" if self.area == "all" else f", {self.area} the mask")

    def preprocessing(self, base: str) -> str:
        """The preprocessing in words."""
        return base if self.area == "all" else f"{SIZED}, then black except {self.area} the mask; {base}"

    @property
    def needs(self) -> frozenset[str]:
        """What a sample must have."""
        return frozenset(({"target"} if self.against == "target" else set()) | self.mask_needs)

    @property
    def mask_needs(self) -> frozenset[str]:
        """What a sample must have for the area."""
        return frozenset() if self.area == "all" else frozenset({"mask"})

    @property
    def settings(self) -> Mapping[str, Scalar]:
        """The part of the metric's identity that is not in its name."""
        return {} if self.colour == "managed" else {"colour": self.colour}

    def reference(self, item: ScoreItem) -> Image.Image:
        """The image that the edit is compared with, whole."""
        if self.colour == "as-script":
            return item.as_script(self.against)
        return item.target if self.against == "target" else item.pictures.source

    def pair(self, item: ScoreItem) -> tuple[Image.Image, Image.Image]:
        """The edit and its reference; with an area both have the reference's size. Raises `MetricError`."""
        reference = self.reference(item)
        if self.area == "all":
            return item.edited, reference
        edited = item.edited_at(reference.size)
        return only(edited, item, self.area), only(reference, item, self.area)

    def notes(self, item: ScoreItem) -> tuple[str, ...]:
        """Notes on the number, if another decoder changes the reference or if the edit is resized for its area."""
        sized = item.resizing(self.reference(item).size) if self.area != "all" else ()
        return (*sized, *self.decoded(item))

    def decoded(self, item: ScoreItem) -> tuple[str, ...]:
        """A note if the script decodes the reference to other pixels."""
        if self.colour == "managed":
            return ()
        managed = item.target if self.against == "target" else item.pictures.source
        return () if same(item.as_script(self.against), managed) else (DECODED,)


def only(image: Image.Image, item: ScoreItem, area: Area) -> Image.Image:
    """`image` with black pixels where the area is not. Raises `NotApplicableError`, or `MetricError` for another size."""
    if area == "all":
        return image
    mask = item.pictures.mask
    if mask is None:
        raise NotApplicableError("The source lies on no known place of the mask's canvas, so its sides are unknown.")
    if mask.size != image.size:
        raise MetricError(f"The mask is {size_of(mask)}, the image {size_of(image)}; give a mask of the image's size.")
    inside = np.asarray(mask) > 0
    keep = inside if area == "inside" else ~inside
    if not keep.any():
        raise NotApplicableError(f"The mask leaves no pixel {area} it.")
    return Image.fromarray(np.asarray(image) * keep[..., None])


def edit_in(area: Area, item: ScoreItem) -> Image.Image:
    """The edit alone, with black pixels where the area is not; at the mask's size. Raises as `only` does."""
    mask = item.pictures.mask if area != "all" else None
    return only(item.edited if mask is None else resized(item.edited, mask.size), item, area)


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two images have equal pixels."""
    return one.size == other.size and np.array_equal(np.asarray(one), np.asarray(other))
