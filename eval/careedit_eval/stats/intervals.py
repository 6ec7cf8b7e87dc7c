"""Intervals of a mean, and of a mean difference, over rows that share source images (`Clusters`).

The values decide which interval is used:

- Values of 0 or 1, and differences of such values: score intervals (`wilson`, `flips_interval`) with a design effect. The
  counts are divided by it, so that they equal those of independent rows (Korn & Graubard, Surv. Methodol. 24, 1998).
- Other numbers: the t interval of the clustered mean. If the values are skewed, Hall's interval (J. R. Stat. Soc. B 54,
  1992, eq. 2.2) is used as well, and on each side the outer end of the two counts. t alone covers lognormal distances too
  rarely, Hall's alone differences of two such distances. Neither draws at random, so equal rows give equal bounds.
- Numbers of which at least half of the images have the same value, as when two sets route alike: in addition, the score
  interval of the rare changes, in which a change of half the scale counts as half a flip. Of all variables in [0, scale] with
  one mean, a flip has the largest variance. So the interval of "nothing changed" has a width: other images may change.

`careedit eval check-statistics` simulates how often they hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from careedit.stats import LEVEL, Interval, normal_quantile, wilson
from careedit_eval.stats.clusters import Clusters, Floats

SAME = 1e-6
"""Values this close, relative to the largest, count as equal: a model's numbers differ this much between machines."""

SKEW = 1.5
"""A factor of the skewness: that of a few images is too small on average, by half for lognormal numbers (`check-statistics`)."""


def mean_interval(
    values: ArrayLike, labels: Sequence[Hashable] | None = None, *, passes: bool = False, level: float = LEVEL
) -> Interval | None:
    """The interval of the mean of `values` [n] of one set, with the clusters `labels` [n].

    `passes` states that values are 0 or 1, which equal values do not show. Equal values without `passes` give a point. None for
    fewer than two clusters. Raises `InputError` like `Clusters`.
    """
    rows = Clusters(values, labels)
    if rows.size < 2:
        return None
    seen = set(np.unique(rows.values).tolist())
    if seen == {0.0, 1.0} or (passes and seen <= {0.0, 1.0}):
        fewer = min(np.count_nonzero(rows.sums > 0), np.count_nonzero(rows.sums < rows.counts))
        effect = 1.0 if rows.size == rows.values.size else rows.design_effect(int(fewer))
        quantile = _score_quantile(rows, level)
        return wilson(rows.values.sum() / effect, rows.values.size / effect, quantile=quantile)
    changes = changes_of(rows, 0.0)
    return _of_numbers(rows, None if changes is None else _of_changes(changes, rows, level), level)


def difference_interval(
    before: ArrayLike, after: ArrayLike, labels: Sequence[Hashable] | None = None, *, passes: bool = False,
    level: float = LEVEL,
) -> Interval | None:  # fmt: skip
    """The interval of the mean of `after` - `before` (both [n], paired), with the clusters `labels` [n].

    None for fewer than two clusters, or if all values are 0 without `passes`, because then the size of a change is unknown.
    Raises `InputError` like `Clusters`.
    """
    one, other = Clusters(before, labels).values, Clusters(after, labels).values
    return interval_of_differences(
        clustered_differences(one, other, labels), scale_of(one, other, passes=passes), level=level
    )


def scale_of(before: Floats, after: Floats, *, passes: bool = False) -> float:
    """The largest possible change: from the smallest value, or 0, to the largest, or 0; 1 with `passes`."""
    ends = (before.min(), after.min(), before.max(), after.max(), 0.0)
    return 1.0 if passes else float(max(ends) - min(ends))


def clustered_differences(before: Floats, after: Floats, labels: Sequence[Hashable] | None) -> Clusters:
    """`after` - `before` [n]; differences from rounding alone become 0."""
    delta = after - before
    delta[np.abs(delta) <= _step(np.concatenate([before, after]))] = 0.0
    return Clusters(delta, labels)


def interval_of_differences(rows: Clusters, scale: float, *, level: float = LEVEL) -> Interval | None:
    """The interval of the mean of paired differences, as in `difference_interval`; `scale` is the largest possible one."""
    if rows.size < 2 or scale <= 0:
        return None
    changes = changes_of(rows, scale)
    rare = None if changes is None else _of_changes(changes, rows, level)
    return rare if rare is not None and _are_flips(rows, scale) else _of_numbers(rows, rare, level)


class Changes(NamedTuple):
    """Values as changes from the usual value, in independent rows."""

    usual: float
    """The usual value: the one that most rows have."""
    size: float
    """The size that counts as one change."""
    won: float
    """The number of changes upwards."""
    lost: float
    """The number of changes downwards."""
    rows: float
    """The number of rows divided by the design effect."""


