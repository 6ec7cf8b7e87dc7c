"""How many replicas hold an objective, what they cost, and from which load on merged experts are cheaper than shared ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from math import ceil

from careedit.record import Record
from careedit_deployments.planning.model import LAYOUTS, Filter, Layout, Profile, Workload
from careedit_deployments.planning.runs import Outcome, edits_of, pools_of, run, seconds_alone

CELL = 48
"""Replicas of a pool that are simulated at most; a larger pool is counted as several of this size, side by side.

One large queue does a little better than several small ones, so this errs on the dear side.
"""

JUDGE_LOAD = 0.6
"""Part of their time that judges work, at most."""

MOST_BUSY = 0.95
"""Part of their time that editing replicas work, at most: nearer to 1 a queue takes longer to settle than loads last."""

BREAK_EVEN_RATES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Edits per second at which merged and shared experts are compared."""


class Sizing(Record):
    """What one load takes on one layout."""

    rate: float
    """Edits per second."""
    layout: str
    """merged or shared."""
    filtered: bool
    """Whether the early filter is on."""
    feasible: bool
    """Whether any number of replicas holds the objective; if not, the numbers below are 0."""
    why: str = ""
    """Why not."""
    replicas: int = 0
    """Editing replicas, all pools together."""
    judges: int = 0
    """Judges."""
    gpus: float = 0.0
    """GPUs of both."""
    p50: float = 0.0
    """Median of the seconds from arrival to answer."""
    p95: float = 0.0
    """95th percentile."""
    busy: float = 0.0
    """Part of the editing replicas' time in which they work."""
    usd_per_1000: float = 0.0
    """US dollars for 1,000 edits at this load, held all the time."""


def size(
    workload: Workload,
    profile: Profile,
    layout: Layout,
    *,
    held: int = 1,
    slo_p95: float,
    usd_per_hour: float,
    edits: int,
    seed: int = 0,
) -> Sizing:
    """The fewest replicas per pool whose 95th percentile is at most `slo_p95` seconds."""
    filtered = workload.filter is not None
    told = Sizing(rate=workload.rate, layout=layout, filtered=filtered, feasible=False)
    judges = 0
    if workload.filter is not None:
        looks = workload.rate * workload.filter_share * workload.filter.candidates
        judges = max(1, ceil(looks * profile.judge_s / JUDGE_LOAD))
    alone = _alone(workload, profile, layout, judges)
    if alone > slo_p95:
        why = f"an edit alone takes {alone:.1f} s (95th percentile)"
        return told.model_copy(update={"why": why})
    replicas, seconds, busy = 0, list[float](), 0.0
    known: dict[float, tuple[int, Outcome]] = {}
    for share in pools_of(workload, layout).values():
        if share not in known:
            sized = _pool(
                workload,
                share,
                profile,
                layout,
                max(1, round(judges * share)) if judges else 0,
                held=held,
                slo_p95=slo_p95,
                edits=edits,
                seed=seed,
            )
            if sized is None:
                return told.model_copy(update={"why": f"no pool of up to {4 * CELL} replicas holds {slo_p95:g} s"})
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
        "usd_per_1000": 1000 * gpus * usd_per_hour / 3600 / workload.rate,
    }
    return told.model_copy(update=found)


def table(
    rates: Sequence[float],
    workload: Workload,
    profile: Profile,
    filter_: Filter,
    *,
    held: int = 1,
    slo_p95: float,
    usd_per_hour: float,
    edits: int,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> list[Sizing]:
    """`size` at every rate, merged and shared, without the early filter and with it; `done` is called after each."""
    rows = []
    for rate in rates:
        for layout in LAYOUTS:
            for used in (None, filter_):
                asked = workload.model_copy(update={"rate": rate, "filter": used})
                sized = size(
                    asked,
                    profile,
                    layout,
                    held=held,
                    slo_p95=slo_p95,
                    usd_per_hour=usd_per_hour,
                    edits=edits,
                    seed=seed,
                )
                rows.append(sized)
                done()
    return rows


def break_even(
    workload: Workload,
    profile: Profile,
    *,
    held: int = 1,
    slo_p95: float,
    usd_per_hour: float,
    edits: int,
    seed: int = 0,
) -> float | None:
    """The least of `BREAK_EVEN_RATES` from which on merged experts cost no more than shared ones; None: there is none.

    Merged ones need a replica per expert, however little is asked; shared ones pay `shared_ratio` at every step.
    """
    found = None
    for rate in reversed(BREAK_EVEN_RATES):
        asked = workload.model_copy(update={"rate": rate})
        merged, shared = (
            size(asked, profile, layout, held=held, slo_p95=slo_p95, usd_per_hour=usd_per_hour, edits=edits, seed=seed)
            for layout in LAYOUTS
        )
        if not merged.feasible or (shared.feasible and merged.gpus > shared.gpus):
            break
        found = rate
    return found


def _alone(workload: Workload, profile: Profile, layout: Layout, judges: int) -> float:
    """95th percentile of an edit's seconds where nobody waits."""
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
    workload: Workload,
    share: float,
    profile: Profile,
    layout: Layout,
    judges: int,
    *,
    held: int,
    slo_p95: float,
    edits: int,
    seed: int,
) -> tuple[int, Outcome] | None:
    """Replicas that a pool with this share of the edits needs, and how they do; None where no number is enough."""
    rate = workload.rate * share
    asked = workload.model_copy(update={"rate": rate, "experts": {"one": 1.0}})
    sample = [edit for _, edit in islice(edits_of(asked, profile, layout, seed), 500)]
    mean = sum(sum(edit.work) for edit in sample) / len(sample)
    load = rate * mean * profile.slowdown(held) / held  # replicas that are busy all the time
    cells = max(1, ceil(load / CELL))
    asked = asked.model_copy(update={"rate": rate / cells})
    pool = "one" if layout == "merged" else "shared"

    def attempt(count: int) -> Outcome:
        return run(
            edits_of(asked, profile, layout, seed), {pool: count}, profile, held=held,
            judges=ceil(judges / cells), edits=edits, warm_up=edits // 2, seed=seed,
        )  # fmt: skip

    low = max(1, ceil(load / cells / MOST_BUSY))
    high, outcome = low, attempt(low)
    while outcome.quantile(0.95) > slo_p95:
        low, high = high + 1, max(high + 1, ceil(1.15 * high))
        outcome = attempt(high)
        if high > 4 * CELL:
            return None
    while low < high:
        middle = (low + high) // 2
        tried = attempt(middle)
        if tried.quantile(0.95) <= slo_p95:
            high, outcome = middle, tried
        else:
            low = middle + 1
    return high * cells, outcome
