"""`careedit bench serve`: compares the served platform with an editor in one process, LitServe and plain FastAPI."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from careedit.cli.editors import quieten
from careedit.cli.files import check_outputs, goal_cells, write_report
from careedit.cli.output import JsonOption, emit_table, note, progress
from careedit.editor import load_editor
from careedit.errors import InputError
from careedit.experts import load_expert_set
from careedit_deployments.app import set_reference
from careedit_deployments.bench.baselines import NAMES, BaselineSettings
from careedit_deployments.bench.load import Edit
from careedit_deployments.bench.report import IN_PROCESS, SERVED, Report
from careedit_deployments.bench.serve import Sides, bench_serve, runs_of
from careedit_deployments.bench.servers import (
    SERIAL_ARM,
    ServedConfigOption,
    arm_of,
    baseline,
    free_port,
    platform,
    with_serial_arm,
    with_telemetry,
)
from careedit_deployments.bench.spans import receive_spans
from careedit_deployments.bench.stages import STAGES
from careedit_deployments.bench.tenants import tenant_keys
from careedit_deployments.bench.trace import MIXED, TraceScaleOption, read_trace
from careedit_deployments.bench.workload import QUICK, BenchPlan, Workload
from careedit_deployments.cli.serve import named_config
from careedit_deployments.client import Client

app = typer.Typer(add_completion=False)


@app.command("serve")
def serve(
    config: ServedConfigOption = "tiny",
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Rounds per system; medians are reported.  [default: 3]")
    ] = None,
    edits: Annotated[
        int | None, typer.Option("--edits", min=1, help="Edits per round of throughput.  [default: 40]")
    ] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", min=1, help="Clients that send the edits.  [default: 16]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps per edit. Default: the set's default.")
    ] = None,
    trace: Annotated[Path, typer.Option("--trace", metavar="FILE.jsonl", help="Requests to replay.")] = MIXED,
    trace_scale: TraceScaleOption = 1.0,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads of each baseline. Default: torch's default.")
    ] = None,
    switching: Annotated[
        Literal["merged", "shared"], typer.Option("--switching", help="How the baselines switch experts.")
    ] = "merged",
    without: Annotated[
        list[str] | None, typer.Option("--without", help=f"Skip a baseline: {' or '.join(NAMES)}.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Send only a few requests, to check that it works.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="Also write the JSON document to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure latency and its stages, throughput, tenants at once, short edits behind long ones, and a trace.

    The platform runs on a new Ray cluster, each baseline in a process of its own; all take turns. Missed goals are reported
    but do not fail the command (exit code 0).
    """
    if out is not None:
        check_outputs([out], [])
    missing = _left_out(without or [])
    settings = named_config(config)
    arm = arm_of(settings)[1]
    reference = set_reference(arm.expert_set)
    loaded = load_expert_set(reference)
    asked = {"rounds": rounds, "edits": edits, "clients": clients}
    plan = BenchPlan(
        steps=steps or (2 if quick else loaded.spec.defaults.steps),
        **{**(QUICK if quick else {}), **{name: value for name, value in asked.items() if value is not None}},
    )
    rows = [row.slowed(trace_scale) for row in read_trace(trace)[: plan.trace_rows]]
    load = Workload(plan, loaded.names, loaded.spec.panel.size)
    deployment = arm.experts.get(load.experts[0], settings.expert)
    quieten()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="careedit-bench-")))
        note("Starting the platform (a minute or two on two cores) ...")
        spans = stack.enter_context(receive_spans())
        served = with_telemetry(with_serial_arm(settings, loaded.names, folder), spans.url)
        url = stack.enter_context(platform(served))
        client = stack.enter_context(Client(url))
        keys = tenant_keys(served, max(plan.tenant_edits))
        tenants = [stack.enter_context(Client(url, key=key)).edit for key in keys]
        baselines: dict[str, Edit] = {}
        for name in (name for name in NAMES if name not in missing):
            wanted = BaselineSettings(
                expert_set=reference,
                port=free_port(),
                application=switching,
                device=arm.device,
                dtype=arm.dtype,
                threads=threads,
            )
            note(f"Starting {name} ...")
            address = stack.enter_context(baseline(name, wanted, folder / f"{name}.log"))
            baselines[name] = stack.enter_context(Client(address)).edit
        dtype = None if arm.dtype is None else getattr(torch, arm.dtype)
        editor = load_editor(reference, device=arm.device, dtype=dtype, application="merged")
        serial = partial(client.edit, model=SERIAL_ARM)
        sides = Sides(client.edit, serial, spans, tenants, editor, baselines, missing)
        with progress("Measuring", runs_of(load, len(baselines))) as bar:

            def done(what: str) -> None:
                bar.advance()
                bar.describe(f"Measuring {what}")

            report = bench_serve(
                sides,
                load,
                rows,
                replica_threads=deployment.threads or max(1, int(deployment.num_cpus)),
                threads=threads,
                facts={"config": config, "switching": switching, "trace": trace.name, "trace_scale": trace_scale},
                done=done,
            )
    document = report.document()
    write_report(document, lambda: show(report), out=out, as_json=as_json)


