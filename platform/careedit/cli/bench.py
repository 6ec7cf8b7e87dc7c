"""Measure the engine (switching, batching, step time, memory, the loop against diffusers' own), edits, filter and judge."""

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
from careedit.cli.files import check_outputs, write_all
from careedit.cli.lazy import lazy_group
from careedit.cli.measured import goal_cells, note_goals, tell
from careedit.cli.output import JsonOption, emit_json, emit_table, note, progress
from careedit.errors import InputError
from careedit_tiny.cli import bench_filter

app = typer.Typer(cls=lazy_group("careedit.bench"), no_args_is_help=True)  # other distributions add theirs
app.add_typer(bench_filter.app)


@app.callback()
def bench() -> None:
    """Measure the engine, the quality of edits, the early filter and its judge; and the served platform, if installed."""


class Dtype(StrEnum):
    """Number formats of the weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Number format; default: float32 on a CPU, bfloat16 on a GPU.")
]


@app.command("engine")
def engine(
    repeats: Annotated[int, typer.Option("--repeats", help="Timed pairs per figure; the median is told.")] = 5,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps per edit; default: the set's.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads; default: torch's choice.")] = None,
    expert_set: Annotated[
        str | None,
        typer.Option("--expert-set", help=f"A set, or {UNTRAINED}; default: tiny, where it is installed."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one.")] = None,
    dtype: DtypeOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Also write the JSON there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take ratios of times within one run, and say which goals they meet.

    Times are compared in pairs that take turns, so that a busy machine disturbs both sides alike. An unmet goal is told,
    it is no failure: the exit code is 0.
    """
    for name, value in (("--repeats", repeats), ("--steps", steps), ("--threads", threads)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")
    if out is not None:
        check_outputs([out], [])
    quieten()
    with progress("Loading"):
        subject = load_subject(expert_set, device=device, dtype=_dtype(dtype))
    with progress("Measuring", 2 * repeats * len(COMPARISONS)) as bar:
        report = bench_engine(subject, repeats=repeats, steps=steps, threads=threads, done=bar.advance)
    document = report.document()
    tell(document, lambda: _show(report, document["goals"]), out=out, as_json=as_json)


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


@app.command("quality")
def quality(
    n: Annotated[int, typer.Option("--n", help="Test scenes, the kinds in turn.")] = 600,
    seed: Annotated[int, typer.Option("--seed", help="Decides the noise of every edit.")] = 0,
    expert_set: Annotated[
        str, typer.Option("--expert-set", help="Name, folder or address of the expert set.")
    ] = "tiny",
    unified: Annotated[
        Path | None,
        typer.Option("--unified", metavar="FOLDER", help="The unified LoRA; default: the set's baselines/unified."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps per edit; default: the set's.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Edits denoised together, 1 to 8.")] = 8,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads; default: torch's choice.")] = None,
    validation_n: Annotated[
        int | None, typer.Option("--validation-n", help="Scenes that choose the best single expert; default: n/4.")
    ] = None,
    infeasible_n: Annotated[
        int | None, typer.Option("--infeasible-n", help="Instructions that do not apply; default: n/6.")
    ] = None,
    chains_n: Annotated[int | None, typer.Option("--chains-n", help="Three-turn chains; default: n/6.")] = None,
    oracle_seeds: Annotated[
        int,
        typer.Option("--oracle-seeds", help="2: the oracle picks on other noise than it is scored on; 1: the same."),
    ] = 2,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="FOLDER", help="Keeps outcomes, so that a killed run goes on.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one.")] = None,
    dtype: DtypeOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Also write the JSON there.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE.html", help="Write a page there.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw an edit of each kind there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure who edits right: no edit, base, each expert, one LoRA for all, and every way of routing, with intervals.

    Every edit is judged against the exact truth. An unmet goal is told, it is no failure: the exit code is 0.
    """
    from careedit.editor import MAX_BATCH
    from careedit.records import MAX_STEPS
    from careedit_tiny.bench.quality import Bench, OutcomeCache, Plan, bench_quality
    from careedit_tiny.bench.quality import load_subject as load
    from careedit_tiny.bench.quality.page import gallery_rows
    from careedit_tiny.report.gallery import draw_gallery
    from careedit_tiny.report.quality import write_quality_page

    for name, value, most in (
        ("--steps", steps, MAX_STEPS),
        ("--batch", batch, MAX_BATCH),
        ("--threads", threads, 1024),
    ):
        if value is not None and not 1 <= value <= most:
            raise InputError(f"{name} is {value}; it must lie between 1 and {most}.")
    plan = Plan(n, seed, validation_n, infeasible_n, chains_n, oracle_seeds)
    check_outputs([path for path in (out, html, picture) if path is not None], [])
    quieten()
    with progress("Loading"):
        subject = load(expert_set, unified=unified, steps=steps, device=device, dtype=_dtype(dtype))
        kept = OutcomeCache(cache)
    if kept.unreadable:
        note(f"{kept.unreadable} lines of the cache could not be read; their edits are made again.")
    total = plan.edits(len(subject.experts), unified=subject.unified is not None, learned=subject.learned)
    with progress("Editing", total) as bar:
        report = bench_quality(Bench(subject, plan, kept, batch, bar.advance), threads=threads)
    document = report.document
    scenes = gallery_rows(report)
    if html is not None:
        write_quality_page(html, document, scenes)
    if picture is not None:
        router = "learned_top1" if subject.learned else "rules"
        write_all({picture: draw_gallery(scenes, ("base", "unified", router))})
    tell(document, lambda: _show_quality(document), out=out, as_json=as_json)


def _show_quality(document: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for name, row in document["rows"].items():
        if row is None:
            rows.append((name, "missing", *["-"] * 5))
            continue
        low, high = row["ci"]
        figures = (f"{row['preservation_error']:.4f}", f"{row['l1']:.4f}", f"{row['nfe']:.1f}", f"{row['seconds']:.3f}")
        rows.append((name, f"{row['compliance']:.1%}", f"{low:.1%} to {high:.1%}", *figures))
    emit_table(("row", "right", "interval", "error outside", "L1", "NFE", "seconds"), rows)
    note_goals(document["goals"])
    facts = document["environment"]
    note(
        f"Expert set {facts['expert_set']} ({facts['expert_set_sha256'][:12]}), {facts['n']} scenes, {facts['steps']} "
        f"steps, seed {facts['seed']}, {facts['threads']} threads, {facts['device']}, {facts['dtype']}."
    )


def _dtype(dtype: Dtype | None) -> torch.dtype | None:
    return None if dtype is None else {Dtype.float32: torch.float32, Dtype.bfloat16: torch.bfloat16}[dtype]


@app.command("scorer")
def scorer(
    judge: Annotated[str, typer.Option("--judge", help="tiny, a folder or a hub id.")] = "tiny",
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Edits scored per run.")] = 16,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed pairs of runs; the median is told.")] = 5,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; default: torch's choice.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one.")] = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Edits per second that a judge scores, one at a time against 16 at once."""
    from careedit.bench.scorer import bench_scorer
    from careedit.scoring.vlm import load_judge

    quieten()
    with progress("Loading"):
        loaded = load_judge(judge, device=device, dtype=_dtype(dtype))
    with progress("Measuring", 2 * repeats) as bar:
        document = bench_scorer(loaded, pairs=pairs, repeats=repeats, threads=threads, done=bar.advance)
    if as_json:
        emit_json(document)
        return
    emit_table(
        ("pairs at once", "pairs per second"), [(k, f"{v:.1f}") for k, v in document["pairs_per_second"].items()]
    )
    note(f"16 at once are {document['speedup']:.2f} times as fast.")
