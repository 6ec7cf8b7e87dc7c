"""Measure speed: the engine, the judge and, if they are installed, the served platform and the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from careedit.bench import UNTRAINED, Report, bench_engine, load_subject
from careedit.bench.engine import COMPARISONS, MEMORY
from careedit.cli.editors import quieten
from careedit.cli.files import check_outputs, goal_cells, write_report
from careedit.cli.lazy import lazy_group
from careedit.cli.output import DeviceOption, JsonOption, emit_json, emit_table, note, progress

app = typer.Typer(cls=lazy_group("careedit.bench"), no_args_is_help=True)  # other distributions add commands


@app.callback()
def bench() -> None:
    """Measure speed: the engine, the judge and, if they are installed, the served platform and the evaluation."""


class Dtype(StrEnum):
    """Number formats of the weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Number format; default: float32 on a CPU, bfloat16 on a GPU.")
]


@app.command("engine")
def engine(
    repeats: Annotated[int, typer.Option(min=1, help="Timed pairs per figure; the median is reported.")] = 5,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps per edit; default: the set's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")] = None,
    expert_set: Annotated[
        str | None,
        typer.Option(help=f"Expert set, or {UNTRAINED} for random weights. Default: tiny if it is installed."),
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Also write the JSON document to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure ratios of times within one run, and report which goals they meet.

    The two sides of a ratio run in turn, so that a busy machine slows both. Missed goals do not fail the command: the
    exit code is 0.
    """
    if out is not None:
        check_outputs([out], [])
    quieten()
    with progress("Loading"):
        subject = load_subject(expert_set, device=device, dtype=torch_dtype(dtype))
    with progress("Measuring", 2 * repeats * len(COMPARISONS)) as bar:
        report = bench_engine(subject, repeats=repeats, steps=steps, threads=threads, done=bar.advance)
    document = report.document()
    write_report(document, lambda: _show(report, document["goals"]), out=out, as_json=as_json)


def _show(report: Report, goals: Mapping[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for name, value in report.figures.items():
        comparison = report.comparisons.get(name)
        if comparison is None:
            rows.append((name, f"{value:.4f}", "-", *goal_cells(goals.get(name)), "counted", "-"))
            continue
        spread = " to ".join(f"{bound:.2f}" for bound in comparison.spread)
        times = (f"{seconds:.3f} s" for seconds in comparison.seconds)
        rows.append((name, f"{value:.3f}", spread, *goal_cells(goals.get(name)), *times))
    emit_table(("figure", "value", "spread", "goal", "verdict", "time", "over"), rows)
    shares, facts = report.shares, report.environment
    note(
        f"{MEMORY}: FLUX.1-Fill at rank 32; this set's base: {shares['subject']:.4f} with its own "
        f"experts, {shares['subject_rank_32']:.4f} at rank 32."
    )
    note(
        f"Expert set {facts['expert_set']}, {facts['experts']} experts, {facts['steps']} steps, {facts['repeats']} "
        f"repeats, {facts['threads']} threads, {facts['device']}, {facts['dtype']}, torch {facts['torch']}."
    )


def torch_dtype(dtype: Dtype | None) -> torch.dtype | None:
    """torch's type of the option; None stays None."""
    return None if dtype is None else {Dtype.float32: torch.float32, Dtype.bfloat16: torch.bfloat16}[dtype]


@app.command("scorer")
def scorer(
    judge: Annotated[str, typer.Option(help="The judge: tiny, a folder or a hub id.")] = "tiny",
    pairs: Annotated[int, typer.Option(min=1, help="Number of edits that are scored per run.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Timed pairs of runs; the median is reported.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how many edits a judge scores per second, one at a time and 16 at once."""
    from careedit.bench.scorer import bench_scorer
    from careedit.scoring.vlm import load_judge

    quieten()
    with progress("Loading"):
        loaded = load_judge(judge, device=device, dtype=torch_dtype(dtype))
    with progress("Measuring", 2 * repeats) as bar:
        document = bench_scorer(loaded, pairs=pairs, repeats=repeats, threads=threads, done=bar.advance)
    if as_json:
        emit_json(document)
        return
    emit_table(
        ("pairs at once", "pairs per second"), [(k, f"{v:.1f}") for k, v in document["pairs_per_second"].items()]
    )
    note(f"16 at once are {document['speedup']:.2f} times as fast.")
