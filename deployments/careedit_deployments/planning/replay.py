"""A recorded trace (`careedit_deployments.bench.trace`) through autoscaled pools: what the settings of a `ServeConfig` make of it."""

from __future__ import annotations

from collections.abc import Sequence

from careedit.errors import InputError
from careedit.record import Record
from careedit.stats import percentile
from careedit_deployments.bench.trace import TraceRow, attainment
from careedit_deployments.config import ServeConfig
from careedit_deployments.planning.model import EXPERTS, Filter, Layout, Profile
from careedit_deployments.planning.runs import ALL, run, seconds_alone
from careedit_deployments.planning.simulate import Edit


class Replay(Record):
    """What came of a trace."""

    layout: str
    """merged or shared."""
    edits: int
    """Edits that were answered."""
    refused: int
    """Edits that were turned away because the queue was full."""
    p50: float
    """Median of the seconds from arrival to answer."""
    p95: float
    """95th percentile."""
    in_time: float
    """Part of all edits, refused ones included, that was answered within its row's `slo_ms`."""
    gpu_hours: float
    """GPU hours that were paid for, starting replicas and judges included."""
    usd_per_1000: float
    """US dollars for 1,000 answered edits."""


class Passage(Record):
    """What became of a trace."""

    answered: int
    """Edits that were answered."""
    p50: float
    """Median of the seconds from arrival to answer."""
    p95: float
    """95th percentile (nearest rank)."""
    per_second: float
    """Answered edits over the seconds from the trace's beginning to the last answer."""


def judges_of(config: ServeConfig) -> int:
    """Judges of a configuration: the scorer pool at its largest."""
    return 0 if config.scorer.backend == "none" else config.scorer.deployment.scaling.max_replicas


def replay(
    trace: Sequence[TraceRow],
    profile: Profile,
    layout: Layout,
    config: ServeConfig,
    *,
    filter_: Filter | None = None,
    usd_per_hour: float,
    seed: int = 0,
) -> Replay:
    """Send a trace through pools that start at their fewest replicas and scale as Ray Serve would.

    Every source is fitted into a panel, so the size of a row changes nothing.
    """
    judges = judges_of(config)
    used = filter_ if judges else None
    arrivals = arrivals_of(trace, profile, layout, used)
    outcome = run(
        arrivals,
        _pools(arrivals, config),
        profile,
        held=config.expert.max_ongoing_requests,
        queue=config.expert.max_queued_requests,
        judges=judges if used else 0,
        scaling=config.expert.scaling,
        edits=len(arrivals),
        warm_up=0,
        seed=seed,
    )
    hours = outcome.gpu_seconds / 3600
    return Replay(
        layout=layout,
        edits=outcome.edits,
        refused=outcome.refused,
        p50=outcome.quantile(0.5),
        p95=outcome.quantile(0.95),
        in_time=attainment(_taken(arrivals), [row.slo_ms / 1000 for row in trace]),
        gpu_hours=hours,
        usd_per_1000=1000 * hours * usd_per_hour / outcome.edits,
    )


def arrivals_of(
    trace: Sequence[TraceRow],
    profile: Profile,
    layout: Layout,
    filter_: Filter | None = None,
    *,
    experts: Sequence[str] = EXPERTS,
    long_tail: Sequence[str] = (),
) -> list[tuple[float, Edit]]:
    """Per row, the seconds since the one before, and its edit. Rows without an expert get `experts` in turn.

    Experts of the `long_tail` have the shared pool in a merged layout, too.
    """
    arrivals, before = [], 0.0
    for i, row in enumerate(trace):
        expert = experts[i % len(experts)] if row.expert is None else row.expert
        own = layout == "merged" and expert not in long_tail
        work, judgements = seconds_alone(profile, "merged" if own else "shared", row.steps, filter_, row.n)
        arrivals.append((row.arrival_s - before, Edit(expert if own else ALL, work, judgements)))
        before = row.arrival_s
    return arrivals


def _pools(arrivals: Sequence[tuple[float, Edit]], config: ServeConfig) -> dict[str, int]:
    """The pools that the edits need, each with the replicas that it starts with."""
    return dict.fromkeys(sorted({edit.pool for _, edit in arrivals}), max(1, config.expert.scaling.min_replicas))


def _taken(arrivals: Sequence[tuple[float, Edit]]) -> list[float | None]:
    """Seconds from each arrival to its answer, once they were simulated; None: there was none."""
    return [None if edit.left is None else edit.left - edit.came for _, edit in arrivals]


def predict(
    rows: Sequence[TraceRow], profile: Profile, config: ServeConfig, experts: Sequence[str], long_tail: Sequence[str]
) -> Passage:
    """What the simulation makes of a trace."""
    arrivals = arrivals_of(rows, profile, "merged", experts=experts, long_tail=long_tail)
    scaling = config.expert.scaling
    run(
        arrivals,
        _pools(arrivals, config),
        profile,
        held=config.expert.max_ongoing_requests,
        queue=config.expert.max_queued_requests,
        scaling=scaling if scaling.max_replicas > max(1, scaling.min_replicas) else None,
        edits=len(arrivals),
        warm_up=0,
    )
    return passage(rows, _taken(arrivals))


def passage(rows: Sequence[TraceRow], seconds: Sequence[float | None]) -> Passage:
    """The figures of a trace's answers; None stands for a row without one. Raises `InputError` where there is none at all."""
    answered = [(row.arrival_s + taken, taken) for row, taken in zip(rows, seconds, strict=True) if taken is not None]
    if not answered:
        raise InputError("Not one request of the trace was answered; see the server's log, or give another trace.")
    taken = [own for _, own in answered]
    return Passage(
        answered=len(answered),
        p50=percentile(taken, 50),
        p95=percentile(taken, 95),
        per_second=len(answered) / max(end for end, _ in answered),
    )
