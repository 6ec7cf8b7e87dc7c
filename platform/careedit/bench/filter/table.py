"""What became of every noise of a scene: verdicts and scores, from which every strategy's choice is looked up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from careedit.bench.filter.plan import look_key
from careedit.errors import InputError
from careedit.selection import JudgeFailed, Plan, Race, race

VERSION = 1
"""Of a line of the cache."""
FILE = "filter.jsonl"
"""Name of the cache's file in its folder."""
ORACLE = "oracle"
"""Choosing by the verdict on the finished edit: the upper bound of any choice."""


@dataclass(frozen=True, slots=True)
class SceneTable:
    """One scene. Sequences hold one entry per noise."""

    sample: str
    """The scene's id."""
    kind: str
    """Its kind of edit."""
    rows: int
    """Transformer evaluations per step: one per expert of the mixture."""
    right: tuple[bool, ...]
    """The oracle on the finished edits: followed, and the rest preserved."""
    scores: Mapping[str, Mapping[str, tuple[float | None, ...]]]
    """Chooser to look (`look_key`) to scores, None where there is none."""
    consistent: bool | None = None
    """Whether the judge named one winner of a pair in both orders; None where it was not asked, or gave no answer."""
    denoise_seconds: float = 0.0
    """Wall-clock seconds per evaluation."""
    judge_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Chooser to wall-clock seconds per picture."""

    def race(self, plan: Plan, chooser: str) -> Race:
        """What the strategy would choose, by `careedit.selection.race`, the real filter's own rule."""

        def scores_at(steps: int, alive: tuple[int, ...]) -> list[float | None]:
            key = look_key(plan.steps, plan.steps) if chooser == ORACLE else look_key(plan.schedule, steps)
            found = [self.scores[chooser][key][i] for i in alive]
            if all(score is None for score in found):
                raise JudgeFailed("the judge gave no score")
            return found

        return race(plan, scores_at)


class TableCache:
    """Tables by key, in memory and, with a folder, on disk, a line each, so that a killed run goes on."""

    def __init__(self, folder: Path | None = None) -> None:
        self._tables: dict[str, SceneTable] = {}
        self.unreadable = 0
        """Lines that were passed over; their scenes are measured again."""
        self._path: Path | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / FILE
            if self._path.exists():
                for line in self._path.read_bytes().splitlines():
                    self._read(line)
        except OSError as error:
            raise InputError(
                f"The cache {str(folder)!r} cannot be used ({error.strerror}); give another folder."
            ) from error

    def __len__(self) -> int:
        return len(self._tables)

    def get(self, key: str) -> SceneTable | None:
        """The table, or None."""
        return self._tables.get(key)

    def put(self, key: str, table: SceneTable) -> None:
        """Keep one; raises `InputError` where the disk takes no more."""
        self._tables[key] = table
        if self._path is None:
            return
        line = json.dumps({"version": VERSION, "key": key, **dataclasses.asdict(table)}, allow_nan=False) + "\n"
        try:
            handle = os.open(self._path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                # In front, so that what a killed run left of its last line stays a line of its own.
                os.write(handle, f"\n{line}".encode("ascii"))
            finally:
                os.close(handle)
        except OSError as error:
            raise InputError(
                f"The cache {self._path} cannot be written ({error.strerror}); free some space."
            ) from error

    def _read(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            fields: dict[str, Any] = json.loads(line)
            version, key = fields.pop("version"), fields.pop("key")
            if version == VERSION:
                scores = {
                    chooser: {look: tuple(row) for look, row in looks.items()}
                    for chooser, looks in fields.pop("scores").items()
                }
                self._tables[key] = SceneTable(**{**fields, "right": tuple(fields["right"]), "scores": scores})
        except (ValueError, KeyError, TypeError, AttributeError):
            self.unreadable += 1


def table_key(content: Mapping[str, Any]) -> str:
    """Hash of everything that a table depends on."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()[:32]
