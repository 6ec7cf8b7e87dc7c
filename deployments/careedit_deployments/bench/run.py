"""One run of `careedit bench serve`: from its sides to its report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from careedit.bench.report import environment
from careedit.bench.timing import use_threads
from careedit.editor import Editor
from careedit_deployments.bench.load import Edit, by_clients, in_batches
from careedit_deployments.bench.measure import behind_long, latencies, replayed, throughputs
from careedit_deployments.bench.report import IN_PROCESS, SERIAL, SERVED, Report
from careedit_deployments.bench.trace import TraceRow
from careedit_deployments.bench.workload import Workload

ALONE = "alone"
"""The side of short edits with nothing before them."""


@dataclass(frozen=True)
class Sides:
    """Everything that edits."""

    served: Edit
    """The platform."""
    serial: Edit
    """The platform's arm that takes one edit at a time."""
    editor: Editor
    """The same set in this process, experts merged."""
    baselines: Mapping[str, Edit]
    """Other servers, by name."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Those that were left out, and why."""


def bench_serve(
    sides: Sides,
    load: Workload,
    rows: Sequence[TraceRow],
    *,
    replica_threads: int,
    threads: int | None = None,
    facts: Mapping[str, Any] | None = None,
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Measure. `done` is called `runs_of` times; `facts` are told in the environment.

    On a CPU the latency is taken in process with `replica_threads`, as many as a replica has, so that it is the same edit;
    the throughput with `threads` (None: torch's choice), because a loop that is alone may have the whole machine.
    """
    plan = load.plan
    with use_threads(replica_threads):
        latency = latencies({SERVED: sides.served, IN_PROCESS: sides.editor.edit}, load, done)
    with use_threads(threads):
        senders = {name: by_clients(edit, plan.clients) for name, edit in sides.baselines.items()}
        served = by_clients(sides.served, plan.clients)
        throughput = throughputs({SERVED: served, IN_PROCESS: in_batches(sides.editor), **senders}, load, done)
        computed = environment(sides.editor.engine.base)
    shorts = behind_long({SERVED: sides.served, SERIAL: sides.serial, ALONE: sides.served}, load, done)
    replays = replayed({SERVED: sides.served, **sides.baselines}, load, rows, done)
    loaded = sides.editor.expert_set
    return Report(
        environment={
            "expert_set": loaded.name,
            "expert_set_sha256": loaded.sha256,
            "experts": list(load.experts),
            "plan": {**plan.model_dump(), "long_steps": plan.long_steps, "trace_rows": len(rows)},
            "cpus": os.cpu_count(),
            "replica_threads": replica_threads,
            **computed,
            **{
                name: metadata.version(name)
                for name in ("ray", "fastapi", *(["litserve"] if "litserve" in senders else []))
            },
            **(facts or {}),
        },
        latencies=latency,
        throughput=throughput,
        behind_long=shorts,
        replays=replays,
        missing=sides.missing,
    )


def runs_of(load: Workload, baselines: int) -> int:
    """How many timed runs there will be with so many baselines."""
    plan = load.plan
    return 2 * plan.pairs + plan.rounds * (2 + baselines) + 3 * plan.rounds + 1 + baselines
