"""A recorded trace (`careedit_deployments.bench.trace`) through simulated pools that scale as a `ServeConfig` says."""

from __future__ import annotations

from collections.abc import Sequence

from careedit.errors import InputError
from careedit.record import Record
from careedit.stats import percentile
from careedit_deployments.bench.trace import TraceRow, attainment
from careedit_deployments.config import ServeConfig
from careedit_deployments.deployment import Scaling
from careedit_deployments.planning.model import EXPERTS, Filter, Layout, Profile
from careedit_deployments.planning.runs import ALL, Outcome, run, seconds_alone
from careedit_deployments.planning.simulate import Edit


class Replay(Record):
    """Result of a simulated trace, with its cost."""

    layout: str
    """Layout of the experts: merged or shared."""
    edits: int
    """Number of edits that were answered."""
    refused: int
    """Number of edits that were rejected because the queue was full."""
    p50: float
    """Median of the seconds from arrival to answer."""
    p95: float
    """95th percentile of the seconds from arrival to answer."""
    in_time: float
    """Share of all edits, rejected ones included, that were answered within the `slo_ms` of their row."""
    gpu_hours: float
    """Paid GPU hours, including starting replicas and judges."""
    usd_per_1000: float
    """US dollars per 1,000 answered edits."""


class Passage(Record):
    """Result of a trace, predicted or measured."""

    answered: int
    """Number of edits that were answered."""
    p50: float
    """Median of the seconds from arrival to answer."""
    p95: float
    """95th percentile of the seconds from arrival to answer (nearest rank)."""
    per_second: float
    """Answered edits per second, from the start of the trace to the last answer."""


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
    """Send a trace through pools that start with their minimum of replicas and scale as Ray Serve does.

    Every source is scaled to a panel, so the size in a row has no effect.
    """
    judges = judges_of(config)
    used = filter_ if judges else None
    arrivals = arrivals_of(trace, profile, layout, used)
    outcome = _run(arrivals, profile, config, config.expert.scaling, judges=judges if used else 0, seed=seed)
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
    """Per row, the seconds since the previous row, and its edit. Rows without an expert get `experts` in turn.

    Experts of the `long_tail` use the shared pool in a merged layout, too.
    """
    arrivals, before = [], 0.0
    for i, row in enumerate(trace):
        expert = experts[i % len(experts)] if row.expert is None else row.expert
        own = layout == "merged" and expert not in long_tail
        work, judgements = seconds_alone(profile, "merged" if own else "shared", row.steps, filter_, row.n)
        arrivals.append((row.arrival_s - before, Edit(expert if own else ALL, work, judgements)))
        before = row.arrival_s
    return arrivals


def _run(
    arrivals: Sequence[tuple[float, Edit]],
    profile: Profile,
    config: ServeConfig,
    scaling: Scaling | None,
    *,
    judges: int = 0,
    seed: int = 0,
) -> Outcome:
    """Simulate all edits. Each pool that they need starts with its minimum of replicas."""
    expert = config.expert
    return run(
        arrivals,
        dict.fromkeys(sorted({edit.pool for _, edit in arrivals}), max(1, expert.scaling.min_replicas)),
        profile,
        held=expert.max_ongoing_requests,
        queue=expert.max_queued_requests,
        judges=judges,
        scaling=scaling,
        edits=len(arrivals),
        warm_up=0,
        seed=seed,
    )


def _taken(arrivals: Sequence[tuple[float, Edit]]) -> list[float | None]:
    """Seconds from each arrival to its answer, after the simulation. None: no answer."""
    return [None if edit.left is None else edit.left - edit.came for _, edit in arrivals]


def predict(
    rows: Sequence[TraceRow], profile: Profile, config: ServeConfig, experts: Sequence[str], long_tail: Sequence[str]
) -> Passage:
    """Simulate a trace with the merged layout."""
    arrivals = arrivals_of(rows, profile, "merged", experts=experts, long_tail=long_tail)
    scaling = config.expert.scaling
    _run(arrivals, profile, config, scaling if scaling.max_replicas > max(1, scaling.min_replicas) else None)
    return passage(rows, _taken(arrivals))


def passage(rows: Sequence[TraceRow], seconds: Sequence[float | None]) -> Passage:
    """Result of a trace from the seconds of its answers (None: no answer). Raises `InputError` if no row was answered."""
    answered = [(row.arrival_s + taken, taken) for row, taken in zip(rows, seconds, strict=True) if taken is not None]
    if not answered:
        raise InputError("No request of the trace was answered; see the log of the server, or use another trace.")
    taken = [own for _, own in answered]
    return Passage(
        answered=len(answered),
        p50=percentile(taken, 50),
        p95=percentile(taken, 95),
        per_second=len(answered) / max(end for end, _ in answered),
    )
