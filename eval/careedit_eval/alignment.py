"""How a source lies on its target's canvas.

HumanEdit's sources have their native size and its targets are square, as DALL-E 2 wanted them; which way a source came
onto its canvas (squashed, cut or with bars) is said nowhere. It is read off: the mask picture is the canvas with the
edit region erased, and so, outside that region, is the target. The way whose result differs least is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from careedit.errors import MaskError
from careedit.images import decode_image, decode_mask, other_size
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import Sample

Alignment = Literal["none", "same", "resize", "cover", "contain", "unknown"]
"""none: not asked; same: of one size; resize: squashed onto the canvas; cover: its middle; contain: with bars."""

PROBE = 128
"""Side of the pictures that are compared, in pixels: enough to tell three ways apart, and cheap."""
NEAR = 0.08
"""Mean absolute difference (of a full scale of 1) under which a way is believed; JPEG and resampling give 0.02."""
GREYS = 0.1
"""Share of a mask's pixels that may be neither dark nor bright; a picture has more."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a sample, decoded; all but the references of one size wherever `alignment` is not "unknown"."""

    source: Image.Image
    """RGB, on the target's canvas where the sample asks for that."""
    target: Image.Image | None
    """RGB."""
    mask: Image.Image | None
    """"L", 255 = edit; of the source's size."""
    references: tuple[Image.Image, ...]
    """RGB."""
    alignment: Alignment
    """How the source came onto the canvas."""


def load_pictures(sample: Sample) -> Pictures:
    """Reads and decodes; raises `BenchmarkError`, `ImageError` or `MaskError`, which say what is wrong."""
    source = decode_image(sample.source.read())
    target = None if sample.target is None else decode_image(sample.target.read())
    masked = None if sample.mask is None else sample.mask.read()
    mask = None if masked is None else read_mask(masked)
    references = tuple(decode_image(reference.read()) for reference in sample.references)
    alignment: Alignment = "none"
    if sample.align == "canvas":
        if target is None:
            raise BenchmarkError(f"Sample {sample.id!r} is to be laid on its target, which it has not; give one.")
        alignment = find_alignment(source, target, mask)
        source = laid(source, target.size, alignment)
    if mask is not None and mask.size != source.size:
        if alignment != "unknown":
            raise MaskError(other_size(mask, source, "its source"))
        mask = None  # a region of another canvas says nothing of this one; metrics that need it say so
    return Pictures(source, target, mask, references, alignment)


def read_mask(data: bytes) -> Image.Image:
    """A mask, "L", 255 = edit: what is transparent, or, where nothing is, white on black. Raises `MaskError`.

    Transparent pixels are often black, but black ones are not the mask: HumanEdit's own converter marks both.
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
    """The way in which `source` lies on the canvas of `target`, judged outside `mask` ("L", of the target's size)."""
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
        # A canvas whose bars are empty matches no source there, so bars count for nothing.
        error = np.abs(_pixels(laid(source, target.size, way)) - small)[shown]
        found[way] = float(error.mean()) if error.size else 1.0
    best = min(ways, key=lambda way: found[way])
    return best if found[best] <= NEAR else "unknown"


def laid(source: Image.Image, canvas: tuple[int, int], way: Alignment) -> Image.Image:
    """`source` on a canvas of size (width, height), with Lanczos; "same", "none" and "unknown" leave it as it is."""
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
    whole = laid(Image.new("RGB", source.size, "white"), canvas, "contain")
    return _pixels(whole)[..., 0] > 0.99
