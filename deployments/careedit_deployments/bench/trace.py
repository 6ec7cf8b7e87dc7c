"""A recorded trace of requests: JSON lines with request, arrival time and allowed time.

The first line is `{"careedit_trace": 1}`, the version of the format. Every other line is a `TraceRow`, in order of arrival.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator

from careedit.errors import InputError
from careedit.record import Record
from careedit.records import MAX_IMAGES, MAX_STEPS
from careedit.tabular import lines_of

VERSION = 1
"""Version of the trace format."""

MIXED = Path(__file__).parent / "traces" / "mixed.jsonl"
"""The packaged trace: mixed sizes at random times, for the tiny family on a small machine."""

TraceScaleOption = Annotated[
    float,
    typer.Option("--trace-scale", min=0.001, help="Factor for the arrival times and the allowed times of the trace."),
]
"""The option that `TraceRow.slowed` applies."""

_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


class TraceRow(Record):
    """One request of a trace."""

    arrival_s: NonNegativeFloat
    """Arrival time, in seconds after the start of the trace."""
    size: str
    """Width and height of the source in pixels, such as "1024x768"."""
    steps: int = Field(ge=1, le=MAX_STEPS)
    """Denoising steps of each image."""
    n: int = Field(default=1, ge=1, le=MAX_IMAGES)
    """Number of images. Default: 1."""
    slo_ms: PositiveFloat
    """Milliseconds within which all images must have arrived."""
    expert: str | None = None
    """Name of the expert. None: the experts of the set in turn."""

    @field_validator("size")
    @classmethod
    def _check_size(cls, value: str) -> str:
        if not _SIZE.fullmatch(value):
            raise InputError(f"The size is {value!r}; write width and height as 1024x768.")
        return value

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self.size.split("x")
        return int(width), int(height)

    def slowed(self, scale: float) -> TraceRow:
        """The row for a machine that is `scale` times as slow: arrival and allowed time are multiplied."""
        return self.model_copy(update={"arrival_s": self.arrival_s * scale, "slo_ms": self.slo_ms * scale})


def read_trace(path: Path) -> list[TraceRow]:
    """The rows of a file. Raises `InputError` with the number of the line if the file is not a trace."""
    try:
        lines = lines_of(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The trace {path} cannot be read ({error}); give another file.") from None
    if not lines or _object(path, 1, lines[0]) != {"careedit_trace": VERSION}:
        raise InputError(
            f'The first line of {path} is not {{"careedit_trace": {VERSION}}}; give a trace of this version.'
        )
    rows: list[TraceRow] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            row = TraceRow(**_object(path, number, line))
        except InputError as error:
            raise InputError(f"Line {number} of {path}: {error}") from None
        if rows and row.arrival_s < rows[-1].arrival_s:
            raise InputError(f"Line {number} of {path} arrives before the previous line; sort the trace by arrival_s.")
        rows.append(row)
    if not rows:
        raise InputError(f"The trace {path} contains no request; add at least one.")
    return rows


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"Line {number} of {path} is not a JSON object; correct it.")
    return found


def attainment(seconds: Sequence[float | None], allowed: Sequence[float]) -> float:
    """Share of requests that were answered within their allowed seconds; None marks one that failed."""
    met = [taken is not None and taken <= limit for taken, limit in zip(seconds, allowed, strict=True)]
    if not met:
        raise InputError("No request was sent, so no share of them came in time; give at least one.")
    return sum(met) / len(met)
