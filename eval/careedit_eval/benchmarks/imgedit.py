"""ImgEdit-Bench (arXiv 2505.20275): nine types of basic edits, the hard UGE suite, and sessions of two or three turns.

All three are JSON listings next to a folder of images: {"1082": {"id": "animal/000342021.jpg", "prompt": ...}}. In sessions an
entry has `turn1`, `turn2` and perhaps `turn3` in place of `prompt`. There are no targets.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Literal

from careedit_eval.benchmarks.base import UNKNOWN, Source, TableBenchmark, group_of, taken
from careedit_eval.benchmarks.listings import Entry, entries_of, files_named, find_listing
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import Sample

KINDS = ("add", "adjust", "extract", "replace", "remove", "background", "style", "compose", "action")
"""The kinds of edit of the basic suite: the values of `edit_type`."""
LISTINGS = {"basic": ("basic_edit.json", "singleturn.json"), "uge": ("UGE_edit.json",)}
"""The names of the published listings, which are looked for in a folder."""
TURNS = ("turn1", "turn2", "turn3")


class ImgEditConfig(Source):
    """Options of ImgEdit-Bench; `limit` counts sessions in the suite "multi"."""

    suite: Literal["basic", "uge", "multi"] = "basic"
    """Which of the suites is read. In "multi" every turn edits the result of the turn before, and the last turn is measured."""
    images: str | None = None
    """The folder that the names of images are relative to; None means the folder of the listing."""


class ImgEdit(TableBenchmark):
    """The rows of one suite. `path` is the JSON file, or the folder that has it under its published name."""

    def __init__(self, config: ImgEditConfig) -> None:
        super().__init__(f"imgedit-{config.suite}", config)
        self.config = config

    def _read(self) -> Iterator[Sample]:
        if self.config.suite == "multi":
            for _, entry in taken(((_session(one), one) for one in self._sessions()), self.config.limit):
                yield from _turns(entry)
            return
        listing = find_listing(self.path, LISTINGS[self.config.suite])
        entries = entries_of(listing, self.config.images)
        yield from (self._sample(entry) for _, entry in taken(((one.key, one) for one in entries), self.config.limit))

    def _sample(self, entry: Entry) -> Sample:
        source = entry.picture("id")
        return Sample(
            id=entry.key,
            kind=(entry.text("edit_type") or UNKNOWN) if self.config.suite == "basic" else "uge",
            instruction=entry.text("prompt"),
            source=source,
            group=group_of(source, entry.key),
            problem=entry.lack("id", "prompt"),
        )

    def _sessions(self) -> Iterator[Entry]:
        """The sessions of a listing, or of all listings in a folder."""
        files = [self.path] if self.path.endswith(".json") else files_named(self.path, "*.json")
        if not files:
            raise BenchmarkError(
                f"There is no .json file in {self.path!r}; give the folder with the listings of sessions."
            )
        for file in files:
            yield from entries_of(file, self.config.images)


def _session(entry: Entry) -> str:
    """The id of a session: the name of its listing, which is the kind of the session, and its key."""
    return f"{_kind(entry)}-{entry.key}"


def _kind(entry: Entry) -> str:
    return posixpath.splitext(str(entry.place).partition(",")[0])[0]


def _turns(entry: Entry) -> Iterator[Sample]:
    """The turns of a session, each on the result of the turn before. A judge of the last turn sees the first source, so the last
    turn also has all instructions as the text `instructions`."""
    session, source = _session(entry), entry.picture("id")
    turns = [turn for turn in TURNS if entry.cells.get(turn) is not None] or [TURNS[0]]
    asked = "\n".join(f"{number}. {entry.text(turn)}" for number, turn in enumerate(turns, 1))
    for number, turn in enumerate(turns, 1):
        last = number == len(turns)
        yield Sample(
            id=f"{session}-{number}",
            kind=_kind(entry),
            instruction=entry.text(turn),
            source=source,
            texts={"instructions": asked} if last else {},
            group=group_of(source, session),
            turn=number,
            previous=f"{session}-{number - 1}" if number > 1 else None,
            scored=last,
            problem=entry.lack("id", *TURNS[:number]),
        )
