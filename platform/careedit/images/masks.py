"""Masks as weights: feathering, compositing, growing. A mask is "L": 255 = edit, 0 = keep."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from careedit.errors import InputError, MaskError


def default_feather(size: tuple[int, int]) -> float:
    """Feather radius in pixels for a picture of `size`: 1/256 of its shorter side, none under 256 pixels."""
    return float(min(size) // 256)


def feather(mask: Image.Image, radius: float) -> Image.Image:
    """`mask` with its edge softened inwards over `radius` pixels: an "L" picture of weights, 255 = all edited.

    Unmarked pixels keep weight 0 exactly and marked ones get at least 1. The ramp is at most half of each region's own
    depth, so that a thin line still reaches full weight. The picture's border is no edge.
    """
    marked = np.asarray(mask.convert("L")) >= 128
    if radius < 0:
        raise InputError(f"The feather radius is {radius:g}; it must be 0 or more.")
    if marked.all() or not marked.any() or radius == 0:
        return Image.fromarray(np.where(marked, 255, 0).astype(np.uint8))
    depth = ndimage.distance_transform_edt(marked)  # 1 at the first pixel inside
    labels, count = ndimage.label(marked, np.ones((3, 3)))
    deepest = np.asarray(ndimage.maximum(depth, labels, np.arange(count + 1)))
    ramp = np.minimum(radius, deepest[labels] / 2)
    weights = np.clip(np.ceil(255 * depth / (ramp + 1)), 0, 255)
    # Half of a depth of 1 or 2 would dim all of a thin region: its deepest pixels count as fully inside.
    weights[depth >= deepest[labels]] = 255
    return Image.fromarray(np.where(marked, weights, 0).astype(np.uint8))


def composite(source: Image.Image, edited: Image.Image, mask: Image.Image, radius: float | None = None) -> Image.Image:
    """`edited` inside `mask`, `source` outside, the seam feathered inwards over `radius` (None: `default_feather`).

    All three have one size; pictures are RGB. Pixels where `mask` is 0 are the source's own, bit for bit.
    """
    if not source.size == edited.size == mask.size:
        sizes = ", ".join(f"{image.width}x{image.height}" for image in (source, edited, mask))
        raise MaskError(f"Source, edited picture and mask must have one size, not {sizes}.")
    weights = feather(mask, default_feather(source.size) if radius is None else radius)
    result = Image.composite(edited.convert("RGB"), source.convert("RGB"), weights)
    result.info = {}  # what is known of the source's file does not hold for what was made of it
    return result


def grow(mask: Image.Image, pixels: int) -> Image.Image:
    """`mask` with every marked pixel spread to a disc of radius `pixels` (0: unchanged)."""
    if pixels <= 0:
        return mask
    marked = np.asarray(mask.convert("L")) >= 128
    if not marked.any():
        return mask
    near = ndimage.distance_transform_edt(~marked) <= pixels
    return Image.fromarray(np.where(near, 255, 0).astype(np.uint8))


def mask_share(mask: Image.Image) -> float:
    """Share of the picture that is marked, 0 to 1."""
    return float(np.mean(np.asarray(mask.convert("L")) >= 128))
