"""Measure who edits drawn scenes right: every expert, one LoRA for all, and every way of routing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from careedit.cli.bench import DtypeOption, torch_dtype
from careedit.cli.editors import quieten
from careedit.cli.files import check_outputs, note_goals, write_all, write_report
from careedit.cli.output import JsonOption, emit_table, keeping, note, progress

app = typer.Typer(add_completion=False)

SeedOption = Annotated[int, typer.Option("--seed", help="Decides the noise of every edit.")]
SetOption = Annotated[str, typer.Option("--expert-set", help="Name, folder or address of the expert set.")]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Steps per edit; default: the expert set's.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="CPU threads; default: torch's choice.")]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", metavar="FOLDER", help="Keeps results, so that a killed run can be resumed.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if a GPU is available.")]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Also write the JSON to this file.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE.html", help="Write an HTML page to this file.")
]


@app.command("quality")
def quality(
    n: Annotated[int, typer.Option("--n", help="Number of test scenes; the kinds of edit take turns.")] = 600,
    seed: SeedOption = 0,
    expert_set: SetOption = "tiny",
    unified: Annotated[
        Path | None,
        typer.Option("--unified", metavar="FOLDER", help="The unified LoRA; default: the set's baselines/unified."),
    ] = None,
    steps: StepsOption = None,
    batch: Annotated[int, typer.Option("--batch", help="Edits denoised together, 1 to 8.")] = 8,
    threads: ThreadsOption = None,
    validation_n: Annotated[
        int | None,
        typer.Option("--validation-n", help="Scenes on which the best single expert is chosen; default: n/4."),
    ] = None,
    infeasible_n: Annotated[
        int | None, typer.Option("--infeasible-n", help="Instructions that cannot be carried out; default: n/6.")
    ] = None,
    chains_n: Annotated[int | None, typer.Option("--chains-n", help="Chains of three edits; default: n/6.")] = None,
    oracle_seeds: Annotated[
        int,
        typer.Option("--oracle-seeds", help="2: the oracle chooses on other noise than it is scored on; 1: the same."),
    ] = 2,
    cache: CacheOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    out: OutOption = None,
    html: HtmlOption = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw an edit of each kind to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure who edits right: no edit, base, each expert, one LoRA for all, and every way of routing, with intervals.

    Every edit of a drawn scene is compared with the known right result. A goal that is not met is reported; the exit code
    is 0.
    """
    from careedit.editor import MAX_BATCH
    from careedit.records import MAX_STEPS
    from careedit_tiny.evaluation.common import Cache, check_range
    from careedit_tiny.evaluation.quality import Bench, Outcome, Plan, load_subject, measure_quality
    from careedit_tiny.evaluation.quality.gallery import draw_gallery
    from careedit_tiny.evaluation.quality.page import gallery_rows, write_quality_page

    check_range([("--steps", steps, 1, MAX_STEPS), ("--batch", batch, 1, MAX_BATCH), ("--threads", threads, 1, 1024)])
    plan = Plan(n, seed, validation_n, infeasible_n, chains_n, oracle_seeds)
    check_outputs([path for path in (out, html, picture) if path is not None], [])
    quieten()
    with progress("Loading"):
        subject = load_subject(expert_set, unified=unified, steps=steps, device=device, dtype=torch_dtype(dtype))
        kept = Cache(Outcome, None if cache is None else cache / "quality")
    note_unreadable(kept.unreadable)
    total = plan.edits(len(subject.experts), unified=subject.unified is not None, learned=subject.learned)
    with keeping(lambda: kept_in(cache)), progress("Editing", total) as bar:
        report = measure_quality(Bench(subject, plan, kept, batch, bar.advance), threads=threads)
    document, scenes = report.document, gallery_rows(report)
    if html is not None:
        write_quality_page(html, document, scenes)
    if picture is not None:
        router = "learned_top1" if subject.learned else "rules"
        write_all({picture: draw_gallery(scenes, ("base", "unified", router))})
    write_report(document, lambda: _show(document), out=out, as_json=as_json)


def note_unreadable(lines: int) -> None:
    """Report the lines of a cache that could not be read."""
    if lines:
        note(f"{lines} lines of the cache could not be read; their edits are made again.")


def kept_in(cache: Path | None) -> str:
    """What Ctrl-C leaves of a measurement."""
    if cache is None:
        return "nothing is kept without --cache, so the same command starts again."
    return f"what was measured until now is in {cache}; run the same command again to go on."


def note_run(document: dict[str, Any]) -> None:
    """Report goals, and what was measured on what."""
    note_goals(document["goals"])
    facts = document["environment"]
    note(
        f"Expert set {facts['expert_set']} ({facts['expert_set_sha256'][:12]}), {facts['n']} scenes, {facts['steps']} "
        f"steps, seed {facts['seed']}, {facts['threads']} threads, {facts['device']}, {facts['dtype']}."
    )


def _show(document: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for name, row in document["rows"].items():
        if row is None:
            rows.append((name, "missing", *["-"] * 5))
            continue
        low, high = row["ci"]
        figures = (f"{row['preservation_error']:.4f}", f"{row['l1']:.4f}", f"{row['nfe']:.1f}", f"{row['seconds']:.3f}")
        rows.append((name, f"{row['compliance']:.1%}", f"{low:.1%} to {high:.1%}", *figures))
    emit_table(("row", "right", "interval", "error outside", "L1", "NFE", "seconds"), rows)
    note_run(document)
