"""`careedit bench quality`: who edits right, by every way of routing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from careedit.cli.bench import DtypeOption, torch_dtype
from careedit.cli.editors import quieten
from careedit.cli.files import check_outputs, note_goals, write_all, write_report
from careedit.cli.output import JsonOption, emit_table, note, progress
from careedit.errors import InputError

app = typer.Typer(add_completion=False)


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
        subject = load(expert_set, unified=unified, steps=steps, device=device, dtype=torch_dtype(dtype))
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
    write_report(document, lambda: _show_quality(document), out=out, as_json=as_json)


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
