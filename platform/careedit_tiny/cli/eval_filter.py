"""Measure whether the early filter is worth its steps on drawn scenes: by strategy, candidates and judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from careedit.cli.bench import DtypeOption, torch_dtype
from careedit.cli.editors import load_scorer, quieten
from careedit.cli.files import check_outputs, write_all, write_report
from careedit.cli.output import JsonOption, emit_table, keeping, note, progress
from careedit.editor import load_editor
from careedit.encoders import OpenClipEncoder, load_encoder
from careedit.errors import InputError
from careedit.records import MAX_STEPS
from careedit_tiny.cli.eval_quality import (
    CacheOption,
    DeviceOption,
    HtmlOption,
    OutOption,
    SeedOption,
    SetOption,
    StepsOption,
    ThreadsOption,
    kept_in,
    note_run,
    note_unreadable,
)
from careedit_tiny.evaluation.common import Cache, check_range
from careedit_tiny.evaluation.filter import FilterBench, FilterPlan, SceneTable, measure_filter
from careedit_tiny.evaluation.filter.page import check_plot, draw_plot, write_filter_page

app = typer.Typer(add_completion=False)

NO_JUDGE = "none"
"""The value of `--judge` that leaves the judge out."""


@app.command("filter")
def filter_(
    n: Annotated[int, typer.Option("--n", help="Number of test scenes; the kinds of edit take turns.")] = 300,
    seed: SeedOption = 0,
    candidates: Annotated[
        str, typer.Option("--candidates", help="Numbers of candidates per edit, with commas.")
    ] = "1,2,4,6,12",
    preview_steps: Annotated[
        str | None,
        typer.Option(
            "--preview-steps", help="Steps before the last preview; default: an eighth, a quarter and a half."
        ),
    ] = None,
    judge: Annotated[str, typer.Option("--judge", help="The judge: tiny, a folder, a hub id, or none.")] = "tiny",
    clip: Annotated[
        str | None, typer.Option("--clip", help="An open_clip model or folder; default: the router's own, if any.")
    ] = None,
    expert_set: SetOption = "tiny",
    steps: StepsOption = None,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    out: OutOption = None,
    html: HtmlOption = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the plot to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the early filter: which chooser, how many candidates, after how many steps, by which strategy.

    Every candidate is denoised once, and the result of every setting is looked up. Every edit of a drawn scene is compared
    with the known right result. A goal that is not met is reported; the exit code is 0.
    """
    check_range([("--steps", steps, 1, MAX_STEPS), ("--threads", threads, 1, 1024)])
    check_outputs([path for path in (out, html, plot) if path is not None], [])
    counts = _numbers("--candidates", candidates)
    lasts = () if preview_steps is None else _numbers("--preview-steps", preview_steps)
    if html is not None or plot is not None:
        check_plot()
    quieten()
    with progress("Loading"):
        editor = load_editor(expert_set, device=device, dtype=torch_dtype(dtype))
        default = editor.expert_set.spec.defaults.steps
        plan = FilterPlan(default if steps is None else steps, n, seed, counts, lasts)
        scorer = None if judge == NO_JUDGE else load_scorer(judge, device=device)
        encoder, called = _encoder(clip, getattr(editor.router, "encoder", None))
        kept = Cache(SceneTable, None if cache is None else cache / "filter")
    note_unreadable(kept.unreadable)
    with keeping(lambda: kept_in(cache)), progress("Measuring", plan.n) as bar:
        bench = FilterBench(editor, plan, scorer, encoder, called, kept, bar.advance)
        document = measure_filter(bench, threads=threads)
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
    note_run(document)


def _encoder(named: str | None, own: object) -> tuple[OpenClipEncoder | None, str]:
    """The CLIP model and its name: the given one, or else that of the learned router."""
    if named is not None:
        return load_encoder(named), Path(named).name
    return (own, "the router's encoder") if isinstance(own, OpenClipEncoder) else (None, "none")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r} is not a list of numbers; write it as 2,4.") from None
