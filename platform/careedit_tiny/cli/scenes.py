"""Draw samples of the drawn world, judge edited ones, and measure the oracle.

`draw` and `judge` work on a folder of samples (`careedit_tiny.world.store`); `calibrate` and `ablate-masks` make the tables
of `docs/tiny-world.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from careedit.cli.output import JsonOption, emit_json, emit_table, keeping, note, progress
from careedit.errors import InputError
from careedit_tiny.oracle.calibration import PICTURES, calibrate
from careedit_tiny.oracle.refinement import BOXES, ablate_masks
from careedit_tiny.world.store import (
    Judged,
    draw_many,
    extra_files,
    judge_folder,
    parse_kinds,
    read_samples,
    write_samples,
)

app = typer.Typer(no_args_is_help=True)

SHOWN = 20
"""Number of failures that `judge` explains one by one."""

SizeOption = Annotated[int, typer.Option("--size", help="Side of the images in pixels, 32 to 1024.")]


@app.callback()
def scenes() -> None:
    """Draw scenes with edits whose right result is known, judge edited ones, and measure the oracle."""


@app.command("draw")
def draw_command(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; created if missing.")],
    kind: Annotated[
        str, typer.Option("--kind", help="Kinds of edits, comma separated; also all, infeasible and chain.")
    ] = "all",
    n: Annotated[int, typer.Option("--n", help="Total number of draws, the kinds in turn; a chain is one draw.")] = 12,
    seed: Annotated[int, typer.Option("--seed", help="Which samples are drawn; two seeds share no sample.")] = 0,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    size: SizeOption = 64,
    force: Annotated[bool, typer.Option("--force", help="Replace the samples in the folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw edits with their truth: ID-source.png, ID-target.png, and samples.jsonl."""
    samples = draw_many(parse_kinds(kind), n, seed=seed, split=split)  # type: ignore[arg-type]
    rows = []
    again = f"pictures that were drawn are in {out}; run the same command with --force to draw all of them."
    with keeping(lambda: again), progress("Drawing", len(samples)) as bar:
        for stored in write_samples(samples, out, size=size, force=force):
            rows.append((stored.sample.id, stored.group, stored.sample.instruction))
            bar.advance()
    if as_json:
        emit_json(
            {"folder": out, "samples": [dict(zip(("id", "kind", "instruction"), row, strict=True)) for row in rows]}
        )
    else:
        emit_table(("id", "kind", "instruction"), rows)
    note(f"{len(rows)} samples are in {out}.")


@app.command("judge")
def judge_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Samples, as `careedit scenes draw` writes them.")],
    edited: Annotated[Path, typer.Argument(metavar="EDITED_DIR", help="Edited images: ID.png, or ID-target.png.")],
    as_json: JsonOption = False,
) -> None:
    """Judge edited images against their truth: is the instruction followed, and the rest preserved?"""
    stored = read_samples(folder)
    judged = []
    with progress("Judging", len(stored)) as bar:
        for entry in judge_folder(stored, edited):
            judged.append(entry)
            bar.advance()
    extra = extra_files(stored, edited)
    failed = [entry for entry in judged if entry.verdict is None or not entry.verdict.compliant]
    for entry in failed[:SHOWN]:
        note(f"{entry.stored.sample.id} failed ({entry.stored.sample.instruction}): {_why(entry)}")
    if len(failed) > SHOWN:
        note(f"... and {len(failed) - SHOWN} more; --json lists them all.")
    for name in extra:
        note(f"{name} belongs to no sample of {folder} and was not judged.")
    groups = list(dict.fromkeys(entry.stored.group for entry in judged))
    summaries = {group: _summary([e for e in judged if e.stored.group == group]) for group in groups}
    overall = _summary(judged)
    if as_json:
        emit_json({"version": 1, "all": overall, "kinds": summaries, "verdicts": _entries(judged), "extra": extra})
        return
    table = [(name, *_cells(summary)) for name, summary in (*summaries.items(), ("all", overall))]
    emit_table(("kind", "n", "compliant", "followed", "preserved", "missing", "unreadable"), table)


@app.command("calibrate")
def calibrate_command(
    n: Annotated[int, typer.Option("--n", help="Number of images of each kind.")] = 300,
    size: SizeOption = 64,
    as_json: JsonOption = False,
) -> None:
    """Measure the oracle on truths, harmless flaws and known faults."""
    _check_count(n)
    with progress("Judging", n * len(PICTURES)) as bar:
        rows = calibrate(n, size=size, done=bar.advance)
    if as_json:
        emit_json({"version": 1, "n": n, "size": size, "rows": rows})
        return
    columns = ("picture", "should", "right", "followed", "preserved", "error 5/50/95 %", "lean", "worst block")
    table = [
        (
            row.picture,
            row.expected,
            "-" if row.right is None else _percent(row.right),
            _percent(row.followed),
            _percent(row.preserved),
            *(" / ".join(f"{value:.2f}" for value in q) for q in (row.followed_error, row.lean, row.worst_block)),
        )
        for row in rows
    ]
    emit_table(columns, table)


@app.command("ablate-masks")
def ablate_masks_command(
    n: Annotated[int, typer.Option("--n", help=f"Number of scenes, each with {len(BOXES)} boxes.")] = 200,
    size: SizeOption = 64,
    as_json: JsonOption = False,
) -> None:
    """Measure what mask refinement does to boxes that are too large, too small or shifted."""
    _check_count(n)
    with progress("Refining", n) as bar:
        rows = ablate_masks(n, size=size, done=bar.advance)
    if as_json:
        emit_json({"version": 1, "n": n, "size": size, "unit": "pixels of 64", "rows": rows})
        return
    columns = ("box", "background", "n", "before", "after", "grow only", "improved")
    table = [
        (r.box, r.backdrop, r.n, f"{r.before:.2f}", f"{r.after:.2f}", f"{r.grow_only:.2f}", _percent(r.improved))
        for r in rows
    ]
    emit_table(columns, table)


def _check_count(n: int) -> None:
    if n <= 0:
        raise InputError(f"n is {n}; measure at least one picture.")


def _summary(judged: Sequence[Judged]) -> dict[str, Any]:
    verdicts = [entry.verdict for entry in judged if entry.verdict is not None]
    missing = sum(entry.file is None for entry in judged)
    return {
        "n": len(judged),
        "compliant": sum(verdict.compliant for verdict in verdicts) / len(judged),
        "followed": sum(verdict.followed for verdict in verdicts) / len(judged),
        "preserved": sum(verdict.preserved for verdict in verdicts) / len(judged),
        "missing": missing,
        "unreadable": len(judged) - len(verdicts) - missing,
    }


def _cells(summary: dict[str, Any]) -> tuple[object, ...]:
    shares = (_percent(summary[name]) for name in ("compliant", "followed", "preserved"))
    return (summary["n"], *shares, summary["missing"], summary["unreadable"])


def _entries(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    return [
        {
            "id": entry.stored.sample.id,
            "kind": entry.stored.group,
            "operation": entry.stored.sample.operation,
            "instruction": entry.stored.sample.instruction,
            "file": entry.file,
            "compliant": entry.verdict is not None and entry.verdict.compliant,
            "verdict": entry.verdict,
            "problem": entry.problem,
        }
        for entry in judged
    ]


def _why(entry: Judged) -> str:
    return entry.problem or (entry.verdict.reason if entry.verdict is not None else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
