"""The difference that a number of source images can show, and the number of images that a margin needs.

These are normal approximations. The variance per image comes from a run (`spread_of`) or is assumed (`assumed_spread`). For
rare changes it is the variance under the tested mean, as in the score interval, so a run without changes needs images too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special

from careedit.errors import InputError
from careedit.stats import LEVEL
from careedit_eval.stats.clusters import Clusters
from careedit_eval.stats.intervals import changes_of, flips_variance

ALPHA = 1 - LEVEL
"""The two-sided error of the first kind; that of a margin, which has one side, is half of it."""
POWER = 0.8
"""The probability that a difference of the stated size is found."""


class Spread(NamedTuple):
    """How paired differences vary, per source image."""

    deviation: float
    """The standard deviation of an image's part in the mean difference, in the metric's unit."""
    won: float = 0.0
    """The share of independent rows with a change up."""
    lost: float = 0.0
    """The share of independent rows with a change down."""
    size: float = 0.0
    """The size of such a change, in the metric's unit; 0 if differences are not rare changes."""
    rows: float = 1.0
    """The number of independent rows per source image."""


def spread_of(rows: Clusters, scale: float) -> Spread | None:
    """The spread of paired differences; `scale` is the largest possible one. None for fewer than two clusters or without scale."""
    if rows.size < 2 or scale <= 0:
        return None
    deviation = rows.error * math.sqrt(rows.size)
    changes = changes_of(rows, scale)
    if changes is None:
        return Spread(deviation)
    of = changes.rows / rows.size
    return Spread(deviation, changes.won / changes.rows, changes.lost / changes.rows, changes.size, of)


def assumed_spread(*, flips: float | None = None, deviation: float | None = None) -> Spread:
    """The spread of a pass/fail number of which the share `flips` changes, half each way; or of a `deviation` per image."""
    if (flips is None) == (deviation is None):
        raise InputError("Give either a share of flips or a standard deviation.")
    if flips is not None:
        if not 0 <= flips <= 1:
            raise InputError(f"The share of flips is {flips:g}; give 0 to 1.")
        return Spread(math.sqrt(flips), flips / 2, flips / 2, 1.0)
    if deviation is None or deviation <= 0 or not math.isfinite(deviation):
        raise InputError(f"The standard deviation is {deviation}; give one above 0.")
    return Spread(deviation)


def detectable_difference(spread: Spread, images: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that `images` source images show with that power, in the metric's unit."""
    if images < 2:
        raise InputError(f"{images} source images show no difference; give 2 or more.")
    # Student's quantiles: in the far tails, where many lines are judged together, normal ones are too small.
    factor = -float(special.stdtrit(images - 1, alpha / 2) + special.stdtrit(images - 1, 1 - power))
    found = factor * spread.deviation / math.sqrt(images)
    # A difference made of changes of one size has a variance of its own, however few changes were seen.
    rare = factor**2 / (images * spread.rows)
    return max(found, spread.size * rare / (1 + rare))


def images_needed(spread: Spread, margin: float, *, power: float = POWER) -> int | None:
    """The number of source images that show that B is not worse by more than `margin`, if B is as good as A.

    None for a margin of 0, for which no number is enough. Raises `InputError` for a negative margin. For flips, the bound uses
    the variance at the margin, and the power that of equal sets (Nam, Biometrics 53, 1997).
    """
    if margin < 0:
        raise InputError(f"The margin is {margin}; give how much worse is still acceptable, 0 or more.")
    if margin == 0:
        return None
    sure, often = _quantile(ALPHA / 2), _quantile(1 - power)
    images = ((sure + often) * spread.deviation / margin) ** 2
    if spread.size > margin:
        share, lost = (spread.won + spread.lost) / 2, margin / spread.size
        at_margin = math.sqrt(flips_variance(share, share, -lost))
        rows = ((sure * at_margin + often * math.sqrt(2 * share)) / lost) ** 2
        images = max(images, rows / spread.rows)
    return max(2, math.ceil(images))


def _quantile(tail: float) -> float:
    return float(-special.ndtri(tail))
