"""What the oracle measures: errors against the truth, without those that a small autoencoder adds to any image.

Errors are computed in YCbCr and softened (colour more than brightness). In each cell, the part that a small blur or a small
displacement of the truth explains is removed, by least squares over the truth's own derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from careedit_tiny.oracle.rivals import Pixels, Rival, cell_window
from careedit_tiny.world.draw import draw_scene, silhouette
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.scene import Scene

TO_YCC: Pixels = np.array([[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]], np.float32)
"""RGB to brightness and two colour differences, as in JPEG; a matrix on the right."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The oracle's limits. Lengths are in pixels of an image of 64 x 64 and scale with its side."""

    softness: float = 0.7
    """Standard deviation of the Gaussian that softens brightness before the comparison, in pixels."""
    colour_softness: float = 2.0
    """The same for colour (Cb, Cr), which codecs and eyes resolve less finely."""
    blur: float = 0.7
    """Standard deviation of the blur that is accepted, in pixels."""
    visible: float = 0.005
    """Minimum sum of squared differences between a rival and the truth (softened, full scale 1) to distinguish them."""
    noise: float = 0.02
    """Invisible error: root mean square after softening, of a full scale of 1."""
    edge: float = 0.2
    """Maximum displacement of an edge, in pixels, in addition to `shift` and `blur`."""
    halo: float = 2.0
    """How far around the changed region an edit still counts as the edit, in pixels."""
    shift: float = 1.0
    """Maximum displacement of an edited object, in pixels."""
    changed: float = 10 / 255
    """A pixel is in the changed region if a channel differs by more than this between source and truth."""
    error: float = 0.36 if GEOMETRY.edition == 1 else 0.25
    """Maximum relative error over the changed region: 0 is the truth, 1 as far from it as the source."""
    part: float = 0.45 if GEOMETRY.edition == 1 else 0.33
    """Maximum relative error within one cell of the scene."""
    lean: float = 0.4
    """Maximum lean of the image from the truth (0) towards the source or a rival (1)."""
    faint_lean: float = 0.8
    """The same for a rival that differs only in a pattern which the edit does not concern."""
    outside: float = 0.04
    """Maximum mean absolute error outside the edit, of a full scale of 1."""
    drift: float = 0.025
    """Maximum mean signed error of a colour channel outside the edit: a tint."""
    block: float = 0.16
    """Maximum mean signed error (Euclidean, YCbCr) in any window outside the edit: a lost or changed object."""
    window: float = 4.0
    """Side of the windows of `block`, in pixels."""


@dataclass(frozen=True, slots=True)
class Case:
    """The part of a sample that does not depend on the judged image. Images are in YCbCr, except `target`."""

    target: Pixels
    """The truth in RGB, [side, side, 3], values from 0 to 1."""
    change: Pixels
    """The source minus the truth, softened."""
    blurred: Pixels
    """How a blur changes the truth."""
    bases: tuple[Pixels, Pixels, Pixels]
    """How a move up by a pixel, a move left by a pixel and a blur change the truth, softened."""
    region: NDArray[np.bool_]
    """Pixels in which source and truth differ."""
    near: NDArray[np.bool_]
    """The changed region and its halo."""
    kept: NDArray[np.bool_]
    """Pixels that the edit must preserve."""
    held: NDArray[np.bool_] | None
    """The object that a look does not change, if any."""
    styled: bool
    """Whether the edit is a look; blur may then be the purpose."""


def build_case(source: Scene, target: Scene, side: int, thresholds: Thresholds) -> Case:
    """The case of an edit at `side` x `side` pixels. Small cases are cached, because several images share them."""
    return (_remembered if side <= 128 else _build_case)(source, target, side, thresholds)


def _build_case(source: Scene, target: Scene, side: int, thresholds: Thresholds) -> Case:
    before, after = (np.asarray(draw_scene(scene, side), np.float32) / 255 for scene in (source, target))
    region = np.abs(before - after).max(axis=2) > thresholds.changed + 1e-6
    reach = thresholds.halo * side / 64
    near = ndimage.distance_transform_edt(~region) <= reach if region.any() else region
    unchanged = np.zeros_like(region)
    for thing in target.things:
        if thing in source.things:
            unchanged |= np.asarray(silhouette(thing, side)) >= 250
    held = None
    if target.keep is not None and target.look is not None:
        held = np.asarray(silhouette(target.things[target.keep], side)) > 0
        unchanged |= held
    truth = after @ TO_YCC
    soft = soften(truth, thresholds)
    deviation = thresholds.blur * side / 64
    blurred = ndimage.gaussian_filter(truth, (deviation, deviation, 0), mode="nearest") - truth
    bases = (np.gradient(soft, axis=0), np.gradient(soft, axis=1), soften(blurred, thresholds))
    change = soften((before - after) @ TO_YCC, thresholds)
    return Case(
        after, change, blurred, bases, region, near, ~near | (unchanged & ~region), held, target.look != source.look
    )


