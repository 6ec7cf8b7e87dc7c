"""One run of `careedit bench serve`, from the measured systems to the report."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

from careedit.bench.report import environment
from careedit.editing.base_model import use_threads
from careedit.editor import Editor
from careedit_deployments.bench.load import Edit, by_clients, in_batches
from careedit_deployments.bench.measure import behind_long, latencies, replayed, throughputs
from careedit_deployments.bench.report import IN_PROCESS, SERIAL, SERVED, Report
from careedit_deployments.bench.spans import Receiver
from careedit_deployments.bench.stages import TracedEdit, stages
from careedit_deployments.bench.tenants import tenant_loads
from careedit_deployments.bench.trace import TraceRow
from careedit_deployments.bench.workload import Workload

ALONE = "alone"
"""Name of the measurement of short edits without load."""


@dataclass(frozen=True)
class Sides:
    """The measured systems."""

    served: TracedEdit
    """The served platform, through its client."""
    serial: Edit
    """The arm of the platform that works on one edit at a time."""
    spans: Receiver
    """The receiver of the platform's spans."""
    tenants: Sequence[Edit]
    """The served platform, through a client of each tenant; as many as the plan has at once."""
    editor: Editor
    """An editor with the same set in this process, with merged experts."""
    baselines: Mapping[str, Edit]
    """The baseline servers, by name."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Reasons for missing baselines, by name."""


def bench_serve(
    sides: Sides,
    load: Workload,
    rows: Sequence[TraceRow],
    *,
    replica_threads: int,
    threads: int | None = None,
    facts: Mapping[str, Any] | None = None,
    done: Callable[[str], None] = lambda what: None,
) -> Report:
    """Measure everything. `done` is called `runs_of` times with what was measured; `facts` are added to the environment of
    the report.

    On a CPU, latency in this process is measured with `replica_threads`, as many as a replica has, so that both do the same
    work. Throughput uses `threads` (None: torch's default), because a single process may use the whole machine.
    """
    plan = load.plan
    with use_threads(replica_threads):
        local: dict[str, Edit] = {SERVED: sides.served, IN_PROCESS: sides.editor.edit}
        latency = latencies(local, load, partial(done, "latency"))
        spent = stages(sides.served, sides.spans, sides.editor, load.routed(0, plan.traced), partial(done, "stages"))
    with use_threads(threads):
        senders = {name: by_clients(edit, plan.clients) for name, edit in sides.baselines.items()}
        served = by_clients(sides.served, plan.clients)
        batches = {SERVED: served, IN_PROCESS: in_batches(sides.editor), **senders}
        throughput = throughputs(batches, load, partial(done, "throughput"))
        computed = environment(sides.editor.engine.base)
    capacity = plan.edits / statistics.median(throughput.seconds[SERVED])
    tenants = tenant_loads(sides.tenants, load, capacity, partial(done, "tenants"))
    behind = {SERVED: sides.served, SERIAL: sides.serial, ALONE: sides.served}
    shorts = behind_long(behind, load, partial(done, "short edits behind long ones"))
    replays = replayed({SERVED: sides.served, **sides.baselines}, load, rows, partial(done, "the trace"))
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
        stages=spent,
        tenants=tenants,
        throughput=throughput,
        behind_long=shorts,
        replays=replays,
        missing=sides.missing,
    )


def runs_of(load: Workload, baselines: int) -> int:
    """Number of timed runs with this many baselines."""
    plan = load.plan
    turns = 2 * (plan.pairs + plan.traced) + plan.rounds * (2 + baselines) + 3 * plan.rounds
    return turns + len(plan.tenant_edits) + 1 + baselines
