"""Measure speed: the engine, the judge, watermarks and, if they are installed, the served platform and the evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from careedit.bench import UNTRAINED, Report, bench_engine, load_subject, random_subject
from careedit.bench.engine import COMPARISONS, MEMORY
from careedit.cli.editors import quieten
from careedit.cli.files import check_outputs, goal_cells, note_goals, write_all, write_report
from careedit.cli.lazy import lazy_group
from careedit.cli.output import DeviceOption, JsonOption, emit_json, emit_table, keeping, note, progress
from careedit.errors import InputError

app = typer.Typer(cls=lazy_group("careedit.bench"), no_args_is_help=True)  # other distributions add commands


@app.callback()
def bench() -> None:
    """Measure speed: the engine, the judge, watermarks and, if they are installed, the served platform and the evaluation."""


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
    family: Annotated[
        str | None,
        typer.Option(help="Instead of a set, a small base with random weights: klein, qwen, fill or kontext."),
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
    if family is not None and expert_set is not None:
        raise InputError("--family measures a base without a set; leave out --family or --expert-set.")
    if out is not None:
        check_outputs([out], [])
    quieten()
    with progress("Loading"):
        load = partial(load_subject, expert_set) if family is None else partial(random_subject, family)
        subject = load(device=device, dtype=torch_dtype(dtype))
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


@app.command("gpu")
def gpu(
    family: Annotated[str, typer.Option(help="The base: klein, qwen, fill or kontext.")] = "klein",
    seconds: Annotated[float, typer.Option(min=1, help="Time budget; cases that do not fit are left out.")] = 480.0,
    reduced: Annotated[
        bool | None,
        typer.Option("--reduced/--full", help="A small base of the same classes. Default: reduced on a CPU."),
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the document here after each case.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write a plot of the figures here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a base of real size with random weights on a GPU: steps, edits, batches, experts, compilation.

    No download is needed. Missed goals do not fail the command. A run that is cut keeps what it has in --out. The reduced
    form checks that every case runs; its seconds say nothing.
    """
    from careedit.bench.gpu import NAMES, Settings, bench_gpu
    from careedit.cli.bench_gpu import check_plot, rows_of, write_plot
    from careedit.loading import find_device

    if family not in NAMES:
        raise InputError(f"The family {family!r} cannot be measured; choose one of {', '.join(NAMES)}.")
    check_outputs([path for path in (out, plot) if path is not None], [])
    if plot is not None:
        check_plot(plot)
    where = find_device(device)
    small = where.type != "cuda" if reduced is None else reduced
    settings = Settings.small(family, seconds=seconds) if small else Settings(family, seconds=seconds)
    if small:
        note("The reduced form runs the same code on a small base; it says nothing about speed.")
    quieten()

    def save(document: Mapping[str, Any]) -> None:
        if out is not None:
            write_all({out: json.dumps(document, indent=2, allow_nan=False) + "\n"})

    usual = torch.bfloat16 if where.type == "cuda" else torch.float32
    left = "nothing is kept without --out." if out is None else f"the finished cases are in {out}."
    with keeping(lambda: left), progress("Measuring"):
        document = bench_gpu(settings, device=where, dtype=torch_dtype(dtype) or usual, save=save, log=note)
    if plot is not None:
        write_plot(plot, document)
    head = ("figure", "value", "goal", "verdict")
    write_report(document, lambda: emit_table(head, rows_of(document)), out=out, as_json=as_json)
    note_goals(document["goals"])


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


@app.command("watermark")
def watermark(
    sides: Annotated[str, typer.Option("--sides", help="Sides of the square pictures, in pixels.")] = "512,1024",
    count: Annotated[int, typer.Option(min=1, help="Number of pictures of each size.")] = 20,
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Your own pictures. Default: drawn ones.")
    ] = None,
    method: Annotated[str, typer.Option(help="The method of the watermark.")] = "spread",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Also write the JSON document to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what an invisible watermark survives, how visible it is, what it costs, and whether unmarked pictures have one."""
    from careedit.bench.watermark import bench_watermark

    lengths = [int(part) for part in sides.split(",") if part.strip().isdecimal()]
    if not lengths or len(lengths) != len(sides.split(",")):
        raise InputError(f"--sides {sides!r} is not a list of numbers; write it as 512,1024.")
    if out is not None:
        check_outputs([out], [])
    with progress("Measuring", count * len(lengths)) as bar:
        document = bench_watermark(method, sides=lengths, count=count, folder=pictures, done=bar.advance)
    write_report(document, lambda: _show_watermark(document["sides"], count), out=out, as_json=as_json)


def _show_watermark(figures: Mapping[str, Any], count: int) -> None:
    columns = list(figures.values())
    rows = [(name, *(f"{one['found'][name]:.0%}" for one in columns)) for name in columns[0]["found"]]
    rows.append(("read wrongly", *(str(one["wrong"]) for one in columns)))
    rows.append(("found in unmarked pictures", *(f"{one['unmarked_found']} of {count}" for one in columns)))
    rows += [(f"PSNR, {name}", *(f"{one['psnr_db'][name]:.1f} dB" for one in columns)) for name in ("median", "worst")]
    for name in columns[0]["cpu_ms_per_megapixel"]:
        rows.append((f"{name}, CPU per megapixel", *(f"{one['cpu_ms_per_megapixel'][name]:.0f} ms" for one in columns)))
    emit_table(("change", *(f"{side} px" for side in figures)), rows)
