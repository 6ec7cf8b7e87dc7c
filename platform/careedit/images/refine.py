"""Fitting a coarse mask to the object it covers: it may grow and shrink.

This plays the part of CARE-Edit's Mask Repaint (arXiv 2603.08589, section 3), which as printed can only grow
(M + sigmoid(.), and a sigmoid is never negative). It needs no training: `segment` separates the colours that the mask
has from those around it. Where nothing can be separated the mask comes back as it was.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from careedit.errors import MaskError
from careedit.images.segment import Region, segment

_WORKING_SIDE = 256
_REACH = 0.5  # how far an object may reach out of its mask, as a share of the mask's mean side
_RING = 0.5  # how far beyond that the surroundings are looked at
_HOLE = 0.15  # a hole of less than this share of the object is filled
_PART = 0.1  # a separate part of less than this share of the object is dropped
_SHARES = (0.08, 5.0)  # smallest and largest area of a result, as a share of the mask's

Mask = NDArray[np.bool_]


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
