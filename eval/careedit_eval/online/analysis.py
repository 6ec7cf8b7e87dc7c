"""Compares the arms in traffic unit by unit, with intervals that are valid no matter how often one looks at them.

A unit is what was randomly assigned to an arm. A user always gets the same arm, so the edits of a user count as one mean, as
rows on one source image do in the offline comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from careedit.errors import InputError
from careedit_eval.online.export import ExportedEdit, ExportedFeedback, Traffic
from careedit_eval.records import Better
from careedit_eval.stats import Interval, confidence_sequence, difference_sequence, holm, sample_ratio_p

FEWEST = 30
"""The minimum number of units of each arm. The intervals are valid for many rows, not for few."""
BROKEN = 0.001
"""If the p value of the split is below this, the assignment counts as broken."""
ENDED = ("made", "failed", "expired")
"""The outcomes that count for an arm. An edit that its user cancelled does not."""

Values = dict[str, list[float]]
"""Values by unit, in the order of the units' first edits."""


@dataclass(frozen=True, slots=True)
class ArmTraffic:
    """The traffic of one arm."""

    arm: str
    """The name of the arm."""
    expert_set: str
    """The address of its expert set, as configured."""
    expert_set_sha256: str
    """The hash of the expert set that it serves, by its newest edit; "" without edits."""
    weight: float
    """Its share of the traffic, as configured."""
    units: int
    """Users, keys and requests without a user that were randomly assigned to it and have an edit."""
    edits: int
    """The number of edits of these units."""
    others: int
    """The number of edits that were not randomly assigned; they are left out."""
    older: int
    """The number of edits by another expert set that the arm served before; they are left out."""


@dataclass(frozen=True, slots=True)
class OnlineDifference:
    """One number of an arm (B) compared with the arm in use (A)."""

    output: str
    """The name of the number: "failed", "judge", "seconds", "rating", or "preferred" (0.5: no preference)."""
    a: str
    """The name of the arm in use."""
    b: str
    """The name of the arm that it is compared with."""
    better: Better
    """Whether higher or lower numbers are better."""
    mean_a: float | None
    """The mean over the units of arm A; None without units."""
    mean_b: float | None
    """The mean over the units of B; for "preferred" the share of comparisons that B won, with ties as a half."""
    units_a: int
    """The number of units of A with such a number."""
    units_b: int
    """The number of units of arm B."""
    difference: float | None = None
    """B - A; for "preferred" B's share - 0.5."""
    interval: Interval | None = None
    """The interval of the difference, valid at any time; None if an arm has fewer than `FEWEST` units."""
    p: float | None = None
    """The p value, valid at any time; None if it is not tested."""
    p_adjusted: float | None = None
    """Holm's adjusted p value, over all numbers and arms."""

    @property
    def verdict(self) -> str:
        """The verdict in a word, as in `careedit_eval.compare.Difference`."""
        if self.interval is None:
            return "too few"
        if self.p_adjusted is None or self.p_adjusted >= 0.05 or not self.difference:
            return "no difference seen"
        return "better" if (self.difference > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True, slots=True)
class OnlineReport:
    """The whole report of an A/B test."""

    arms: tuple[ArmTraffic, ...]
    """Every arm, in the order of the configuration."""
    split_p: float
    """The p value of the split of the units under the weights. Below `BROKEN`, the other figures are not reliable."""
    assigned_p: float
    """The same for all users that the server remembers, with edits or without."""
    differences: tuple[OnlineDifference, ...]
    """Every arm compared with the arm in use."""
    notes: tuple[str, ...]
    """Notes on the figures, as sentences."""

    @property
    def broken(self) -> bool:
        """Whether the split shows that the assignment is broken."""
        return min(self.split_p, self.assigned_p) < BROKEN


