"""The oracle: whether a picture is what an instruction asked for, judged against the exact truth.

*Followed*: the region that truth and source differ in is near the truth and not near the source, in the whole and in
every cell of it, and no drawing that is one slip away (another shape, colour, size, direction, look; `rivals`) explains
the picture as well as the truth does. *Preserved*: everywhere else the picture is the truth's, on average, without a
tint, and in every small window. Both allow what a small autoencoder does to any picture (softened edges, noise, an
object one pixel off); `docs/tiny-world.md` has the measurements behind each number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from careedit.errors import InputError
from careedit_tiny.oracle.compare import TO_YCC, Thresholds, build_case, edit_errors, preservation, soften, towards
from careedit_tiny.oracle.rivals import rivals
from careedit_tiny.world.samples import Sample

MIN_SIDE, MAX_SIDE = 32, 1024
"""Sides of pictures that can be judged, in pixels."""

DEFAULT = Thresholds()
"""The thresholds that `docs/tiny-world.md` justifies."""


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
    """The drawing other than the truth that the picture leans to most (relative to what is allowed), e.g. "source" or
    "colour red"."""
    preservation_error: float
    """Mean absolute error outside the edit, of a full scale of 1."""
    drift: float
    """Largest mean signed error of a colour channel outside the edit; 0 where that is less than a quarter of the
    picture."""
    worst_block: float
    """Largest mean signed error (Euclidean, YCbCr) in any window outside the edit."""
    kept_drift: float | None = None
    """Identity edits: mean absolute error on the kept object."""

    @property
    def compliant(self) -> bool:
        """Followed and preserved."""
        return self.followed and self.preserved

    @property
    def reason(self) -> str:
        """The verdict as a sentence."""
        if self.compliant:
            return "The instruction was followed and the rest preserved."
        faults = []
        if not self.followed:
            faults.append(
                f"the instruction was not followed (error {self.followed_error:.2f}, worst part {self.worst_part:.2f}, "
                f"{self.lean:.2f} of the way to: {self.rival})"
            )
        if not self.preserved:
            faults.append(
                f"the rest was not preserved (mean error {self.preservation_error:.3f}, tint {self.drift:.3f}, "
                f"worst block {self.worst_block:.2f})"
            )
        sentence = " and ".join(faults)
        return f"{sentence[0].upper()}{sentence[1:]}."


def judge(sample: Sample, image: Image.Image, *, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Judge an edited picture (RGB, square, `MIN_SIDE` to `MAX_SIDE` pixels) against its sample's truth at that size.

    Raises `InputError` for a picture of another shape, size or mode.
    """
    side = _side(image)
    case = build_case(sample.source, sample.target, side, thresholds)
    raw = np.asarray(image, np.float32) / 255 - case.target
    error = raw @ TO_YCC
    outside, drift, block = preservation(error, case, thresholds)
    preserved = outside <= thresholds.outside and drift <= thresholds.drift and block <= thresholds.block
    kept_drift = None if case.held is None else float(np.abs(raw)[case.held].mean())
    if not case.region.any():
        return Verdict(preserved, preserved, 0.0, 0.0, 0.0, "source", outside, drift, block, kept_drift)
    soft = soften(error, thresholds)
    total, worst, lean = edit_errors(soft, case, thresholds)
    rival, limit = "source", thresholds.lean
    followed = total <= thresholds.error and worst <= thresholds.part and lean <= limit
    if followed:
        for other in rivals(sample.source, sample.target, side):
            leaning = towards(soft, other, case, thresholds)
            allowed = thresholds.faint_lean if other.faint else thresholds.lean
            if leaning / allowed > lean / limit:
                lean, rival, limit = leaning, other.name, allowed
        followed = lean <= limit
    return Verdict(followed, preserved, total, worst, lean, rival, outside, drift, block, kept_drift)


def _side(image: Image.Image) -> int:
    if image.mode != "RGB":
        raise InputError(f"A picture of mode {image.mode} cannot be judged; convert it to RGB.")
    if image.width != image.height or not MIN_SIDE <= image.width <= MAX_SIDE:
        raise InputError(
            f"A picture of {image.width}x{image.height} cannot be judged; "
            f"give a square one with sides of {MIN_SIDE} to {MAX_SIDE} pixels."
        )
    return image.width
