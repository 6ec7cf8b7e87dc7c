"""The output of a command: results on stdout, everything else (notes, progress, logs) on stderr.

With `--json` a command writes exactly one JSON document to stdout, so that a program can read it while the user still
sees the notes and the progress bar.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout instead of text.")]
"""The `--json` switch, the same in every command."""
SetOption = Annotated[str, typer.Option("--expert-set", help="tiny, a folder, or an address (s3://).")]
"""The expert set of a command that edits or manages experts."""
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one.")]
"""The device that a command computes on."""

LINE_S = 30.0
"""Seconds between two lines of progress if stderr is not a terminal; a shorter command writes none."""


def emit(text: str) -> None:
    """Write one line of the result to stdout, as it is (no markup, no wrapping).

    It is there at once, also in a pipe or a file: a command that goes on, such as a server, has more to say later.
    """
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def emit_json(document: Any) -> None:
    """Write the result to stdout as one JSON document.

    Takes records, dataclasses, paths, mappings and sequences. A NaN or an infinity raises ValueError, because JSON has
    neither.
    """
    emit(json.dumps(document, indent=2, allow_nan=False, default=_plain))


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table to stdout: with borders for a terminal, as tab-separated lines for a pipe or a file."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            emit("\t".join(str(cell) for cell in row))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_escaped(str(cell)) for cell in row))
    Console().print(table)


def note(text: str) -> None:
    """Write one line to stderr that is not part of the result, e.g. where a file was written."""
    sys.stderr.write(f"{text}\n")


class Bar:
    """How far a command is: a bar on a terminal, else a line on stderr after every `LINE_S` seconds."""

    def __init__(self, description: str, total: float | None = None, shown: Progress | None = None) -> None:
        """`shown` draws the bar; None: stderr is not a terminal."""
        self._description, self._total, self._done = description, total, 0.0
        self._shown = shown
        self._task = None if shown is None else shown.add_task(_escaped(description), total=total)
        self._written = time.monotonic()

    def advance(self, steps: float = 1) -> None:
        """Count `steps` more as done."""
        self._done += steps
        if self._shown is not None and self._task is not None:
            self._shown.advance(self._task, steps)
        self._write()

    def describe(self, text: str) -> None:
        """Replace the text before the bar."""
        self._description = text
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, description=_escaped(text))
        self._write()

    def _write(self) -> None:
        now = time.monotonic()
        if self._shown is None and now - self._written >= LINE_S:
            self._written = now
            note(self._description if not self._total else f"{self._description} ({self._done / self._total:.0%})")


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Bar]:
    """Progress on stderr: a bar that disappears at the end, or lines if stderr is not a terminal.

    `total` is in steps of `Bar.advance`; None if it is unknown.
    """
    if not sys.stderr.isatty():
        yield Bar(description, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield Bar(description, total, shown)


def set_up_logging(*, debug: bool) -> None:
    """Send careedit's own log to stderr: warnings, or everything with `debug`. Only `main` calls this."""
    logger = logging.getLogger("careedit")
    for handler in [handler for handler in logger.handlers if isinstance(handler, RichHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(RichHandler(console=Console(stderr=True), show_path=debug, show_time=debug))
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    if not debug:  # what diffusers and torch log while they import an installed torchao
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def _escaped(text: str) -> str:
    """`text` without rich markup; an instruction may contain brackets."""
    return text.replace("[", r"\[")


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form; convert it before it is written.")
