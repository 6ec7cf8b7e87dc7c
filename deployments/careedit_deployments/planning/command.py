"""`careedit plan`: replicas, GPUs and cost for a load, by simulating the served platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from careedit.cli.output import JsonOption, emit_json, emit_table, note, progress
from careedit.errors import InputError
from careedit_deployments.bench.trace import MIXED, TraceRow, TraceScaleOption, read_trace
from careedit_deployments.cli.serve import named_config
from careedit_deployments.config import Arm, ServeConfig
from careedit_deployments.deployment import DeploymentConfig, Scaling
from careedit_deployments.planning.model import (
    EXPERTS,
    LAYOUTS,
    Filter,
    Profile,
    Workload,
    choose,
    load_prices,
    load_profiles,
)
from careedit_deployments.planning.plan import Goal, break_even, table
from careedit_deployments.planning.plot import cells, check_plot, write_plot
from careedit_deployments.planning.replay import replay

app = typer.Typer(add_completion=False)

ASSUMED = ServeConfig(
    arms={"assumed": Arm(expert_set="assumed")},
    expert=DeploymentConfig(max_ongoing_requests=1, max_queued_requests=10**9, scaling=Scaling(max_replicas=8)),
)
"""Configuration of a trace without `--config`: one to eight replicas per pool, one edit per replica, and an unlimited queue."""

HEADS = ("edits/s", "experts", "filter", "replicas", "judges", "GPUs", "p50", "p95", "busy", "$ per 1,000")


@app.command("plan")
def plan(
    rate: Annotated[
        str, typer.Option("--rate", help="Edits per second; separate several with commas.")
    ] = "1,10,100,1000",
    slo_p95: Annotated[
        float, typer.Option("--slo-p95", help="Maximum 95th percentile of the seconds of an edit.")
    ] = 16.0,
    profile: Annotated[str, typer.Option("--profile", help="Machine, an entry of profiles.yaml.")] = "dit20b-h200",
    steps: Annotated[int, typer.Option("--steps", min=1, max=200, help="Denoising steps per edit.")] = 28,
    candidates: Annotated[int, typer.Option("--candidates", min=2, max=16, help="Candidates of the early filter.")] = 6,
    preview_steps: Annotated[
        int, typer.Option("--preview-steps", min=1, help="Steps before the previews are judged.")
    ] = 4,
    filter_share: Annotated[
        float, typer.Option("--filter-share", min=0, max=1, help="Share of edits that use the early filter.")
    ] = 1.0,
    experts: Annotated[int, typer.Option("--experts", min=1, help="Number of experts, used equally often.")] = 5,
    held: Annotated[int, typer.Option("--held", min=1, help="Edits that a replica works on at the same time.")] = 1,
    step_seconds: Annotated[
        float | None, typer.Option("--step-seconds", help="Seconds of one step, instead of the profile's.")
    ] = None,
    price: Annotated[str | None, typer.Option("--price", help="Price, an entry of prices.yaml.")] = None,
    usd_per_hour: Annotated[
        float | None, typer.Option("--usd-per-hour", help="US dollars per GPU hour, instead of a price.")
    ] = None,
    edits: Annotated[
        int, typer.Option("--edits", min=100, help="Edits per simulation; more give a more precise result.")
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the simulation.")] = 0,
    even: Annotated[
        bool, typer.Option("--break-even/--no-break-even", help="Find the rate from which merged experts are cheaper.")
    ] = True,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png|.html", help="Write a plot to this file.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE.jsonl", help="Simulate this trace with autoscaling instead of rates."),
    ] = None,
    trace_scale: TraceScaleOption = 1.0,
    config: Annotated[
        str | None, typer.Option("--config", help="Serving configuration for a trace: a YAML file or a name.")
    ] = None,
    check_against_local: Annotated[
        bool,
        typer.Option(
            "--check-against-local",
            help="Serve the configuration on this machine and compare the simulation of a trace with it.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Estimate replicas, GPUs and cost per 1,000 edits, for merged and shared experts, with and without early filter."""
    if plot is not None:
        check_plot(plot)
    if slo_p95 <= 0:
        raise InputError(f"--slo-p95 is {slo_p95:g}; give seconds above 0.")
    rates = _rates(rate)
    machine = _machine(profile, step_seconds)
    if check_against_local:
        arrivals = [row.slowed(trace_scale) for row in read_trace(trace or MIXED)]
        _check(arrivals, named_config(config or "tiny"), machine, as_json)
        return
    dollars, priced = _price(machine, price, usd_per_hour)
    used = Filter(candidates=candidates, preview_steps=preview_steps)
    if trace is not None:
        arrivals = [row.slowed(trace_scale) for row in read_trace(trace)]
        settings = None if config is None else named_config(config)
        _replay(arrivals, settings, machine, used, dollars, seed, as_json)
        return
    names = [EXPERTS[i] if i < len(EXPERTS) else f"expert-{i + 1}" for i in range(experts)]
    workload = Workload(rate=rates[0], steps={steps: 1.0}, experts=dict.fromkeys(names, 1.0), filter_share=filter_share)
    goal = Goal(slo_p95=slo_p95, usd_per_hour=dollars, held=held, edits=edits, seed=seed)
    with progress("Simulating", 4 * len(rates)) as bar:
        rows = table(rates, workload, machine, used, goal, done=bar.advance)
    smallest: float | Literal["unknown"] | None = "unknown"
    if even:
        with progress("Comparing merged and shared"):
            smallest = break_even(workload, machine, goal)
    caption = f"{machine.name}, {steps} steps, p95 within {slo_p95:g} s, {dollars:g} $ per GPU hour"
    if plot is not None:
        write_plot(plot, rows, caption)
    if as_json:
        emit_json(
            {
                "version": 1,
                "profile": machine,
                "usd_per_hour": dollars,
                "price": priced,
                "slo_p95": slo_p95,
                "rows": [row.model_dump() for row in rows],
                "merged_from_rate": smallest,
            }
        )
        return
    emit_table(HEADS, [cells(row) for row in rows])
    note(f"{caption} ({priced}).")
    note(f"{machine.name}: {machine.source}.")
    if even:
        note(
            "Shared experts cost less than merged ones at every rate that was tried."
            if smallest is None
            else f"Merged experts cost no more than shared ones from {smallest:g} edits per second on."
        )


