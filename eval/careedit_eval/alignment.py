"""How a source is placed on the canvas of its target.

HumanEdit's sources have their native size, and its targets are square because DALL-E 2 required that. The data set does not
say how a source was placed on the canvas: stretched, cropped or with bars. But outside the edited area the target shows the
source, so the way is chosen whose result differs least from the target there.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from careedit.errors import CareEditError, MaskError
from careedit.images import decode_image, decode_mask, other_size
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef
from careedit_eval.records import Sample

Alignment = Literal["none", "same", "resize", "cover", "contain", "unknown"]
"""none: not requested; same: of equal size; resize: stretched to the canvas; cover: its middle part; contain: with bars."""

PROBE = 128
"""The side of the images that are compared, in pixels: enough to distinguish three ways, and fast."""
NEAR = 0.08
"""The largest mean absolute difference (of 1) with which a way is accepted; JPEG and resampling give 0.02."""
GREYS = 0.1
"""The maximum share of a mask's pixels that are neither dark nor bright; a photo has more."""


Role = Literal["source", "target", "mask"]


class Pictures:
    """The images of a sample. Each is decoded when it is first used, because most metrics use few of them.

    All except the references have one size, unless `alignment` is "unknown". An unusable image raises its error when it is
    read, so a bad target fails the measurements that need it, but not the edit.
    """

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._found: dict[Role, Image.Image | CareEditError | None] = {}

    @cached_property
    def references(self) -> tuple[Image.Image, ...]:
        """The reference images, RGB, in the order of the sample."""
        return tuple(_picture(reference, "reference") for reference in self._sample.references)

    @cached_property
    def alignment(self) -> Alignment:
        """How the source was placed on the canvas of the target. Raises `BenchmarkError` if there must be a target."""
        source = self._read("source")
        if self._sample.align != "canvas" or not isinstance(source, Image.Image):
            return "none"
        target = self._read("target")
        if target is None:
            raise BenchmarkError(
                f"Sample {self._sample.id!r} must be placed on the canvas of its target, but it has no target; add one."
            )
        if not isinstance(target, Image.Image):
            return "unknown"
        if source.size == target.size:
            return "same"
        mask = self._read("mask")
        return find_alignment(source, target, mask if isinstance(mask, Image.Image) else None)

    @cached_property
    def source(self) -> Image.Image:
        """The source, RGB, on the target's canvas if the sample asks for that."""
        picture = _usable(self._read("source"))
        assert picture is not None, "every sample has a source"
        if self.alignment not in ("resize", "cover", "contain"):
            return picture
        target = _usable(self._read("target"))
        assert target is not None, "without a target the alignment is not known"
        return place_on_canvas(picture, target.size, self.alignment)

    @cached_property
    def target(self) -> Image.Image | None:
        """The target, RGB."""
        return _usable(self._read("target"))

    @cached_property
    def mask(self) -> Image.Image | None:
        """ "L", 255 = edit; of the source's size. None if the sample has no mask, or one of another canvas."""
        mask, source = _usable(self._read("mask")), self.known("source")
        if mask is None or source is None or mask.size == source.size:
            return mask
        if self.alignment == "unknown" and self.known("target") is not None:
            # An area of another canvas does not apply to this one; metrics that need it report that.
            return None
        raise MaskError(other_size(mask, source, "its source"))

    def known(self, role: Role) -> Image.Image | None:
        """An image, or None if the sample has no usable one."""
        try:
            found: Image.Image | None = getattr(self, role)
        except CareEditError:
            return None
        return found

    def _read(self, role: Role) -> Image.Image | CareEditError | None:
        """An image as its file has it, or the reason why it cannot be used."""
        if role not in self._found:
            reference = getattr(self._sample, role)
            try:
                self._found[role] = None if reference is None else _picture(reference, role)
            except CareEditError as error:
                self._found[role] = error
        return self._found[role]


def load_pictures(sample: Sample) -> Pictures:
    """The images of a sample for an editor, with those decoded that it is shown.

    Raises `BenchmarkError`, `ImageError` or `MaskError` where one of these cannot be used: the source (of a later turn it is the
    picture that the turn before made), a reference, or a mask that is given.
    """
    pictures = Pictures(sample)
    _ = pictures.references, pictures.alignment
    if sample.previous is None:
        _ = pictures.source
    if sample.mask_given:
        _ = pictures.mask
    return pictures


def _usable(picture: Image.Image | CareEditError | None) -> Image.Image | None:
    if isinstance(picture, CareEditError):
        raise picture
    return picture


def _picture(reference: PictureRef, role: str) -> Image.Image:
    data = reference.read()
    try:
        return read_mask(data) if role == "mask" else decode_image(data)
    except CareEditError as error:
        if reference.place:
            raise type(error)(f"The {role} in {reference.place}: {error}") from error
        raise


def read_mask(data: bytes) -> Image.Image:
    """A mask, "L", 255 = edit: the transparent pixels, or white on black if no pixel is transparent. Raises `MaskError`.

    Black pixels do not count as transparent, although HumanEdit's own converter marks both.
    """
    try:
        return decode_mask(data, white_is_edit=False)
    except MaskError:
        values = np.asarray(decode_image(data).convert("L"))
        if ((values > 32) & (values < 224)).mean() > GREYS:
            raise MaskError(
                "The mask is a picture without transparency; make the edit region transparent, or white on black."
            ) from None
        return decode_mask(data)


def find_alignment(source: Image.Image, target: Image.Image, mask: Image.Image | None) -> Alignment:
    """How `source` is placed on the canvas of `target`, judged outside `mask` ("L", of the target's size)."""
    if source.size == target.size:
        return "same"
    if source.width * target.height == source.height * target.width:
        return "resize"  # of one shape: all three ways are the same
    small = _pixels(target)
    keep = np.ones(small.shape[:2], bool)
    if mask is not None and mask.size == target.size:
        keep = np.asarray(mask.resize((PROBE, PROBE), Image.Resampling.BOX)) == 0
    if keep.mean() < 0.02:
        return "unknown"
    ways: tuple[Alignment, ...] = ("resize", "cover", "contain")
    found = {}
    for way in ways:
        shown = keep & (_pixels_of_bars(source, target.size) if way == "contain" else True)
        # The bars of a canvas may be empty, so they are not compared.
        error = np.abs(_pixels(place_on_canvas(source, target.size, way)) - small)[shown]
        found[way] = float(error.mean()) if error.size else 1.0
    best = min(ways, key=lambda way: found[way])
    return best if found[best] <= NEAR else "unknown"


def place_on_canvas(source: Image.Image, canvas: tuple[int, int], way: Alignment) -> Image.Image:
    """Place `source` on a canvas of size (width, height), with Lanczos. "same", "none" and "unknown" leave it unchanged."""
    kernel = Image.Resampling.LANCZOS
    if way == "resize":
        return source.resize(canvas, kernel)
    if way == "cover":
        return ImageOps.fit(source, canvas, kernel)
    return ImageOps.pad(source, canvas, kernel) if way == "contain" else source


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((PROBE, PROBE), Image.Resampling.BOX), np.float32) / 255


def _pixels_of_bars(source: Image.Image, canvas: tuple[int, int]) -> np.ndarray:
    """True where a contained source has pixels, [PROBE, PROBE]."""
    whole = place_on_canvas(Image.new("RGB", source.size, "white"), canvas, "contain")
    return _pixels(whole)[..., 0] > 0.99
