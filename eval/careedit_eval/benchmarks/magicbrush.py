"""MagicBrush (arXiv 2306.10012): people's edits in sessions of up to three turns.

Two published layouts are read: the hub's parquet shards (train, dev), and the folder of the test archive, whose rows may
not be redistributed: `edit_sessions.json`, `images/ID/...`, and beside them the captions. The paper's CLIP-T takes the
*local* captions, which the shards do not have.
"""

from __future__ import annotations

import json
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fsspec

from careedit_eval.benchmarks.base import UNVERSIONED, Source, TableBenchmark, chosen
from careedit_eval.benchmarks.shards import Line, Shards, file_ref, resolve
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef, read_bytes
from careedit_eval.records import Sample

SESSIONS = "edit_sessions.json"
"""The file that makes a folder the test archive."""
CAPTIONS = {"target_caption": "local_descriptions.json", "target_caption_global": "global_descriptions.json"}
"""Name of a text, and the archive's file that holds it."""
WORDS = ("img_id", "turn_index", "instruction")
PICTURES = ("source_img", "mask_img", "target_img")


class MagicBrushConfig(Source):
    """Which MagicBrush; `limit` counts sessions."""

    turns: Literal["single", "multi"] = "single"
    """Every turn on its true source (the paper's single-turn), or on the editor's own last picture, of which only the
    last turn is measured (its multi-turn)."""
    split: str = "dev"
    """Of the parquet shards; the test archive holds but one."""
    masks: bool = False
    """Whether the editor sees the masks."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a session."""

    session: str
    index: int
    instruction: str
    source: PictureRef
    target: PictureRef
    mask: PictureRef | None
    texts: Mapping[str, str]


class MagicBrush(TableBenchmark):
    """Single-turn: all turns; multi-turn: chains, measured at their end."""

    def __init__(self, config: MagicBrushConfig) -> None:
        path, revision = resolve(config.path, config.revision)
        super().__init__(f"magicbrush-{config.turns}", config, revision or UNVERSIONED)
        self.config, self.path = config, path.rstrip("/")

    def _read(self) -> Iterator[Sample]:
        listing = posixpath.join(self.path, SESSIONS)
        files, root = fsspec.core.url_to_fs(listing)
        turns = self._archive(listing) if files.exists(root) else self._shards()
        for session in turns:
            yield from self._samples_of(session)

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
            )

    def _shards(self) -> Iterator[list[Turn]]:
        sessions: dict[str, list[Line]] = defaultdict(list)
        every = Shards(self.path)
        shards = every if len(every.uris) == 1 else Shards(self.path, prefix=self.config.split)
        for line in shards.lines(WORDS, PICTURES):
            sessions[line.text("img_id")].append(line)
        for name, lines in _taken(sessions, self.config.limit):
            ordered = sorted(lines, key=lambda line: int(line.cells["turn_index"] or 0))
            yield [
                Turn(
                    name,
                    int(line.cells["turn_index"] or 0),
                    line.text("instruction"),
                    line.picture("source_img"),
                    line.picture("target_img"),
                    line.picture_or_none("mask_img"),
                    {},
                )
                for line in ordered
            ]

    def _archive(self, listing: str) -> Iterator[list[Turn]]:
        sessions = _json(listing)
        captions = {name: _json(posixpath.join(self.path, file)) for name, file in CAPTIONS.items()}
        for name, entries in _taken(sessions, self.config.limit):
            turns = []
            for index, entry in enumerate(entries, 1):
                try:
                    files = {role: self._file(name, str(entry[role])) for role in ("input", "output")}
                    instruction, output = str(entry["instruction"]), str(entry["output"])
                except (KeyError, TypeError):
                    raise BenchmarkError(
                        f"Turn {index} of session {name!r} in {listing!r} needs input, output and instruction; get the "
                        "archive again."
                    ) from None
                mask = self._file(name, str(entry["mask"])) if entry.get("mask") else None
                # By session and file name: file names alone pair wrong turns (image_eval.py before 2025-02-19).
                texts = {key: _caption(found, name, output) for key, found in captions.items()}
                turns.append(
                    Turn(
                        name,
                        index,
                        instruction.strip(),
                        files["input"],
                        files["output"],
                        mask,
                        {key: text for key, text in texts.items() if text},
                    )
                )
            yield turns

    def _file(self, session: str, name: str) -> PictureRef:
        return file_ref(posixpath.join(self.path, "images", session, name))


def _id(turn: Turn) -> str:
    return f"{turn.session}-{turn.index}"


def _taken(sessions: Mapping[str, Any], limit: int | None) -> list[tuple[str, Any]]:
    keep = chosen(sessions, limit)
    return [(name, entries) for name, entries in sessions.items() if keep is None or name in keep]


def _json(uri: str) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(uri))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BenchmarkError(f"{uri!r} is no JSON object; get the archive again.")
    return found


def _caption(found: Mapping[str, Any], session: str, output: str) -> str:
    entry = found.get(session)
    return str(entry.get(output) or "").strip() if isinstance(entry, dict) else ""