def _replay(
    trace: list[TraceRow],
    config: ServeConfig | None,
    machine: Profile,
    used: Filter,
    dollars: float,
    seed: int,
    as_json: bool,
) -> None:
    """Simulate a trace with both layouts, with the early filter if the configuration has a judge, and print the result."""
    rows = [
        replay(trace, machine, layout, config or ASSUMED, filter_=used, usd_per_hour=dollars, seed=seed)
        for layout in LAYOUTS
    ]
    if as_json:
        emit_json({"version": 1, "profile": machine, "usd_per_hour": dollars, "replays": rows})
        return
    heads = ("experts", "edits", "refused", "p50", "p95", "in time", "GPU hours", "$ per 1,000")
    lines = [
        (row.layout, row.edits, row.refused, f"{row.p50:.1f} s", f"{row.p95:.1f} s", f"{row.in_time:.1%}",
         f"{row.gpu_hours:.2f}", f"{row.usd_per_1000:.2f}")
        for row in rows
    ]  # fmt: skip
    emit_table(heads, lines)


def _check(trace: list[TraceRow], config: ServeConfig, machine: Profile, as_json: bool) -> None:
    """Send a trace through the served platform and through the simulation, and print both results."""
    try:
        from careedit.cli.editors import quieten  # imported here, because it needs Ray and torch
        from careedit_deployments.planning.check import check
    except ModuleNotFoundError as error:
        raise InputError(f"--check-against-local needs {error.name}; install careedit[serve].") from None
    quieten()
    note("Starting the platform (a minute or two on two cores) ...")
    with progress("Serving, measuring, replaying", 3) as bar:
        found = check(config, trace, machine, done=bar.advance)
    if as_json:
        emit_json({"version": 1, **found.model_dump()})
        return
    rows = [
        (name, passage.answered, f"{passage.p50:.2f} s", f"{passage.p95:.2f} s", f"{passage.per_second:.2f}")
        for name, passage in (("predicted", found.predicted), ("measured", found.measured))
    ]
    emit_table(("", "answered", "p50", "p95", "edits/s"), rows)
    one = found.profile
    note(
        f"Measured: a step {1000 * one.step_s:.1f} ms, {one.fixed:.0%} of it independent of the batch, a shared step {one.shared_ratio:.2f} times that; "
        f"encoders {1000 * one.encode_s:.0f} ms, decoder {1000 * one.decode_s:.0f} ms, overhead {1000 * one.overhead_s:.0f} ms."
    )


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < one <= 100_000 for one in rates):
        raise InputError(f"--rate {text!r} is not a list of rates; give edits per second such as 1,10,100.")
    return rates


def _machine(name: str, step_seconds: float | None) -> Profile:
    machine: Profile = choose("profile", name, load_profiles())
    if step_seconds is None:
        return machine
    return Profile(**{**machine.model_dump(), "step_s": step_seconds, "source": f"--step-seconds; {machine.source}"})


def _price(machine: Profile, name: str | None, usd_per_hour: float | None) -> tuple[float, str]:
    if usd_per_hour is not None:
        if usd_per_hour <= 0:
            raise InputError(f"--usd-per-hour is {usd_per_hour:g}; give a price above 0.")
        return usd_per_hour, "--usd-per-hour"
    wanted = name or machine.price
    if wanted is None:
        raise InputError(f"The profile {machine.name!r} has no price; give --usd-per-hour.")
    chosen = choose("price", wanted, load_prices())
    return chosen.usd_per_hour, f"{chosen.name}, {chosen.region}, read {chosen.date}: {chosen.source}"
