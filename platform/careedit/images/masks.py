"""Masks: feathering, compositing and growing, and fitting a coarse mask to its object. A mask is "L": 255 = edit, 0 = keep.

`refine_mask` has the role of CARE-Edit's Mask Repaint (arXiv 2603.08589, section 3), which as published can only grow
(M + sigmoid(.), and a sigmoid is never negative). It needs no training: `segment` separates the colours in the mask from
those around it. Where nothing can be separated, the mask comes back as it was.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from careedit.errors import InputError, MaskError
from careedit.images.segment import Region, segment

_WORKING_SIDE = 256
_REACH = 0.5  # how far an object may reach out of its mask, as a share of the mask's mean side
_RING = 0.5  # how far beyond that the surroundings are looked at
_HOLE = 0.15  # a hole of less than this share of the object is filled
_PART = 0.1  # a separate part of less than this share of the object is dropped
_SHARES = (0.08, 5.0)  # smallest and largest area of a result, as a share of the mask's

Mask = NDArray[np.bool_]


def default_feather(size: tuple[int, int]) -> float:
    """Feather radius in pixels for a picture of `size`: 1/256 of its shorter side, 0 under 256 pixels."""
    return float(min(size) // 256)


def feather(mask: Image.Image, radius: float) -> Image.Image:
    """`mask` with its edge softened inwards over `radius` pixels: an "L" picture of weights, 255 = all edited.

    Unmarked pixels keep weight 0 exactly and marked ones get at least 1. The ramp is at most half of each region's own
    depth, so that a thin line still reaches full weight. The picture's border does not count as an edge.
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


def refine_mask(source: Image.Image, mask: Image.Image) -> Image.Image:
    """`mask` fitted to the object of `source` that it covers: "L", 255 = edit, of the same size.

    Meant for boxes and rough strokes that are too large, too small or shifted by up to about a third of the object.
    Returned unchanged if it marks nothing or everything, or if no object stands out from its surroundings. Raises
    `MaskError` if the sizes differ.
    """
    if mask.size != source.size:
        raise MaskError(
            f"The mask is {mask.width}x{mask.height} but the image is {source.width}x{source.height}; "
            "give a mask of the image's size."
        )
    marked = np.asarray(mask.convert("L")) >= 128
    if not marked.any() or marked.all():
        return mask
    box, reach = _window(marked)
    picture = source.convert("RGB").crop(box)
    scale = min(1.0, _WORKING_SIDE / max(picture.size))
    small = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    colours = picture if scale == 1 else picture.resize(small, Image.Resampling.BOX)
    coarse = _resized(marked[box[1] : box[3], box[0] : box[2]], small)
    if not coarse.any() or coarse.all():
        return mask
    distance = ndimage.distance_transform_edt(~coarse)
    region = Region(np.asarray(colours), coarse, distance, reach * scale)
    probability = segment(region)
    if probability is None:
        return mask
    found = _tidy(probability >= 0.5, coarse)
    if not _SHARES[0] <= found.sum() / coarse.sum() <= _SHARES[1]:
        return mask
    # Tidying chooses parts; the edge between the chosen and the rest stays the probability's own when it is enlarged.
    soft = np.where(found, np.maximum(probability, 0.51), np.minimum(probability, 0.49))
    result = np.zeros_like(marked)
    result[box[1] : box[3], box[0] : box[2]] = _enlarged(soft, picture.size) >= 0.5
    return Image.fromarray(np.where(result, 255, 0).astype(np.uint8)) if result.any() else mask


def boundary_error(mask: Image.Image, truth: Image.Image) -> float:
    """Mean symmetric distance between two masks' boundaries, in pixels; 0 means that they agree exactly.

    The mean of both directions of the mean distance from each boundary pixel of one mask to the nearest of the other. A
    boundary pixel is a marked one with an unmarked 4-neighbour; the picture's border counts as unmarked. Raises
    `MaskError` if the sizes differ or a mask marks nothing.
    """
    if mask.size != truth.size:
        raise MaskError(f"Masks of {mask.width}x{mask.height} and {truth.width}x{truth.height} cannot be compared.")
    edges = []
    for image in (mask, truth):
        marked = np.asarray(image.convert("L")) >= 128
        if not marked.any():
            raise MaskError("A mask that marks nothing has no boundary; mark the region first.")
        edges.append(marked & ~ndimage.binary_erosion(marked))
    first, second = edges
    there = ndimage.distance_transform_edt(~second)[first].mean()
    back = ndimage.distance_transform_edt(~first)[second].mean()
    return float((there + back) / 2)


def _window(marked: Mask) -> tuple[tuple[int, int, int, int], float]:
    """The part of the picture that matters (left, top, right, bottom) and how far the mask may grow, in pixels."""
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = math.sqrt((bottom - top) * (right - left))
    reach = max(2.0, _REACH * side)
    margin = math.ceil(reach + max(4.0, _RING * side))
    height, width = marked.shape
    box = (max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin))
    return (int(box[0]), int(box[1]), int(box[2]), int(box[3])), reach


def _tidy(found: Mask, coarse: Mask) -> Mask:
    """The part of `found` that overlaps the mask most, with its sizeable companions inside the mask, holes filled."""
    labels, count = ndimage.label(found)
    if count == 0:
        return found
    index = np.arange(1, count + 1)
    sizes = np.asarray(ndimage.sum(found, labels, index))
    inside = np.asarray(ndimage.sum(coarse, labels, index))
    main = int(inside.argmax())
    keep = (inside > 0.5 * sizes) & (inside >= _PART * inside[main])
    keep[main] = True
    kept = np.isin(labels, index[keep])
    holes, count = ndimage.label(ndimage.binary_fill_holes(kept) & ~kept)
    areas = np.bincount(holes.ravel(), minlength=count + 1)
    small = areas < _HOLE * kept.sum()
    small[0] = False
    return np.asarray(kept | small[holes], dtype=np.bool_)


def _resized(marked: Mask, size: tuple[int, int]) -> Mask:
    image = Image.fromarray(np.where(marked, 255, 0).astype(np.uint8))
    return np.asarray(image.resize(size, Image.Resampling.BOX)) >= 128


def _enlarged(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))
