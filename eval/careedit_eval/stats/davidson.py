"""Strengths of three or more sets from pairwise verdicts with ties."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from careedit.errors import InputError
from careedit.stats import LEVEL, SEED, Interval

DRAWS = 400
"""The number of resamples of the source images for intervals of strengths."""
FEWEST = 0.95
"""The minimum share of resamples that rank all sets; with fewer, an interval would leave out the unclear cases."""
PRIOR = 2.0
"""The standard deviation of strengths before any verdict, in nats: one set rarely wins more than 98 % against another."""

Floats = NDArray[np.float64]


class Game(NamedTuple):
    """One verdict: which of two sets edited a sample better."""

    first: str
    """The name of one set."""
    second: str
    """The name of the other set."""
    outcome: float
    """1 if the first set won, 0 if the second, 0.5 for a tie (also if the judge's two orders disagree)."""
    group: Hashable = None
    """The source image; None if unknown, and then strengths have no interval."""


class Strength(NamedTuple):
    """The strength of one set from the verdicts."""

    name: str
    """The name of the set."""
    strength: float
    """The log-strength relative to the anchor, which has 0; in nats."""
    games: int
    """The number of verdicts of the set."""
    interval: Interval | None = None
    """The 95 % interval: percentiles of a bootstrap over source images. None for the anchor, or if images are unknown."""


def davidson_strengths(games: Sequence[Game], anchor: str) -> tuple[list[Strength], float]:
    """Strengths, strongest first, and the tie parameter, by maximum likelihood.

    Davidson (JASA 65, 1970, eq. 2.5): P(i beats j) = p_i / (p_i + p_j + v sqrt(p_i p_j)), and P(tie) has v sqrt(p_i p_j) as its
    numerator. Raises `InputError` if the verdicts do not connect all sets, or if a set only wins or only loses, because then no
    finite strength has the maximum likelihood.
    """
    place, counts = _counted(games)
    names = list(place)
    if anchor not in names:
        raise InputError(f"No verdict names the anchor {anchor!r}; choose one of {', '.join(names) or 'no set'}.")
    whole = counts.sum(axis=0)
    lonely = _unranked(whole)
    if lonely is not None:
        raise InputError(
            f"The verdicts cannot rank {names[lonely]!r} among the others: it needs wins and losses; judge more."
        )
    at = place[anchor]
    strengths, tie = _fit(whole, at)
    intervals = _intervals(counts, at)
    played = whole.sum(axis=(1, 2)) + whole.sum(axis=(0, 2))
    ranked = [
        Strength(name, float(strengths[i]), int(played[i]), None if i == at or intervals is None else intervals[i])
        for name, i in place.items()
    ]
    return sorted(ranked, key=lambda one: -one.strength), math.exp(tie)


def tiers_of(games: Sequence[Game]) -> list[list[list[str]]]:
    """The sets in groups that verdicts connect, and in each group tiers, the best first.

    Two sets of different groups cannot be compared. Each set of a tier lost no verdict, and tied none, to a set of a lower
    tier of its group. Within a tier, strengths are finite.
    """
    place, counts = _counted(games)
    names = list(place)
    over = _reach(counts.sum(axis=0))
    linked = _closure(over | over.T)
    above = (over & ~over.T).sum(axis=0)  # the number of sets in higher tiers
    groups: dict[int, dict[int, list[str]]] = {}
    for i in np.argsort(above, kind="stable"):
        tiers = groups.setdefault(int(np.argmax(linked[i])), {})
        tiers.setdefault(int(np.argmax(over[i] & over[:, i])), []).append(names[i])
    return [list(tiers.values()) for tiers in groups.values()]


def pair_information(counts: Floats, pending: Floats) -> Floats:
    """What one more verdict on each two sets is expected to say about the strengths, in nats [sets, sets].

    `counts` [sets, sets, lost | tied | won] are the verdicts so far, `pending` [sets, sets] those that raters are about to give.
    The gain of a verdict is log(1 + I V) / 2: I is its Fisher information about the difference of two strengths, and V the
    variance of that difference so far (D-optimal design of the Bayesian linear model; Chaloner & Verdinelli, Stat. Sci. 10, 1995).
    Strengths have a normal prior with the standard deviation `PRIOR`, so all sets can be compared from the start.
    """
    size = counts.shape[0]
    strengths, tie = _fit(counts, 0, ridge=PRIOR**-2)
    half = (strengths[:, None] - strengths[None, :]) / 2
    likely = np.stack([np.exp(-half), np.full_like(half, math.exp(tie)), np.exp(half)])
    lost, _, won = likely / likely.sum(axis=0)
    information = won + lost - (won - lost) ** 2  # the variance of an outcome of -1, 0 or 1
    information /= 4  # the score is half of the outcome
    seen = information * (counts.sum(axis=2) + counts.sum(axis=2).T + pending + pending.T)
    precision = np.eye(size) * PRIOR**-2 + np.diag(seen.sum(axis=1)) - seen
    spread = np.linalg.inv(precision)
    own = np.diag(spread)
    return np.asarray(np.log1p(information * (own[:, None] + own[None, :] - 2 * spread)) / 2, np.float64)


def _counted(games: Sequence[Game]) -> tuple[dict[str, int], Floats]:
    """The place of each set, and the verdicts as counts [groups, first, second, lost | tied | won]."""
    place = {name: i for i, name in enumerate(dict.fromkeys(name for game in games for name in game[:2]))}
    row = {group: i for i, group in enumerate(dict.fromkeys(game.group for game in games))}
    counts = np.zeros((len(row), len(place), len(place), 3))
    for game in games:
        counts[row[game.group], place[game.first], place[game.second], int(2 * game.outcome)] += 1
    return place, counts


def _fit(counts: Floats, anchor: int, ridge: float = 0.0) -> tuple[Floats, float]:
    """Log-strengths relative to the anchor and the logarithm of the tie parameter, from counts [first, second, lost | tied | won].

    `ridge` is the precision of a normal prior on all of them before the anchor is subtracted.
    """
    first, second = np.nonzero(counts.sum(axis=2))
    lost, tied, won = counts[first, second].T
    size = counts.shape[0]

    def loss(unknown: Floats) -> tuple[float, Floats]:
        a, b, tie = unknown[first], unknown[second], unknown[-1]
        between = tie + (a + b) / 2
        whole = np.logaddexp(np.logaddexp(a, b), between)
        games = lost + tied + won
        value = float((games * whole - won * a - lost * b - tied * between).sum() + ridge / 2 * (unknown**2).sum())
        draw = games * np.exp(between - whole) - tied
        up = games * np.exp(a - whole) - won + draw / 2
        down = games * np.exp(b - whole) - lost + draw / 2
        slope = np.bincount(first, up, size) + np.bincount(second, down, size)
        return value, np.append(slope, draw.sum()) + ridge * unknown

    # Without ties, v = 0 has the maximum likelihood; the bound keeps its logarithm finite.
    bounds = [(None, None)] * size + [(-20.0, 20.0)]
    found = minimize(loss, np.zeros(size + 1), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12}).x
    return found[:-1] - found[anchor], float(found[-1])


