"""How many replicas meet an objective, what they cost, and from which load merged experts are cheaper than shared ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from math import ceil

from careedit.record import Record
from careedit_deployments.planning.model import LAYOUTS, Filter, Layout, Profile, Workload
from careedit_deployments.planning.runs import Outcome, edits_of, pools_of, run, seconds_alone

CELL = 48
"""Maximum number of simulated replicas. A larger pool is treated as several independent pools of this size.

One large queue performs slightly better than several small ones, so the result is slightly too expensive.
"""

JUDGE_LOAD = 0.6
"""Maximum utilisation of judges, from 0 to 1."""

MAX_BUSY = 0.95
"""Maximum utilisation of editing replicas, from 0 to 1. Closer to 1, a queue takes longer to settle than a load lasts."""

BREAK_EVEN_RATES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Edits per second at which merged and shared experts are compared."""


class Goal(Record):
    """The objective of a plan, and how it is simulated."""

    slo_p95: float
    """Maximum of the 95th percentile of the seconds of an edit."""
    usd_per_hour: float
    """Price of one GPU hour, in US dollars."""
    held: int = 1
    """Edits that a replica works on at the same time. Default: 1."""
    edits: int
    """Edits per simulation; more give a more precise result and take longer."""
    seed: int = 0
    """Random seed of the simulation. Default: 0."""


class Sizing(Record):
    """Replicas and cost of one load with one layout."""

    rate: float
    """Load, in edits per second."""
    layout: str
    """Layout of the experts: merged or shared."""
    filtered: bool
    """Whether edits use the early filter."""
    feasible: bool
    """Whether some number of replicas meets the objective. If not, the numbers below are 0."""
    why: str = ""
    """Why the objective cannot be met; empty if it can."""
    replicas: int = 0
    """Number of editing replicas in all pools."""
    judges: int = 0
    """Number of judges in the scorer pool."""
    gpus: float = 0.0
    """Number of GPUs of editing replicas and judges."""
    p50: float = 0.0
    """Median of the seconds from arrival to answer."""
    p95: float = 0.0
    """95th percentile of the seconds from arrival to answer."""
    busy: float = 0.0
    """Utilisation of the editing replicas, from 0 to 1."""
    usd_per_1000: float = 0.0
    """US dollars per 1,000 edits, at constant load."""