def changes_of(rows: Clusters, scale: float) -> Changes | None:
    """Flips, or the changes of a number that is equal in most clusters; None if most clusters differ."""
    if _are_flips(rows, scale):
        return _changes(rows, 0.0, scale)
    usual = _most_common(rows.values)
    changed = _changed(rows, usual)
    if 2 * changed > rows.size:
        return None
    sizes = np.abs(rows.values - usual)
    # Flips of this size have the mean and the variance of the changes.
    size = float((sizes**2).sum() / sizes.sum()) if changed else 0.0
    # The next change exceeds all k that were seen with probability 1 / (k + 1). Where all images change by the same amount, a
    # change from that is one of its own size.
    reach = scale if usual == 0 else min(scale, abs(usual))
    size += max(0.0, reach - size) / (changed + 1)
    return _changes(rows, usual, size) if size > 0 else None


def _are_flips(rows: Clusters, scale: float) -> bool:
    """Whether every row goes up by the scale, down by it, or does not change."""
    return scale > 0 and bool(np.isin(np.abs(rows.values), (0.0, scale)).all())


def _changes(rows: Clusters, usual: float, size: float) -> Changes:
    effect = 1.0 if rows.size == rows.values.size else rows.design_effect(_changed(rows, usual))
    moved = (rows.values - usual) / size / effect
    return Changes(usual, size, moved[moved > 0].sum(), -moved[moved < 0].sum(), rows.values.size / effect)


def _of_numbers(rows: Clusters, rare: Interval | None, level: float) -> Interval:
    """The interval by t and Hall's transformation, and by the score of rare changes if there are such."""
    quantile = float(special.stdtrit(rows.freedom, (1 + level) / 2))
    found = [Interval(rows.mean - quantile * rows.error, rows.mean + quantile * rows.error)]
    if rows.skew and rows.error > 0:
        ends = (rows.mean - _untransformed(sign * quantile, rows.skew) * rows.error for sign in (1, -1))
        found.append(Interval(*ends))
    found += [rare] if rare is not None else []
    return Interval(min(one.low for one in found), max(one.high for one in found))


def _of_changes(changes: Changes, rows: Clusters, level: float) -> Interval:
    """The interval by the score of changes."""
    low, high = flips_interval(changes.won, changes.lost, changes.rows, _score_quantile(rows, level))
    return Interval(changes.usual + changes.size * low, changes.usual + changes.size * high)


def _score_quantile(rows: Clusters, level: float) -> float:
    """The quantile of t if a design effect is estimated from the clusters, else that of the normal distribution."""
    if rows.size == rows.values.size:
        return normal_quantile(level)
    return float(special.stdtrit(rows.freedom, (1 + level) / 2))


def _untransformed(quantile: float, skew: float) -> float:
    """The studentised mean at which Hall's monotone transformation, which removes the skew, is `quantile`."""
    third = SKEW * skew / 3
    return (math.cbrt(1 + 3 * third * (quantile - third / 2)) - 1) / third


def _most_common(values: Floats) -> float:
    """The value that most rows have."""
    _, first, counts = np.unique(np.round(values / _step(values)), return_index=True, return_counts=True)
    return float(values[first[int(counts.argmax())]])


def _changed(rows: Clusters, usual: float) -> int:
    """Clusters in which a row has another value than the usual one."""
    away = np.abs(rows.values - usual) > _step(rows.values)
    return int(np.unique(rows.index[away]).size)


def _step(values: Floats) -> float:
    """How close two of these values must be to count as equal; a frozen baseline keeps nine digits after the point."""
    return max(2e-9, SAME * float(np.abs(values).max()))


def flips_interval(won: float, lost: float, rows: float, quantile: float) -> tuple[float, float]:
    """The interval of the difference of two paired rates: `won` of `rows` pairs went from fail to pass, `lost` back.

    It has all differences that a score test does not reject (Tango, Stat. Med. 17, 1998, eq. 8 to 10). Without a flip among n
    pairs it is ± q² / (n + q²), about the rule of three.
    """

    def rejected(difference: float) -> bool:
        away = won - lost - rows * difference
        return away**2 > quantile**2 * rows * flips_variance(won / rows, lost / rows, difference)

    estimate = (won - lost) / rows
    return _last_inside(rejected, estimate, -1.0), _last_inside(rejected, estimate, 1.0)


def flips_variance(won: float, lost: float, difference: float) -> float:
    """The variance of one pair's difference if the true mean is `difference`, from the observed shares of flips.

    The share lost is the likeliest under that mean (Tango, eq. 9).
    """
    half = (2 - won + lost) * difference - won - lost
    root = math.sqrt(max(0.0, half**2 + 8 * lost * difference * (1 - difference)))
    likeliest = (root - half) / 4
    return max(0.0, 2 * likeliest + difference * (1 - difference))


def _last_inside(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last value that is not rejected between `inside` and `outside`, by bisection."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return outside
