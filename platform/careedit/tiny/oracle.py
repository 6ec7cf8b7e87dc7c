"""The oracle: whether a picture is what an instruction asked for, judged against the exact truth.

*Followed*: the region that truth and source differ in is near the truth and not near the source, in the whole and in
every cell of it, and no drawing that is one slip away (another shape, colour, size, direction, look; `rivals`) explains
the picture as well as the truth does. *Preserved*: everywhere else the picture is the truth's, on average, without a
tint, and in every small window. Both allow what a small autoencoder does to any picture (softened edges, noise, an
object one pixel off); `docs/tiny-world.md` has the measurements behind each number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from careedit.errors import InputError
from careedit.tiny.draw import draw_scene, silhouette
from careedit.tiny.rivals import Pixels, Rival, cell_window, rivals
from careedit.tiny.samples import Sample
from careedit.tiny.scene import Scene

TO_YCC: Pixels = np.array(
    [[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]], np.float32
)
"""RGB to brightness and two colour differences (JPEG's), as a matrix on the right."""

MIN_SIDE, MAX_SIDE = 32, 1024
"""Sides of pictures that can be judged, in pixels."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the oracle draws its lines; lengths are in pixels of a picture of 64 x 64 and scale with the side."""

    softness: float = 1.0
    """Standard deviation of the Gaussian that the brightness of truth and picture is compared through, in pixels."""
    colour_softness: float = 2.0
    """The same for colour (Cb, Cr), which every codec and every eye resolves less finely."""
    blur: float = 0.7
    """Standard deviation of the blur that is forgiven, in pixels."""
    visible: float = 0.01
    """A rival whose squared differences from the truth sum to less (softened, full scale 1) cannot be told from it."""
    noise: float = 0.01
    """Error that nobody sees, root mean square after softening, of a full scale of 1."""
    halo: float = 2.0
    """How far around the changed region an edit still counts as the edit, in pixels."""
    shift: float = 1.2
    """How far an edited object may sit from its place, in pixels."""
    changed: float = 10 / 255
    """A pixel is in the changed region if a channel differs by more than this between source and truth."""
    error: float = 0.4
    """Largest relative error over the changed region: 0 = the truth, 1 = as far from it as the source is."""
    part: float = 0.5
    """Largest relative error within one cell of the scene."""
    lean: float = 0.4
    """How far the picture may lean from the truth (0) towards the source or a rival drawing (1)."""
    outside: float = 0.05
    """Largest mean absolute error outside the edit, of a full scale of 1."""
    drift: float = 0.025
    """Largest mean signed error of a colour channel outside the edit: a tint."""
    block: float = 0.13
    """Largest mean signed error of a colour channel in any window outside the edit: a lost or changed object."""
    window: float = 6.0
    """Side of that window, in pixels."""


DEFAULT = Thresholds()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle says of one picture, with the figures behind it."""

    followed: bool
    """Whether the instruction was carried out (for an infeasible one: whether the picture was left alone)."""
    preserved: bool
    """Whether the rest is unchanged."""
    followed_error: float
    """Error over the changed region, relative to the source's: 0 = the truth, 1 = not done at all."""
    worst_part: float
    """The largest such error of any cell with a share in the changed region."""
    lean: float
    """Towards `rival`: 0 = the truth, 0.5 = half-way, 1 = the rival. Only the source is compared where the errors
    above already decide."""
    rival: str
    """The drawing other than the truth that the picture leans to most, e.g. "source" or "colour red"."""
    preservation_error: float
    """Mean absolute error outside the edit, of a full scale of 1."""
    drift: float
    """Largest mean signed error of a colour channel outside the edit."""
    worst_block: float
    """Largest mean signed error of a colour channel in any window outside the edit."""
    kept_drift: float | None = None
    """Identity edits: mean absolute error on the kept object."""

    @property
    def compliant(self) -> bool:
        """Followed and preserved."""
        return self.followed and self.preserved


def judge(sample: Sample, image: Image.Image, *, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Judge an edited picture (RGB, square, `MIN_SIDE` to `MAX_SIDE` pixels) against its sample's truth at that size.

    Raises `InputError` for a picture of another shape, size or mode.
    """
    side = _side(image)
    case = _case(sample.source, sample.target, side, thresholds)
    raw = np.asarray(image, np.float32) / 255 - case.target
    error = raw @ TO_YCC
    outside, drift, block = _preservation(error, case, thresholds)
    preserved = outside <= thresholds.outside and drift <= thresholds.drift and block <= thresholds.block
    kept_drift = None if case.held is None else float(np.abs(raw)[case.held].mean())
    if not case.region.any():
        return Verdict(preserved, preserved, 0.0, 0.0, 0.0, "source", outside, drift, block, kept_drift)
    soft = soften(error, thresholds)
    total, worst, lean = _errors(soft, case, thresholds)
    rival = "source"
    followed = total <= thresholds.error and worst <= thresholds.part and lean <= thresholds.lean
    if followed:
        for other in rivals(sample.source, sample.target, side):
            towards = _towards(soft, other, case, thresholds)
            if towards > lean:
                lean, rival = towards, other.name
        followed = lean <= thresholds.lean
    return Verdict(followed, preserved, total, worst, lean, rival, outside, drift, block, kept_drift)


@dataclass(frozen=True, slots=True)
class _Case:
    """What of a sample does not depend on the judged picture; pictures are in YCbCr, but for `target`."""

    target: Pixels
    change: Pixels
    """Source minus truth, softened."""
    blurred: Pixels
    """What blurring the truth changes."""
    bases: tuple[Pixels, Pixels, Pixels]
    """What moving the truth up by a pixel, moving it left by a pixel and blurring it changes, softened."""
    region: NDArray[np.bool_]
    """The changed region."""
    near: NDArray[np.bool_]
    """The changed region and its halo."""
    kept: NDArray[np.bool_]
    """What must be preserved."""
    held: NDArray[np.bool_] | None
    """The object that a look leaves alone."""


@lru_cache(maxsize=64)
def _case(source: Scene, target: Scene, side: int, thresholds: Thresholds) -> _Case:
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
    return _Case(after, change, blurred, bases, region, near, ~near | (unchanged & ~region), held)


def _side(image: Image.Image) -> int:
    if image.mode != "RGB":
        raise InputError(f"A picture of mode {image.mode} cannot be judged; convert it to RGB.")
    if image.width != image.height or not MIN_SIDE <= image.width <= MAX_SIDE:
        raise InputError(
            f"A picture of {image.width}x{image.height} cannot be judged; "
            f"give a square one with sides of {MIN_SIDE} to {MAX_SIDE} pixels."
        )
    return image.width


def soften(pixels: Pixels, thresholds: Thresholds, side: int | None = None) -> Pixels:
    """YCbCr `pixels` (of a picture of `side`; default: their own) as the oracle sees them."""
    unit = (side or pixels.shape[0]) / 64
    result = np.empty_like(pixels)
    for channel, deviation in enumerate((thresholds.softness, thresholds.colour_softness, thresholds.colour_softness)):
        ndimage.gaussian_filter(pixels[..., channel], deviation * unit, output=result[..., channel], mode="nearest")
    return result


def _preservation(error: Pixels, case: _Case, thresholds: Thresholds) -> tuple[float, float, float]:
    """Mean absolute error, largest mean signed error and largest windowed signed error over `case.kept`."""
    kept = case.kept
    if not kept.any():
        return 0.0, 0.0, 0.0
    # Weighted by what is kept, so that a wrong edit next to it does not spill over.
    weight = soften(np.repeat(kept[..., None], 3, axis=2).astype(np.float32), thresholds)[kept]
    masked = soften(error * kept[..., None], thresholds)
    blurred = soften(case.blurred * kept[..., None], thresholds)[kept] / weight
    inside = masked[kept] / weight
    share = float(np.clip((inside * blurred).sum() / max(float(np.square(blurred).sum()), 1e-6), -0.5, 1.5))
    inside = inside - share * blurred
    side = max(3, round(thresholds.window * error.shape[0] / 64))
    cover = ndimage.uniform_filter(kept.astype(np.float32), side, mode="constant")
    field = np.zeros_like(error)
    field[kept] = inside
    sums = ndimage.uniform_filter(field, (side, side, 1), mode="constant")
    full = kept & (cover >= min(1 / 3, 0.9 * float(cover[kept].max())))
    block = np.abs(sums[full] / cover[full][:, None]).max()
    return float(np.abs(inside).mean()), float(np.abs(inside.mean(axis=0)).max()), float(block)


def _errors(soft: Pixels, case: _Case, thresholds: Thresholds) -> tuple[float, float, float]:
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
        wrong = max(0.0, float(np.square(rest).sum()) - near.sum() * thresholds.noise**2)
        scale = float(np.square(change[region]).sum())
        above, below = above + wrong, below + scale
        if region.sum() >= 8 * unit**2:
            worst = max(worst, float(np.sqrt(wrong / scale)))
            lean = max(lean, _lean(error, wanted - _explained(wanted, bases)))
    return float(np.sqrt(above / below)), worst, lean


def _towards(soft: Pixels, rival: Rival, case: _Case, thresholds: Thresholds) -> float:
    """How far the picture leans to a rival, in what neither blur nor a displacement of the truth looks like."""
    window = (rival.rows, rival.columns)
    difference = soften(rival.difference @ TO_YCC, thresholds, soft.shape[0])
    bases = [base[window] for base in case.bases]
    if rival.beside is not None:
        bases.append(soften(rival.beside @ TO_YCC, thresholds, soft.shape[0]))
    own = difference - _explained(difference, bases)
    least = thresholds.visible * (soft.shape[0] / 64) ** 2
    return _lean(soft[window], own) if float(np.square(own).sum()) >= least else 0.0


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
