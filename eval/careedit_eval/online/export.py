"""Reads the file that `careedit ab export` wrote: format `VERSION`, JSON lines, a header first."""

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
from careedit_eval.errors import reason_of

VERSION = 2


class ExportedArm(Record):
    """An arm that takes traffic, as exported."""

    expert_set: str
    """The address of the expert set, as configured."""
    weight: float = Field(ge=0, allow_inf_nan=False)
    """The weight of the arm, relative to the weights of the other arms."""


class ExportedEvent(Record):
    """A change of the guard: an arm was taken out of traffic or restored."""

    arm: str
    """The name of the arm."""
    what: Literal["cut", "restored"]
    """Whether the arm was taken out of traffic or restored."""
    created: float
    """The time of the event in Unix seconds."""


class Header(Record):
    """The first line of an export."""

    version: int
    """The version of the export's format."""
    since: float
    """The start of the exported edits in Unix seconds."""
    arms: Mapping[str, ExportedArm]
    """The arms that take traffic, by name."""
    assigned: Mapping[str, int]
    """The number of users that were ever assigned to each arm. Requests without a user are not counted."""
    events: tuple[ExportedEvent, ...] = ()
    """Changes of the guard, oldest first."""


class ExportedEdit(Record):
    """An edit that was returned to a user."""

    id: str
    """The id of the edit."""
    unit: str
    """Hash of the unit that was assigned to the arm: a user, a key, or a request without a user."""
    arm: str
    """The name of the arm that edited."""
    expert_set_sha256: str
    """The hash of the expert set that the arm served; "" if the edit failed before that was known."""
    dealt: bool
    """Whether the arm was chosen at random."""
    outcome: str
    """The outcome: "made", "failed" or "cancelled". Other values are not the arm's doing."""
    seconds: float = Field(ge=0, allow_inf_nan=False)
    """The seconds from acceptance to the end."""
    scores: Mapping[str, float] | None = None
    """The judge's scores by name; None if it was not judged."""
    created: float
    """The time of acceptance in Unix seconds."""


class ExportedFeedback(Record):
    """The feedback of a user on one edit, or on two."""

    edits: tuple[str, ...] = Field(min_length=1, max_length=2)
    """The ids of the edits that it is about."""
    winner: str | None = None
    """The id of the better one of two edits; None if the user prefers neither."""
    rating: int | None = Field(default=None, ge=1, le=5)
    """The rating of a single edit; None for a preference."""
    created: float
    """The time of the feedback in Unix seconds."""


@dataclass(frozen=True)
class Traffic:
    """The content of an export."""

    header: Header
    """The arms and events of the export."""
    edits: tuple[ExportedEdit, ...]
    """The edits, oldest first, without damaged lines."""
    feedback: tuple[ExportedFeedback, ...]
    """The feedback of users, oldest first."""


def read_export(path: str | Path) -> Traffic:
    """Read an export. Raises `InputError` that names the wrong line."""
    found: dict[str, list[Any]] = {"header": [], "edit": [], "feedback": []}
    kinds: Mapping[str, type[Record]] = {"header": Header, "edit": ExportedEdit, "feedback": ExportedFeedback}
    for number, line in _lines(Path(path)):
        try:
            data = json.loads(line)
            kind = data.pop("kind")
            found[kind].append(kinds[kind](**data))
        except (ValueError, KeyError, AttributeError, TypeError, InputError) as error:
            raise InputError(
                f"Line {number} of {str(path)!r} is none of an A/B export ({reason_of(error)}); write it again with "
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
    """The lines that are not empty, with their numbers."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}); give a file of `careedit ab export`.") from error
    yield from ((number, line) for number, line in enumerate(lines_of(text), 1) if line.strip())