def size(workload: Workload, profile: Profile, layout: Layout, goal: Goal) -> Sizing:
    """The smallest number of replicas per pool with which the 95th percentile is at most `goal.slo_p95` seconds."""
    filtered = workload.filter is not None
    empty = Sizing(rate=workload.rate, layout=layout, filtered=filtered, feasible=False)
    judges = 0
    if workload.filter is not None:
        looks = workload.rate * workload.filter_share * workload.filter.candidates
        judges = max(1, ceil(looks * profile.judge_s / JUDGE_LOAD))
    alone = _alone(workload, profile, layout, judges)
    if alone > goal.slo_p95:
        why = f"an edit alone takes {alone:.1f} s (95th percentile)"
        return empty.model_copy(update={"why": why})
    replicas, seconds, busy = 0, list[float](), 0.0
    known: dict[float, tuple[int, Outcome]] = {}
    for share in pools_of(workload, layout).values():
        if share not in known:
            own_judges = max(1, round(judges * share)) if judges else 0
            sized = _pool(workload, share, profile, layout, own_judges, goal)
            if sized is None:
                why = f"no pool of up to {4 * CELL} replicas holds {goal.slo_p95:g} s"
                return empty.model_copy(update={"why": why})
            known[share] = sized
        count, outcome = known[share]
        replicas += count
        busy += count * outcome.busy
        take = max(1, round(share * 1000))
        seconds += [outcome.quantile((i + 0.5) / take) for i in range(take)]
    seconds.sort()
    gpus = replicas * profile.gpus + judges * profile.judge_gpus
    found = {
        "feasible": True,
        "replicas": replicas,
        "judges": judges,
        "gpus": gpus,
        "p50": seconds[(len(seconds) - 1) // 2],
        "p95": seconds[ceil(0.95 * len(seconds)) - 1],
        "busy": busy / replicas,
        "usd_per_1000": 1000 * gpus * goal.usd_per_hour / 3600 / workload.rate,
    }
    return empty.model_copy(update=found)


def table(
    rates: Sequence[float],
    workload: Workload,
    profile: Profile,
    filter_: Filter,
    goal: Goal,
    *,
    done: Callable[[], None] = lambda: None,
) -> list[Sizing]:
    """`size` for each rate, layout, and with and without the early filter. `done` is called after each."""
    rows = []
    for rate in rates:
        for layout in LAYOUTS:
            for used in (None, filter_):
                asked = workload.model_copy(update={"rate": rate, "filter": used})
                rows.append(size(asked, profile, layout, goal))
                done()
    return rows


def break_even(workload: Workload, profile: Profile, goal: Goal) -> float | None:
    """The smallest of `BREAK_EVEN_RATES` from which merged experts cost no more than shared ones, or None.

    Merged experts need at least one replica each. Shared ones take `shared_ratio` times as long for every step.
    """
    found = None
    for rate in reversed(BREAK_EVEN_RATES):
        asked = workload.model_copy(update={"rate": rate})
        merged, shared = (size(asked, profile, layout, goal) for layout in LAYOUTS)
        if not merged.feasible or (shared.feasible and merged.gpus > shared.gpus):
            break
        found = rate
    return found


def _alone(workload: Workload, profile: Profile, layout: Layout, judges: int) -> float:
    """95th percentile of the seconds of an edit without waiting."""
    rows = []
    for steps, often in workload.steps.items():
        for used, part in ((workload.filter, workload.filter_share), (None, 1 - workload.filter_share)):
            work, judgements = seconds_alone(profile, layout, steps, used)
            rounds = ceil(judgements / judges) if judgements else 0
            rows.append((sum(work) + rounds * profile.judge_s, often * part))
    total, sofar = sum(weight for _, weight in rows), 0.0
    for seconds, weight in sorted(rows):
        sofar += weight
        if sofar >= 0.95 * total - 1e-12:
            return seconds
    raise AssertionError  # the weights sum to `total`


def _pool(
    workload: Workload, share: float, profile: Profile, layout: Layout, judges: int, goal: Goal
) -> tuple[int, Outcome] | None:
    """Number of replicas of a pool with this share of the edits, and its outcome. None: no number is enough."""
    rate = workload.rate * share
    asked = workload.model_copy(update={"rate": rate, "experts": {"one": 1.0}})
    sample = [edit for _, edit in islice(edits_of(asked, profile, layout, goal.seed), 500)]
    mean = sum(sum(edit.work) for edit in sample) / len(sample)
    load = rate * mean * profile.slowdown(goal.held) / goal.held  # number of replicas that are busy all the time
    cells = max(1, ceil(load / CELL))
    asked = asked.model_copy(update={"rate": rate / cells})
    pool = "one" if layout == "merged" else "shared"

    def attempt(count: int) -> Outcome:
        return run(
            edits_of(asked, profile, layout, goal.seed), {pool: count}, profile, held=goal.held,
            judges=ceil(judges / cells), edits=goal.edits, warm_up=goal.edits // 2, seed=goal.seed,
        )  # fmt: skip

    low = max(1, ceil(load / cells / MAX_BUSY))
    high, outcome = low, attempt(low)
    while outcome.quantile(0.95) > goal.slo_p95:
        low, high = high + 1, max(high + 1, ceil(1.15 * high))
        outcome = attempt(high)
        if high > 4 * CELL:
            return None
    while low < high:
        middle = (low + high) // 2
        tried = attempt(middle)
        if tried.quantile(0.95) <= goal.slo_p95:
            high, outcome = middle, tried
        else:
            low = middle + 1
    return high * cells, outcome
