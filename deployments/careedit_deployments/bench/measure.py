"""What is measured: one function per figure, the sides of each in turn within one run, so that a busy machine slows all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from careedit.bench.timing import Figure, turns
from careedit.errors import CareEditError
from careedit.records import EditResult
from careedit.stats import percentile
from careedit_deployments.bench.load import Batch, Edit, behind, replay, seconds_of, timed
from careedit_deployments.bench.trace import TraceRow, attainment
from careedit_deployments.bench.workload import Workload

WARM_UP = 2
"""Edits of each side before its latency is taken."""

Done = Callable[[], None]
"""Called after each timed run."""


def latencies(sides: Mapping[str, Edit], load: Workload, done: Done) -> dict[str, list[float]]:
    """Seconds of each edit at concurrency 1, per side; edit by edit the sides take turns, and the turns' order alternates."""
    requests = load.routed(0, WARM_UP + load.plan.pairs)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for i, request in enumerate(requests):
        for name in turns(tuple(sides), i):
            seconds = seconds_of(sides[name], request)
            if i >= WARM_UP:
                taken[name].append(seconds)
                done()
    return taken


@dataclass(frozen=True)
class Throughput:
    """Rounds of many edits at once."""

    seconds: Mapping[str, list[float]]
    """Per side how long each round took; every side had the same edits."""
    largest_difference: int
    """Largest difference, in grey levels, between two sides' pictures of the same edit."""


def throughputs(sides: Mapping[str, Batch], load: Workload, done: Done) -> Throughput:
    """Seconds of each round of edits, experts mixed. Raises what an edit raises: a round that lacks one says nothing."""
    plan = load.plan
    taken: dict[str, list[float]] = {name: [] for name in sides}
    largest = 0
    for name in sides:  # every expert once, by as many clients
        sides[name](load.mixed(0, max(len(load.experts), plan.clients)))
    for i in range(plan.rounds):
        requests = load.mixed(i * plan.edits, plan.edits)
        first: list[EditResult] | None = None
        for name in turns(tuple(sides), i):
            seconds, results = timed(sides[name], requests)
            taken[name].append(seconds)
            largest = max(largest, 0 if first is None else _apart(first, results))
            first = first or results
            done()
    return Throughput(taken, largest)


def behind_long(sides: Mapping[str, Edit], load: Workload, done: Done) -> dict[str, list[list[float]]]:
    """Seconds of short edits, round by round, while long ones of the same expert are in flight.

    The side `alone`, if there is one, does not run long edits.
    """
    plan = load.plan
    (long,) = load.alike(0, 1, plan.long_steps)
    taken: dict[str, list[list[float]]] = {name: [] for name in sides}
    for i in range(plan.rounds):
        shorts = load.alike(i * plan.shorts, plan.shorts, plan.steps)
        for name in turns(tuple(sides), i):
            with behind(sides[name], long, 0 if name == "alone" else plan.longs):
                taken[name].append([seconds_of(sides[name], short) for short in shorts])
            done()
    return taken


def p95s(rounds: Sequence[Sequence[float]]) -> Figure:
    """Each round's 95th percentile."""
    return Figure(tuple(percentile(seconds, 95) for seconds in rounds))


@dataclass(frozen=True)
class Replayed:
    """What became of a trace."""

    attainment: float
    """Share of its requests that were answered in time; one that failed was not."""
    failed: int
    """Requests that failed or were refused."""
    p50: float | None
    """Median seconds of answered requests; None if none was answered."""
    p95: float | None
    """95th percentile of the seconds of answered requests; None if none was answered."""


def replayed(sides: Mapping[str, Edit], load: Workload, rows: Sequence[TraceRow], done: Done) -> dict[str, Replayed]:
    """The trace by each side, one after another: side by side they would be each other's load."""
    requests = load.traced(rows)
    found = {}
    for name, edit in sides.items():
        seconds = replay(edit, requests, [row.arrival_s for row in rows])
        answered = [taken for taken in seconds if taken is not None]
        found[name] = Replayed(
            attainment=attainment(seconds, [row.slo_ms / 1000 for row in rows]),
            failed=len(seconds) - len(answered),
            p50=percentile(answered, 50) if answered else None,
            p95=percentile(answered, 95) if answered else None,
        )
        done()
    return found


def _apart(first: Sequence[EditResult], second: Sequence[EditResult]) -> int:
    """The largest difference of a pixel between two lists of the same edits."""
    largest = 0
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one.images, other.images, strict=True):
            if a.size != b.size:
                raise CareEditError(
                    "Two sides answer the same edit with pictures of two sizes; their times say nothing."
                )
            largest = max(largest, int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()))
    return largest
