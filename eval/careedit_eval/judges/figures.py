"""The figures of a judge: agreement with people, with itself in the other order and a second time, and for its own edits."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import FiniteFloat

from careedit.record import Record
from careedit_eval.judges.pairs import Rated, RatedPair
from careedit_eval.stats import Interval, mean_interval
from careedit_eval.suite import FigureName

SIZES = (2, 3, 4)
"""The sizes of groups whose accuracy is reported, as in EditReward-Bench."""
FIGURES: Mapping[FigureName, str] = {
    "accuracy": "share of pairs with the verdict of the majority of people, ties included",
    "accuracy_untied": "the same without the pairs in which people have no preference",
    "accuracy_2": "share of groups of 2 edits in which every pair has people's verdict",
    "accuracy_3": "the same for groups of 3 edits",
    "accuracy_4": "the same for groups of 4 edits",
    "tau": "Kendall's tau-b between the judge and people, over the pairs within groups",
    "alpha": "Krippendorff's alpha of the judge and the majority of people, with the distances of an interval scale",
    "order_consistency": "share of pairs with one verdict in both orders",
    "retest": "share of pairs with the same verdict when asked again",
}
"""The figures that may have a floor: higher is better, and 1 is the best. The values explain them."""
ABOUT: Mapping[str, str] = {
    **{str(name): words for name, words in FIGURES.items()},
    "alpha_people": "Krippendorff's alpha among people: what a judge can reach",
    "self_preference": "how much more often the judge prefers its own edits than people do, from -1 to 1",
}
"""All figures."""


class Figure(Record):
    """One figure of a judge."""

    value: FiniteFloat | None = None
    """The value; None if nothing in the data gives it."""
    low: float | None = None
    """The lower end of the 95 % interval over source images; None without an interval."""
    high: float | None = None
    """The upper end of that interval; None without an interval."""
    n: int = 0
    """The number of pairs, or of groups for an accuracy of groups, behind the value."""
    groups: int = 0
    """The number of groups behind the value, which the suite's `min_groups` is compared with."""
    note: str = ""
    """Why the value is missing, or why it says little; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge said about one pair."""

    verdict: int | None
    """1 prefers the left edit, -1 the right one, 0 neither; None if it gave no answer."""
    consistent: bool | None = None
    """Whether both orders have one answer; None for a judge that sees one edit at a time."""
    again: int | None = None
    """The verdict when it was asked again; None if it was not, or gave no answer."""
    error: str | None = None
    """Why the judge gave no verdict; None if it gave one."""


def figures_of(rated: Rated, judged: Sequence[Judged], *, own: Collection[str] = ()) -> dict[str, Figure]:
    """Every figure, from one verdict of the judge per pair. `own` names the models or sets whose edits are the judge's own.

    A pair without an answer is not right; it is left out of tau, alpha and order consistency.
    """
    rows = list(zip(rated.pairs, judged, strict=True))
    untied = [(pair, said) for pair, said in rows if pair.preferred]
    answered = [(pair, said.verdict) for pair, said in rows if said.verdict is not None]
    by_pair = {id(pair): said for pair, said in rows}
    ordered = [(pair, float(said.consistent)) for pair, said in rows if said.consistent is not None]
    again = [(pair, float(said.again == said.verdict)) for pair, said in rows if said.again is not None]
    found = {
        "accuracy": _share([(pair, _right(pair, said)) for pair, said in rows]),
        "accuracy_untied": _share([(pair, _right(pair, said)) for pair, said in untied]),
    }
    for size in SIZES:
        whole = [(pairs[0], min(_right(pair, by_pair[id(pair)]) for pair in pairs)) for pairs in rated.complete(size)]
        found[f"accuracy_{size}"] = _share(whole, f"People compared every two edits in no group of {size}.")
    found["tau"] = _whole(answered, tau_b([(pair.preferred, verdict) for pair, verdict in answered]))
    found["alpha"] = _whole(answered, krippendorff_alpha(_mirrored((pair.preferred, said) for pair, said in answered)))
    several = [pair for pair in rated.pairs if len(pair.votes) > 1]
    people = krippendorff_alpha(_mirrored(tuple(pair.votes.values()) for pair in several))
    found["alpha_people"] = _whole([(pair, 0) for pair in several], people, "No pair has the votes of two people.")
    found["order_consistency"] = _share(ordered, "The judge gave no answer in both orders.")
    if not ordered and answered:
        # It cannot depend on an order that it does not see.
        about = {"n": len(answered), "groups": _groups(pair for pair, _ in answered)}
        found["order_consistency"] = Figure(value=1.0, note="The judge sees one edit at a time.", **about)
    found["retest"] = _share(again, "The judge was not asked again.")
    found["self_preference"] = _self_preference(answered, own)
    return {name: found[name] for name in ABOUT}


