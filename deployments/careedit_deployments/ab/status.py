"""The state of every arm, from the store, for `careedit ab status` and the status page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from careedit.record import Record
from careedit.stats import normal_quantile, wilson
from careedit_deployments.ab.guard import COUNTED, FAILURES
from careedit_deployments.config import ServeConfig
from careedit_deployments.state.records import EditRecord, FeedbackRecord
from careedit_deployments.state.store import Store

LATEST = 300
"""Number of latest edits per arm whose scores count, and of latest pieces of feedback that count."""


class Interval(Record):
    """A share or a mean with its 95 % confidence interval."""

    value: float
    """The measured share or mean."""
    low: float
    """Lower end of the 95 % confidence interval."""
    high: float
    """Upper end of the 95 % confidence interval."""
    count: int
    """Number of edits or judgements that the value is computed from."""


class ArmStatus(Record):
    """The state of one configured arm."""

    arm: str
    """Name of the arm in the configuration."""
    expert_set: str
    """Expert set of the arm, as configured."""
    weight: float
    """Weight of the arm in the traffic, as configured."""
    share: float
    """Current share of the users, from 0 to 1; 0 for a shadow and for an arm that is out of traffic."""
    shadow: bool
    """Whether the arm only gets copies of edits."""
    cut: bool
    """Whether the arm was taken out of traffic."""
    reason: str | None = None
    """Why the arm is out of traffic, as a sentence."""
    since: float | None = None
    """Time since which the arm is out of traffic, in Unix seconds."""
    users: int
    """Number of users who are assigned to the arm."""
    edits: int
    """Number of edits that finished or failed; for a shadow, of copies."""
    errors: Interval | None = None
    """Share of failed edits, with Wilson's interval. None: no edits."""
    judge: Interval | None = None
    """Mean overall score of the latest edits, by the judge. None: fewer than two were judged."""
    seconds: float | None = None
    """Mean wall-clock seconds of the edits."""
    wins: int = 0
    """Number of comparisons by people that the arm won."""
    losses: int = 0
    """Number of comparisons that the arm lost."""
    ties: int = 0
    """Number of comparisons without a winner."""
    rating: Interval | None = None
    """Mean rating by people, from 1 to 5. None: fewer than two ratings."""


async def arm_statuses(config: ServeConfig, store: Store, *, since: float = 0.0) -> list[ArmStatus]:
    """The state of every configured arm, in the order of the configuration, from edits after `since` (Unix seconds)."""
    cut = await store.arms.disabled()
    users = await store.arms.assigned(config.ab_salt)
    counts = [count for count in await store.edits.counts(since=since) if count.outcome in COUNTED]
    feedback = await store.feedback.latest(since=since, limit=LATEST)
    arm_of = await store.edits.arms_of({edit_id for one in feedback for edit_id in one.edits})
    statuses = []
    for name, arm in config.arms.items():
        own = [count for count in counts if count.arm == name and count.shadow == arm.shadow]
        edits = sum(count.edits for count in own)
        failed = sum(count.edits for count in own if count.outcome in FAILURES)
        latest = await store.edits.latest(arm=name, since=since, limit=LATEST)
        events = await store.arms.events(arm=name, limit=1) if name in cut else []
        statuses.append(
            ArmStatus(
                arm=name,
                expert_set=arm.expert_set,
                weight=arm.weight,
                share=_share(config, name, cut),
                shadow=arm.shadow,
                cut=name in cut,
                reason=events[0].reason if events else None,
                since=events[0].created if events else None,
                users=users.get(name, 0),
                edits=edits,
                errors=share_with_interval(failed, edits) if edits else None,
                judge=mean_with_interval(_scores(latest)),
                seconds=sum(count.seconds * count.edits for count in own) / edits if edits else None,
                **_verdicts(name, feedback, arm_of),
            )
        )
    return statuses


def mean_with_interval(values: Sequence[float]) -> Interval | None:
    """Mean and its 95 % interval by the normal approximation; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, half = fmean(values), normal_quantile() * stdev(values) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - half, high=mean + half, count=len(values))


def share_with_interval(hits: int, count: int) -> Interval:
    """The share `hits` / `count` and its 95 % interval by `careedit.stats.wilson`; `count` is at least 1."""
    low, high = wilson(hits, count)
    return Interval(value=hits / count, low=low, high=high, count=count)


def _share(config: ServeConfig, name: str, cut: Collection[str]) -> float:
    weights = {other: arm.weight for other, arm in config.arms.items() if not arm.shadow}
    live = {other: weight for other, weight in weights.items() if other not in cut}
    live = live if sum(live.values()) > 0 else weights  # as `assign` does if every arm is out of traffic
    return live.get(name, 0.0) / sum(live.values())


def _scores(edits: Sequence[EditRecord]) -> list[float]:
    return [edit.scores["overall"] for edit in edits if edit.scores and "overall" in edit.scores]


def _verdicts(name: str, feedback: Sequence[FeedbackRecord], arm_of: Mapping[str, str]) -> dict[str, Any]:
    """Results of an arm in feedback. A comparison of two edits by the same arm does not count.

    Each edit counts in one comparison, the newest, so that one edit cannot win a hundred times.
    """
    found: Counter[str] = Counter()
    compared: set[str] = set()
    for one in feedback:
        arms = [arm_of.get(edit_id) for edit_id in one.edits]
        if len(arms) == 2 and name in arms and arms[0] != arms[1] and compared.isdisjoint(one.edits):
            compared.update(one.edits)
            winner = arm_of.get(one.winner) if one.winner else None
            found["ties" if winner is None else "wins" if winner == name else "losses"] += 1
    ratings = [float(one.rating) for one in feedback if one.rating and arm_of.get(one.edits[0]) == name]
    return {**found, "rating": mean_with_interval(ratings)}