def analyse_traffic(traffic: Traffic, against: str | None = None) -> OnlineReport:
    """Compare every arm with `against`, by default the arm with the largest weight. Raises `InputError`."""
    arms = traffic.header.arms
    taking = [name for name, arm in arms.items() if arm.weight > 0]
    against = against or max(taking, key=lambda name: arms[name].weight, default="")
    if against not in taking:
        raise InputError(f"No arm {against!r} takes traffic; the arms are {', '.join(taking) or 'none'}.")
    newest = {edit.arm: edit.expert_set_sha256 for edit in traffic.edits if edit.expert_set_sha256}
    every = traffic.edits
    kept = tuple(edit for edit in every if edit.expert_set_sha256 in ("", newest.get(edit.arm)))
    traffic = replace(traffic, edits=kept)
    dealt = {name: [edit for edit in traffic.edits if edit.arm == name and edit.dealt] for name in arms}
    units = {name: len({edit.unit for edit in dealt[name]}) for name in arms}
    served = tuple(
        ArmTraffic(
            name,
            arm.expert_set,
            newest.get(name, ""),
            arm.weight,
            units[name],
            len(dealt[name]),
            sum(edit.arm == name and not edit.dealt for edit in kept),
            sum(edit.arm == name for edit in every) - sum(edit.arm == name for edit in kept),
        )
        for name, arm in arms.items()
    )
    differences = [
        one
        for name in taking
        if name != against
        for one in (
            *_numbers(against, name, dealt[against], dealt[name], traffic.feedback),
            _preferred(against, name, traffic),
        )
    ]
    adjusted = holm({(one.output, one.b): one.p for one in differences})
    weights = {name: arm.weight for name, arm in arms.items()}
    assigned = {name: traffic.header.assigned.get(name, 0) for name in arms}
    report = OnlineReport(
        arms=served,
        split_p=sample_ratio_p(units, weights),
        assigned_p=sample_ratio_p(assigned, weights),
        differences=tuple(replace(one, p_adjusted=adjusted[one.output, one.b]) for one in differences),
        notes=(),
    )
    return replace(report, notes=tuple(_notes(report, traffic)))


def _numbers(
    a: str, b: str, left: Sequence[ExportedEdit], right: Sequence[ExportedEdit], feedback: Sequence[ExportedFeedback]
) -> list[OnlineDifference]:
    """The values of each arm by unit."""
    ratings: dict[str, list[float]] = {}
    for said in feedback:
        if said.rating is not None:
            ratings.setdefault(said.edits[0], []).append(float(said.rating))
    numbers: Mapping[str, tuple[Better, Callable[[ExportedEdit], list[float]]]] = {
        "failed": ("lower", lambda edit: [float(edit.outcome != "made")] if edit.outcome in ENDED else []),
        "judge": ("higher", lambda edit: [edit.scores["overall"]] if "overall" in (edit.scores or {}) else []),  # type: ignore[index]
        "seconds": ("lower", lambda edit: [edit.seconds] if edit.outcome == "made" else []),
        "rating": ("higher", lambda edit: ratings.get(edit.id, [])),
    }
    found = []
    for output, (better, values) in numbers.items():
        before, after = _unit_means(left, values), _unit_means(right, values)
        one = OnlineDifference(output, a, b, better, _mean(before), _mean(after), len(before), len(after))
        known = difference_sequence(after, before) if min(len(before), len(after)) >= FEWEST else None
        if known is not None:
            one = replace(one, difference=known.value, interval=known.interval, p=known.p)
        found.append(one)
    return found


def _unit_means(edits: Sequence[ExportedEdit], values: Callable[[ExportedEdit], list[float]]) -> list[float]:
    of: Values = {}
    for edit in edits:
        for value in values(edit):
            of.setdefault(edit.unit, []).append(value)
    return [float(np.mean(found)) for found in of.values()]


def _preferred(a: str, b: str, traffic: Traffic) -> OnlineDifference:
    """Users' comparisons of an edit of A with one of B. The comparisons of one user count as one mean."""
    edits = {edit.id: edit for edit in traffic.edits}
    of: Values = {}
    for one in traffic.feedback:
        both = [edits[name] for name in one.edits if name in edits]
        if len(one.edits) == 2 and {edit.arm for edit in both} == {a, b} and len(both) == 2:
            won = 0.5 if one.winner is None else float(edits[one.winner].arm == b)
            of.setdefault(min(edit.unit for edit in both), []).append(won)
    shares = [float(np.mean(found)) for found in of.values()]
    share = _mean(shares)
    preferred = OnlineDifference(
        "preferred", a, b, "higher", None if share is None else 1 - share, share, len(of), len(of)
    )
    known = confidence_sequence([value - 0.5 for value in shares]) if len(of) >= FEWEST else None
    if known is None:
        return preferred
    return replace(preferred, difference=known.value, interval=known.interval, p=known.p)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _notes(report: OnlineReport, traffic: Traffic) -> list[str]:
    found = []
    if report.broken:
        found.append(
            "The split of the traffic is not that of the weights: the assignment is broken, or edits of one arm are lost; "
            "believe no other number before that is explained."
        )
    others = sum(arm.others for arm in report.arms)
    if others:
        found.append(
            f"{others} edits were by an arm that chance did not deal (named by the client, or moved by a cut or by other "
            "weights); they are left out."
        )
    for arm in report.arms:
        if arm.older:
            found.append(
                f"{arm.arm} served another expert set before; {arm.older} edits of that set are left out, and its users may "
                "remember them."
            )
    cut = sorted({event.arm for event in traffic.header.events if event.created >= traffic.header.since})
    if cut:
        found.append(f"{', '.join(cut)} left traffic or came back meanwhile; what came before may not compare.")
    return found
