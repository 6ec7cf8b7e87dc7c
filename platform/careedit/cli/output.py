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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from careedit.progress import Bar, escaped, keeping, note, progress

__all__ = [
    "Bar", "DeviceOption", "JsonOption", "SetOption", "emit", "emit_json", "emit_table", "keeping", "note", "progress",
    "set_up_logging",
]  # fmt: skip

JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout instead of text.")]
"""The `--json` switch, the same in every command."""
SetOption = Annotated[str, typer.Option("--expert-set", help="tiny, a folder, or an address (s3://).")]
"""The expert set of a command that edits or manages experts."""
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one.")]
"""The device that a command computes on."""


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
        table.add_row(*(escaped(str(cell)) for cell in row))
    Console().print(table)


def set_up_logging(*, debug: bool, quiet: bool = False) -> None:
    """Send careedit's own log to stderr: warnings, only errors if `quiet`, everything with `debug`. Only `main` calls this."""
    logger = logging.getLogger("careedit")
    for handler in [handler for handler in logger.handlers if isinstance(handler, RichHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(RichHandler(console=Console(stderr=True), show_path=debug, show_time=debug))
    logger.setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING)
    if not debug:  # what diffusers and torch log while they import an installed torchao
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


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