def _intervals(counts: Floats, anchor: int) -> list[Interval] | None:
    """Percentiles of the strengths over resampled groups [groups, first, second, 3]; None if too few resamples rank all sets."""
    groups = counts.shape[0]
    if groups < 2:
        return None
    rng = np.random.default_rng([SEED, groups])
    drawn = []
    for weights in rng.multinomial(groups, np.full(groups, 1 / groups), size=DRAWS):
        resampled = np.tensordot(weights, counts, axes=1)
        if _unranked(resampled) is None:
            drawn.append(_fit(resampled, anchor)[0])
    if len(drawn) < FEWEST * DRAWS:
        return None
    low, high = np.quantile(np.array(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _unranked(counts: Floats) -> int | None:
    """A set that does not reach every other set along wins and ties (Ford, Am. Math. Mon. 64, 1957), or None."""
    reach = _reach(counts)
    return None if reach.all() else int(np.argmin(reach.sum(axis=0) + reach.sum(axis=1)))


def _reach(counts: Floats) -> NDArray[np.bool_]:
    """Whether a set reaches another along wins and ties [sets, sets], from counts [first, second, lost | tied | won]."""
    return _closure((counts[:, :, 1:].sum(axis=2) > 0) | (counts[:, :, :2].sum(axis=2) > 0).T)


def _closure(steps: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a set reaches another, or itself, along any number of steps [sets, sets]."""
    size = steps.shape[0]
    reach = np.eye(size, dtype=bool) | steps
    for middle in range(size):
        reach |= reach[:, middle : middle + 1] & reach[middle : middle + 1, :]
    return reach