def _left_out(without: list[str]) -> dict[str, str]:
    """Baselines that are not measured, with the reason. Raises `InputError` for an unknown one."""
    for name in without:
        if name not in NAMES:
            raise InputError(f"The baseline {name!r} does not exist; use {' or '.join(NAMES)}.")
    missing = dict.fromkeys(without, "left out by --without")
    if "litserve" not in missing and find_spec("litserve") is None:
        missing["litserve"] = "the package litserve is not installed; install it with: pip install litserve"
    return missing


def show(report: Report) -> None:
    """Write the figures as a table, and details as notes."""
    document = report.document()
    rows: list[tuple[str, ...]] = []
    for name, figure in report.figures.items():
        goal, verdict = goal_cells(document["goals"].get(name))
        if figure is None:
            rows.append((name, "-", "-", goal, verdict))
        else:
            spread = " to ".join(f"{bound:.3g}" for bound in figure.spread)
            rows.append((name, f"{figure.value:.3f}", spread, goal, verdict))
    emit_table(("figure", "value", "spread", "goal", "verdict"), rows)
    emit_table(("stage", "ms", "ms in process", "what"), stage_rows(report.stages))
    _show_details(document["details"], document["environment"])
    for name, reason in report.missing.items():
        note(f"{name}: {reason}.")


def stage_rows(stages: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, ...]]:
    """The stages of an edit and their sums, as rows of a table."""
    sums = {side: sum(one[side] or 0.0 for one in stages.values()) for side in (SERVED, IN_PROCESS)}
    table = {**stages, "sum": sums}
    return [
        (
            name,
            *("-" if one[side] is None else f"{one[side]:.1f}" for side in (SERVED, IN_PROCESS)),
            STAGES.get(name, ""),
        )
        for name, one in table.items()
    ]


def _show_details(details: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    speeds = ", ".join(f"{name} {value:.2f}" for name, value in details["throughput"]["edits_per_second"].items())
    note(f"Edits per second: {speeds}.")
    for count, one in details["tenants"].items():
        slowest = max((tenant["p95"] for tenant in one["tenants"] if tenant["p95"] is not None), default=float("nan"))
        note(f"{count} tenants: fairness index {one['fairness']:.3f}, p95 of the slowest {slowest:.2f} s.")
    shares = ", ".join(f"{name} {one['attainment']:.0%}" for name, one in details["trace"].items())
    note(f"Requests of the trace {facts['trace']} that were answered in time: {shares}.")
    difference = details["throughput"]["largest_difference"]
    note(f"The same edit by two sides differs by at most {difference} of 255 grey levels.")
    plan = facts["plan"]
    note(
        f"Expert set {facts['expert_set']}, {plan['steps']} steps, {plan['rounds']} rounds of {plan['edits']} edits by "
        f"{plan['clients']} clients, {facts['cpus']} CPUs, {facts['device']}, {facts['dtype']}."
    )
