"""Reads what `careedit ab export` wrote: format `VERSION`, JSON lines, a header first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from careedit.errors import InputError
from careedit.record import Record
from careedit.tabular import lines_of

VERSION = 1


class ExportedArm(Record):
    """An arm that takes traffic."""

    expert_set: str
    """As configured."""
    weight: float = Field(ge=0, allow_inf_nan=False)
    """Share of the traffic, relative to the other arms' weights."""


class ExportedEvent(Record):
    """An arm was taken out of traffic or put back."""

    arm: str
    """The arm."""
    what: Literal["cut", "restored"]
    """What happened to it."""
    created: float
    """When, Unix time."""


class Header(Record):
    """The first line."""

    version: int
    """Of the format."""
    since: float
    """Edits from then on, Unix time."""
    arms: Mapping[str, ExportedArm]
    """Arms that take traffic."""
    assigned: Mapping[str, int]
    """Users who were dealt each arm, ever; who is nobody is not counted."""
    events: tuple[ExportedEvent, ...] = ()
    """Cuts, oldest first."""


class ExportedEdit(Record):
    """An edit that somebody was served."""

    id: str
    """Its id."""
    unit: str
    """Whom the arm was dealt to, hashed: one user, one key, or one request of nobody."""
    arm: str
    """Who edited."""
    dealt: bool
    """Whether chance chose the arm."""
    outcome: str
    """"made", "failed", "cancelled"; what else there is was not the arm's doing."""
    seconds: float = Field(ge=0, allow_inf_nan=False)
    """From acceptance to the end."""
    scores: Mapping[str, float] | None = None
    """The judge's, by name."""
    created: float
    """When it was accepted, Unix time."""


class ExportedFeedback(Record):
    """What a person said of one edit, or of two."""

    edits: tuple[str, ...] = Field(min_length=1, max_length=2)
    """The edits."""
    winner: str | None = None
    """The better of two; None: neither."""
    rating: int | None = Field(default=None, ge=1, le=5)
    """Of one edit."""
    created: float
    """When, Unix time."""


@dataclass(frozen=True)
class Traffic:
    """An export, read."""

    header: Header
    """What was served."""
    edits: tuple[ExportedEdit, ...]
    """Oldest first."""
    feedback: tuple[ExportedFeedback, ...]
    """Oldest first."""


def read_export(path: str | Path) -> Traffic:
    """Read an export; raises `InputError` naming the line that is wrong."""
    found: dict[str, list[Any]] = {"header": [], "edit": [], "feedback": []}
    kinds: Mapping[str, type[Record]] = {"header": Header, "edit": ExportedEdit, "feedback": ExportedFeedback}
    for number, line in _lines(Path(path)):
        try:
            data = json.loads(line)
            kind = data.pop("kind")
            found[kind].append(kinds[kind](**data))
        except (ValueError, KeyError, AttributeError, TypeError, InputError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"Line {number} of {str(path)!r} is none of an A/B export ({reason}); write it again with "
                "`careedit ab export`."
            ) from error
    if len(found["header"]) != 1:
        raise InputError(f"{str(path)!r} has {len(found['header'])} headers; give one file of `careedit ab export`.")
    header: Header = found["header"][0]
    if header.version != VERSION:
        raise InputError(f"{str(path)!r} has format {header.version}, this careedit reads {VERSION}; export it again.")
    ids = [edit.id for edit in found["edit"]]
    if len(set(ids)) < len(ids):
        raise InputError(f"An edit stands twice in {str(path)!r}; give one export, not two in one file.")
    by_time = {kind: sorted(found[kind], key=lambda one: float(one.created)) for kind in ("edit", "feedback")}
    return Traffic(header, tuple(by_time["edit"]), tuple(by_time["feedback"]))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}); give a file of `careedit ab export`.") from error
    yield from ((number, line) for number, line in enumerate(lines_of(text), 1) if line.strip())