_remembered = lru_cache(maxsize=64)(_build_case)


def soften(pixels: Pixels, thresholds: Thresholds, side: int | None = None) -> Pixels:
    """YCbCr `pixels` (of a picture of `side`; default: their own) as the oracle sees them."""
    unit = (side or pixels.shape[0]) / 64
    result = np.empty_like(pixels)
    for channel, deviation in enumerate((thresholds.softness, thresholds.colour_softness, thresholds.colour_softness)):
        ndimage.gaussian_filter(pixels[..., channel], deviation * unit, output=result[..., channel], mode="nearest")
    return result


def preservation(error: Pixels, case: Case, thresholds: Thresholds) -> tuple[float, float, float]:
    """Mean absolute error, largest mean signed error and largest windowed signed error over `case.kept`."""
    kept = case.kept
    if not kept.any():
        return 0.0, 0.0, 0.0
    # Weighted by what is kept, so that a wrong edit next to it does not spill over.
    weight = soften(np.repeat(kept[..., None], 3, axis=2).astype(np.float32), thresholds)[kept]
    inside = soften(error * kept[..., None], thresholds)[kept] / weight
    inside -= _explained(inside, [soften(case.blurred * kept[..., None], thresholds)[kept] / weight], [1.5])
    # A tint shows on a large area; the mean over a small object is its window's business.
    drift = np.abs(inside.mean(axis=0)).max() if kept.mean() >= 0.25 else 0.0
    side = max(3, round(thresholds.window * error.shape[0] / 64))
    cover = ndimage.uniform_filter(kept.astype(np.float32), side, mode="constant")
    full = kept & (cover >= min(0.5, 0.9 * float(cover[kept].max())))
    field = np.zeros_like(error)
    field[kept] = error[kept] - _explained(error[kept], [case.blurred[kept]], [1.5])
    sums = ndimage.uniform_filter(field, (side, side, 1), mode="constant")[full] / cover[full][:, None]
    return float(np.abs(inside).mean()), float(drift), float(np.sqrt(np.square(sums).sum(axis=1).max()))


def edit_errors(soft: Pixels, case: Case, thresholds: Thresholds) -> tuple[float, float, float]:
    """Relative error in all and in the worst cell, and the largest lean towards the source of any cell."""
    unit = soft.shape[0] / 64
    limits = (thresholds.shift * unit, thresholds.shift * unit, 1.5)
    worst, lean, above, below = 0.0, 0.0, 0.0, 0.0
    for cell in range(9):
        window = cell_window(cell, soft.shape[0])
        near, region, error, change = (array[window] for array in (case.near, case.region, soft, case.change))
        if not near.any():
            continue
        bases = [base[window][near] for base in case.bases]
        error, wanted = error[near], change[near]
        rest = error - _explained(error, bases, limits)
        edges = thresholds.edge * unit * np.hypot(bases[0], bases[1])
        unseen = float(np.square(edges).sum()) + near.sum() * thresholds.noise**2
        wrong = max(0.0, float(np.square(rest).sum()) - unseen)
        scale = float(np.square(change[region]).sum())
        above, below = above + wrong, below + scale
        if region.sum() >= 8 * unit**2:
            worst = max(worst, float(np.sqrt(wrong / scale)))
            own = wanted if case.styled else wanted - _explained(wanted, bases)
            lean = max(lean, _lean(error, own))
    return float(np.sqrt(above / below)), worst, lean


def towards(soft: Pixels, rival: Rival, case: Case, thresholds: Thresholds) -> float:
    """How far the image leans to a rival, apart from what a blur or a displacement of the truth explains."""
    window = (rival.rows, rival.columns)
    difference = soften(rival.difference @ TO_YCC, thresholds, soft.shape[0])
    bases = [base[window] for base in case.bases]
    if rival.shade is not None:
        bases.append(soften(rival.shade @ TO_YCC, thresholds, soft.shape[0]))
    own = difference - _explained(difference, bases)
    minimum = thresholds.visible * (soft.shape[0] / 64) ** 2
    return _lean(soft[window], own) if float(np.square(own).sum()) >= minimum else 0.0


def _explained(error: Pixels, bases: Sequence[Pixels], limits: Sequence[float] | None = None) -> Any:
    """The part of `error` that is a sum of `bases`, each with a factor of at most its limit, by least squares."""
    columns = np.stack([base.ravel() for base in bases], axis=1)
    matrix = columns.T @ columns + 1e-6 * np.eye(len(bases), dtype=np.float32)
    by = np.linalg.solve(matrix, columns.T @ error.ravel())
    if limits is not None:
        by = np.clip(by, np.negative(limits), limits)
    return (columns @ by).reshape(error.shape)


def _lean(error: Pixels, difference: Pixels) -> float:
    """How far `error` goes along `difference`: 1 = all the way, 0 = not at all."""
    energy = float(np.square(difference).sum())
    return float((error * difference).sum() / energy) if energy > 0 else 0.0
