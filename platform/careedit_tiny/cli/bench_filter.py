"""`careedit bench filter`: whether previews and a judge earn their steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from careedit.cli.editors import load_scorer, quieten
from careedit.cli.files import check_outputs, note_goals, write_all, write_report
from careedit.cli.output import JsonOption, emit_table, note, progress
from careedit.editor import load_editor
from careedit.encoders import OpenClipEncoder, load_encoder
from careedit.errors import InputError
from careedit_tiny.bench.filter import FilterBench, FilterPlan, TableCache, bench_filter
from careedit_tiny.report.filter import check_plot, draw_plot, write_filter_page

app = typer.Typer(add_completion=False)

NOBODY = "none"
"""The judge that is left out."""


@app.command("filter")
def filter_(
    n: Annotated[int, typer.Option("--n", help="Test scenes, the kinds in turn.")] = 300,
    seed: Annotated[int, typer.Option("--seed", help="Decides the noise of every edit.")] = 0,
    candidates: Annotated[str, typer.Option("--candidates", help="Noises per edit, with commas.")] = "1,2,4,6,12",
    preview_steps: Annotated[
        str | None,
        typer.Option("--preview-steps", help="Steps before the last look; default: an eighth, a quarter and a half."),
    ] = None,
    judge: Annotated[str, typer.Option("--judge", help="Who chooses: tiny, a folder, a hub id, or none.")] = "tiny",
    clip: Annotated[
        str | None, typer.Option("--clip", help="An open_clip model or folder; default: the router's own, if any.")
    ] = None,
    expert_set: Annotated[str, typer.Option("--expert-set", help="Name, folder or address of the set.")] = "tiny",
    steps: Annotated[int | None, typer.Option("--steps", help="Steps per edit; default: the set's.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads; default: torch's choice.")] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="FOLDER", help="Keeps scenes, so that a killed run goes on.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one.")] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option("--dtype", help="Number format; default: float32 on a CPU, bfloat16 on a GPU."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Also write the JSON there.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE.html", help="Write a page there.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the plot there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the early filter: who should choose, of how many noises, after how many steps, by which strategy.

    Every noise is denoised once, and every setting looked up in what became of it. Every edit is judged against the exact
    truth. An unmet goal is told, it is no failure: the exit code is 0.
    """
    for name, value, most in (("--steps", steps, 200), ("--threads", threads, 1024)):
        if value is not None and not 1 <= value <= most:
            raise InputError(f"{name} is {value}; it must lie between 1 and {most}.")
    check_outputs([path for path in (out, html, plot) if path is not None], [])
    counts = _numbers("--candidates", candidates)
    lasts = () if preview_steps is None else _numbers("--preview-steps", preview_steps)
    if html is not None or plot is not None:
        check_plot()
    quieten()
    with progress("Loading"):
        editor = load_editor(expert_set, device=device, dtype=None if dtype is None else getattr(torch, dtype))
        default = editor.expert_set.spec.defaults.steps
        plan = FilterPlan(default if steps is None else steps, n, seed, counts, lasts)
        scorer = None if judge == NOBODY else load_scorer(judge, device=device)
        encoder, called = _encoder(clip, getattr(editor.router, "encoder", None))
        kept = TableCache(cache)
    if kept.unreadable:
        note(f"{kept.unreadable} lines of the cache could not be read; their scenes are measured again.")
    with progress("Measuring", plan.n) as bar:
        document = bench_filter(FilterBench(editor, plan, scorer, encoder, called, kept, bar.advance), threads=threads)
    if html is not None:
        write_filter_page(html, document)
    if plot is not None:
        write_all({plot: draw_plot(document)})
    write_report(document, lambda: _show(document), out=out, as_json=as_json)


def _show(document: dict[str, Any]) -> None:
    rows = [
        (
            row["strategy"],
            row["candidates"],
            row["preview_steps"],
            row["chooser"],
            f"{row['nfe']:.1f}",
            f"{row['compliance']:.1%}",
            f"{row['ci'][0]:.1%} to {row['ci'][1]:.1%}",
            f"{row['seconds']:.3f}",
            f"{row['judge_seconds']:.3f}",
        )
        for row in document["rows"]
    ]
    emit_table(("strategy", "M", "m", "chooser", "NFE", "right", "interval", "seconds", "of these judge"), rows)
    for reason in document["missing"].values():
        note(reason)
    note_goals(document["goals"])
    facts = document["environment"]
    note(
        f"Expert set {facts['expert_set']} ({facts['expert_set_sha256'][:12]}), {facts['n']} scenes, {facts['noises']} "
        f"noises, {facts['steps']} steps, seed {facts['seed']}, {facts['threads']} threads, {facts['device']}, "
        f"{facts['dtype']}."
    )


def _encoder(named: str | None, own: object) -> tuple[OpenClipEncoder | None, str]:
    """CLIP and what it is called: the one that was named, else the learned router's."""
    if named is not None:
        return load_encoder(named), Path(named).name
    return (own, "the router's encoder") if isinstance(own, OpenClipEncoder) else (None, "none")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r} is no list of numbers; write it as 2,4.") from None
