"""MagicBrush (arXiv 2306.10012): people's edits in sessions of up to three turns.

Two published layouts are read: the hub's parquet shards (train, dev), and the folder of the test archive, which may not be
redistributed: `edit_sessions.json`, `images/ID/...`, and files of captions. The paper's CLIP-T uses the *local* captions, which
the shards do not have.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fsspec

from careedit.errors import InputError
from careedit.tabular import is_missing, words_of
from careedit_eval.benchmarks.base import Source, TableBenchmark, taken
from careedit_eval.benchmarks.listings import read_json
from careedit_eval.benchmarks.shards import Line, Shards, file_ref
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef
from careedit_eval.records import Sample

SESSIONS = "edit_sessions.json"
"""The file that identifies a folder as the test archive."""
CAPTIONS = {"target_caption": "local_descriptions.json", "target_caption_global": "global_descriptions.json"}
"""The name of each text, with the file of the archive that has it."""
MOST_TURNS = 100
"""The maximum number of turns of a session; the data set has up to three."""
WORDS = ("img_id", "turn_index", "instruction")
PICTURES = ("source_img", "mask_img", "target_img")


class MagicBrushConfig(Source):
    """Options of MagicBrush; `limit` counts sessions."""

    turns: Literal["single", "multi"] = "single"
    """The source of a turn: "single" uses the true source, and "multi" the editor's own result of the turn before; then only
    the last turn is measured. Both are protocols of the paper."""
    split: str = "dev"
    """The split of the parquet shards; the test archive has a single split."""
    masks: bool = False
    """Whether the editor sees the masks."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a session."""

    session: str
    """The id of the session that the turn belongs to."""
    index: int
    """The number of the turn within its session, from 1."""
    instruction: str
    """The instruction of this turn."""
    source: PictureRef
    """The image before this turn."""
    target: PictureRef | None
    """The image after this turn; None if the data set has none."""
    mask: PictureRef | None
    """The mask of this turn; None if the data set has none."""
    texts: Mapping[str, str]
    """Captions by name, for metrics that compare with text."""
    problem: str | None = None
    """Why the turn cannot be edited; None if it can."""


class MagicBrush(TableBenchmark):
    """All turns in single-turn; in multi-turn, chains that are measured at their last turn.

    A turn that a session lacks becomes a row that cannot be edited. In single-turn this is one error; in multi-turn every later
    turn of the session fails too.
    """

    def __init__(self, config: MagicBrushConfig) -> None:
        super().__init__(f"magicbrush-{config.turns}", config)
        self.config, self.path = config, self.path.rstrip("/")

    def _read(self) -> Iterator[Sample]:
        listing = posixpath.join(self.path, SESSIONS)
        files, root = fsspec.core.url_to_fs(listing)
        turns = self._archive(listing) if files.exists(root) else self._shards()
        for session in turns:
            yield from self._samples_of(_without_gaps(session))

    def _samples_of(self, session: Sequence[Turn]) -> Iterator[Sample]:
        multi = self.config.turns == "multi"
        for place, turn in enumerate(session):
            last = place == len(session) - 1
            yield Sample(
                id=_id(turn),
                kind=f"turn {turn.index}" if not multi else f"{len(session)} turns",
                instruction=turn.instruction,
                source=turn.source,
                target=turn.target,
                mask=turn.mask,
                mask_given=self.config.masks and turn.mask is not None,
                texts=turn.texts,
                group=turn.session,
                turn=turn.index,
                previous=_id(session[place - 1]) if multi and place else None,
                scored=last or not multi,
                problem=turn.problem,
            )

    def _shards(self) -> Iterator[list[Turn]]:
        sessions: dict[str, list[Line]] = defaultdict(list)
        every = Shards(self.path)
        shards = every if len(every.uris) == 1 else Shards(self.path, prefix=self.config.split)
        for line in shards.lines(WORDS, PICTURES):
            # A row without session or turn is a session of its own.
            named = line.lack("img_id") is None and _turn_of(line) is not None
            sessions[line.text("img_id") if named else line.place.name].append(line)
        for name, lines in taken(sessions.items(), self.config.limit):
            yield [
                Turn(
                    name,
                    _turn_of(line) or 1,
                    line.text("instruction"),
                    line.picture("source_img"),
                    line.picture("target_img"),
                    line.picture_or_none("mask_img"),
                    {},
                    line.lack("img_id", "turn_index", "instruction") or _no_turn(line),
                )
                for line in sorted(lines, key=lambda line: _turn_of(line) or 1)
            ]

    def _archive(self, listing: str) -> Iterator[list[Turn]]:
        sessions = _json(listing)
        captions = {name: _json(posixpath.join(self.path, file)) for name, file in CAPTIONS.items()}
        for name, entries in taken(sessions.items(), self.config.limit):
            turns = entries if isinstance(entries, list) and entries else [None]
            yield [self._turn(name, index, entry, captions) for index, entry in enumerate(turns, 1)]

    def _turn(self, session: str, index: int, entry: Any, captions: Mapping[str, Mapping[str, Any]]) -> Turn:
        where = f"{SESSIONS}, turn {index} of session {session!r}"
        given = entry if isinstance(entry, dict) else {}
        lacks = [role for role in ("input", "output", "instruction") if is_missing(given.get(role))]
        problem = f"{where}: {' and '.join(lacks)} missing." if {"input", "instruction"} & set(lacks) else None
        instruction = ""
        try:
            instruction = words_of(given.get("instruction"), numbers=False)
        except InputError as error:
            problem = problem or f"{where}: the instruction is {error}."
        output = str(given.get("output") or "")
        # By session and file name: file names alone pair wrong turns (image_eval.py before 2025-02-19).
        texts = {key: _caption(found, session, output) for key, found in captions.items()}
        pictures = {
            role: PictureRef.gone(f"{where}: {role} is empty.")
            if is_missing(given.get(role))
            else file_ref(posixpath.join(self.path, "images", session), given[role], role, where)
            for role in ("input", "output")
        }
        mask = given.get("mask")
        return Turn(
            session,
            index,
            instruction,
            pictures["input"],
            pictures["output"],
            None if is_missing(mask) else file_ref(posixpath.join(self.path, "images", session), mask, "mask", where),
            {key: text for key, text in texts.items() if text},
            problem,
        )


def _id(turn: Turn) -> str:
    return f"{turn.session}-{turn.index}"


def _without_gaps(session: Sequence[Turn]) -> list[Turn]:
    """The turns in order; a missing turn becomes a row that cannot be edited."""
    there = {turn.index for turn in session}
    name = session[0].session
    gone = PictureRef.gone
    missing = [
        Turn(name, index, "", gone(why), None, None, {}, why)
        for index in range(1, max(there))
        if index not in there and (why := f"Turn {index} of session {name!r} is missing from the data set.")
    ]
    return sorted((*session, *missing), key=lambda turn: turn.index)


def _turn_of(line: Line) -> int | None:
    """The number of a turn, from 1; None if the row does not have one."""
    text = line.text("turn_index")
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_TURNS else None


def _no_turn(line: Line) -> str | None:
    text = line.text("turn_index")
    return None if _turn_of(line) else f"{line.place}: turn_index {text!r} is not a number from 1 to {MOST_TURNS}."


def _json(uri: str) -> dict[str, Any]:
    found = read_json(uri)
    if not isinstance(found, dict):
        raise BenchmarkError(f"{uri!r} is not a JSON object; get the archive again.")
    return found


def _caption(found: Mapping[str, Any], session: str, output: str) -> str:
    entry = found.get(session)
    return str(entry.get(output) or "").strip() if isinstance(entry, dict) else ""
