"""Strengths of three or more sets from pairwise verdicts with ties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from careedit.errors import InputError


class Game(NamedTuple):
    """One verdict: of two sets, which edited a sample better."""

    first: str
    """A set."""
    second: str
    """Another one."""
    outcome: float
    """1: the first won, 0: the second, 0.5: a tie (also where the judge's two orders disagree)."""


class Strength(NamedTuple):
    """What the verdicts say of one set."""

    name: str
    """The set."""
    strength: float
    """Log-strength against the anchor, which has 0; in nats."""
    games: int
    """Verdicts it took part in."""


def davidson_strengths(games: Sequence[Game], anchor: str) -> tuple[list[Strength], float]:
    """Strengths, strongest first, and the tie parameter, by maximum likelihood.

    Davidson (JASA 65, 1970, eq. 2.5): P(i beats j) = p_i / (p_i + p_j + v sqrt(p_i p_j)), P(tie) likewise with v sqrt(p_i p_j)
    above. Raises `InputError` where the verdicts do not tie the sets together, or a set only ever wins or loses: then no
    finite strength is the likeliest.
    """
    names = list(dict.fromkeys(name for game in games for name in game[:2]))
    if anchor not in names:
        raise InputError(f"No verdict names the anchor {anchor!r}; choose one of {', '.join(names) or 'no set'}.")
    place = {name: i for i, name in enumerate(names)}
    first = np.array([place[game.first] for game in games])
    second = np.array([place[game.second] for game in games])
    outcome = np.array([game.outcome for game in games])
    _check_connected(names, first, second, outcome)

    def loss(unknown: NDArray[np.float64]) -> float:
        strengths, tie = unknown[:-1] - unknown[place[anchor]], unknown[-1]
        a, b = strengths[first], strengths[second]
        between = tie + (a + b) / 2
        chosen = np.where(outcome == 1, a, np.where(outcome == 0, b, between))
        return float((np.logaddexp(np.logaddexp(a, b), between) - chosen).sum())

    # v = 0 is the likeliest where nothing was tied: its logarithm must not run off.
    bounds = [(None, None)] * len(names) + [(-20.0, 20.0)]
    found = minimize(loss, np.zeros(len(names) + 1), method="L-BFGS-B", bounds=bounds).x
    strengths = found[:-1] - found[place[anchor]]
    told = [Strength(name, float(strengths[i]), int(((first == i) | (second == i)).sum())) for name, i in place.items()]
    return sorted(told, key=lambda one: -one.strength), math.exp(float(found[-1]))


def _check_connected(
    names: Sequence[str], first: NDArray[np.int64], second: NDArray[np.int64], outcome: NDArray[np.float64]
) -> None:
    """Every set must reach every other along wins and ties (Ford, Am. Math. Mon. 64, 1957)."""
    reach = np.eye(len(names), dtype=bool)
    for i, j, won in zip(first, second, outcome, strict=True):
        reach[i, j] |= won > 0
        reach[j, i] |= won < 1
    for middle in range(len(names)):
        reach |= reach[:, middle : middle + 1] & reach[middle : middle + 1, :]
    if not reach.all():
        lonely = names[int(np.argmin(reach.sum(axis=0) + reach.sum(axis=1)))]
        raise InputError(f"The verdicts cannot rank {lonely!r} among the others: it needs wins and losses; judge more.")
