"""`careedit edit` for many pictures: a folder or a table. See `careedit.batches`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from careedit.batches import Batch, InterruptedBatch, Rows, Summary, run_batch
from careedit.cli.editors import check_experts, quieten
from careedit.cli.output import Bar, emit, emit_json, note, progress
from careedit.errors import InputError
from careedit.experts import load_expert_set
from careedit.records import EditRequest


def edit_batch(
    place: Path,
    defaults: Mapping[str, Any],
    out: Path | None,
    *,
    expert_set: str,
    options: Mapping[str, Any],
    judge: str,
    credentials: Path | None,
    watermark: Path | None,
    workers: int,
    as_json: bool,
) -> None:
    """Edit the rows at `place`; `defaults` are the fields of `EditRequest` for rows without such a cell.

    Raises `InputError` before anything is edited, and `typer.Exit` with code 1 if a row failed.
    """
    if out is None:
        raise InputError("Many pictures need a folder for the results; give one with --out.")
    _check(defaults, expert_set)
    mark = None
    named = {"credentials": credentials, "watermark": watermark}
    if any(named.values()):
        from careedit.cli.signed import mark_files, open_marks

        open_marks(credentials, watermark)  # refuse now what cannot mark
        mark = partial(mark_files, credentials, watermark)
    marks = tuple(name for name, given in named.items() if given is not None)
    rows = Rows(Batch(place, defaults, expert_set, options, judge, mark, marks))
    if rows.unused:
        note(f"note: these columns are not read: {', '.join(rows.unused)}.")
    quieten()
    try:
        with progress("Editing", 1) as bar:
            summary = run_batch(rows, out, workers=workers, report=_Shown(bar))
    except InterruptedBatch as interrupted:
        done = interrupted.summary
        interrupted.add_note(
            f"{done.kept + done.made} of {_images(done.total)} are in {out}; run the same command again to make the others."
        )
        raise
    for failure in summary.failures:
        note(f"failed: {failure.row}: {failure.error}")
    if as_json:
        counts = {name: getattr(summary, name) for name in ("total", "kept", "made", "failed")}
        emit_json({"version": 1, **counts, "results": str(summary.results)})
    else:
        emit(_sentence(summary))
    if summary.missing:
        raise typer.Exit(1)


class _Shown:
    """Shows how far a batch is; the first line at once, because a base may take minutes to load."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._what, self._share = bar, "", 0.0

    def __call__(self, what: str, done: int, total: int, failed: int) -> None:
        """See `careedit.batches.running.Progress`."""
        if what != self._what:
            self._bar.advance(-self._share)
            self._what, self._share = what, 0.0
            if what == "editing" and total:
                note(f"{total} {'row' if total == 1 else 'rows'} to edit.")
        share = done / total if total else 1.0
        self._bar.describe(f"{what}: {done} of {total}{f', {failed} failed' if failed else ''}")
        self._bar.advance(share - self._share)
        self._share = share


def _check(defaults: Mapping[str, Any], expert_set: str) -> None:
    """Raises `InputError` or `ExpertError` for options that every row would fail with."""
    for path in (defaults.get("mask"), *defaults.get("references", ())):
        if path is not None and not path.is_file():
            raise InputError(f"The file {str(path)!r} does not exist; check the path.")
    pictures = {"image": Image.new("RGB", (64, 64)), "mask": Image.new("L", (64, 64), 255)}
    request = EditRequest(**{"instruction": "check", **defaults, **pictures})
    check_experts(load_expert_set(expert_set), request.expert)


def _sentence(summary: Summary) -> str:
    """The summary, for people."""
    parts = [f"{summary.made} made"]
    parts += [f"{summary.kept} kept"] if summary.kept else []
    parts += [f"{summary.failed} failed"] if summary.failed else []
    return f"{_images(summary.total)}: {', '.join(parts)}. Each is a row of {summary.results}."


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