def tau_b(pairs: Iterable[tuple[int, int]]) -> float | None:
    """Kendall's tau-b from the two verdicts (-1, 0 or 1) on every pair; None if one side has no preference at all."""
    concordant = discordant = tied_first = tied_second = 0
    for first, second in pairs:
        concordant += first * second > 0
        discordant += first * second < 0
        tied_first += first == 0 and second != 0
        tied_second += second == 0 and first != 0
    both = concordant + discordant
    scale = math.sqrt((both + tied_first) * (both + tied_second))
    return (concordant - discordant) / scale if scale else None


def krippendorff_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Krippendorff's alpha with the interval scale's distance (a - b)^2; a unit has the values of those who rated it.

    Units with one value do not count. None if there is nothing to compare, or if all values are equal.
    """
    kept = [unit for unit in units if len(unit) > 1]
    values = [value for unit in kept for value in unit]
    if not values:
        return None
    observed = sum(_square_distances(unit) / (len(unit) - 1) for unit in kept) / len(values)
    expected = _square_distances(values) / (len(values) * (len(values) - 1))
    return 1 - observed / expected if expected else None


def _square_distances(values: Sequence[float]) -> float:
    """The sum of (a - b)^2 over all ordered pairs."""
    return 2 * (len(values) * sum(value * value for value in values) - sum(values) ** 2)


def _mirrored(units: Iterable[Sequence[float]]) -> Iterator[Sequence[float]]:
    """Every unit, and the unit with its sides exchanged: which edit is on the left must not matter."""
    for unit in units:
        yield unit
        yield tuple(-value for value in unit)


def _right(pair: RatedPair, said: Judged) -> float:
    return float(said.verdict == pair.preferred)


def _share(rows: Sequence[tuple[RatedPair, float]], why: str = "No pair is of this kind.") -> Figure:
    """The mean of shares, with its interval over source images."""
    if not rows:
        return Figure(note=why)
    values, labels = [value for _, value in rows], [pair.sample.group for pair, _ in rows]
    interval = mean_interval(values, labels, passes=True)
    return _figure(sum(values) / len(values), interval, rows)


def _whole(rows: Sequence[tuple[RatedPair, int]], value: float | None, why: str = "") -> Figure:
    """A figure of all rows together, without an interval."""
    if value is None:
        return Figure(n=len(rows), note=why or "All verdicts of one side are equal.")
    return _figure(value, None, rows)


def _figure(value: float, interval: Interval | None, rows: Sequence[tuple[RatedPair, float]]) -> Figure:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return Figure(value=value, low=low, high=high, n=len(rows), groups=_groups(pair for pair, _ in rows))


def _groups(pairs: Iterable[RatedPair]) -> int:
    return len({pair.group for pair in pairs})


def _self_preference(rows: Sequence[tuple[RatedPair, int]], own: Collection[str]) -> Figure:
    """The share in which the judge prefers its own edit, less the same share of people, with ties as halves."""
    if not own:
        return Figure(note="No model or set was named as the judge's own; name one with --own.")
    mixed = [(pair, said) for pair, said in rows if (pair.left.model in own) != (pair.right.model in own)]
    if not mixed:
        return Figure(note="No pair has one edit of the judge's own.")
    side = [1 if pair.left.model in own else -1 for pair, _ in mixed]
    values = [one * (said - pair.preferred) / 2 for one, (pair, said) in zip(side, mixed, strict=True)]
    labels: list[Hashable] = [pair.sample.group for pair, _ in mixed]
    return _figure(sum(values) / len(values), mean_interval(values, labels), mixed)
