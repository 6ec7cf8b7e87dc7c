"""Edits and scores on disk, by content key. Several runs may share one store.

Each image is a file under its edit's key. Rows are JSON lines, one file per finished batch. Every file is written under a
temporary name and then renamed, and images are written before the rows that name them. So a run may be killed at any
time: what the store lists is complete. `FORMAT` is the version of this layout.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from careedit.errors import InputError
from careedit.files import write_atomic
from careedit_eval.errors import RunError
from careedit_eval.records import AnswerRow, EditRow, Score, ScoreRow

FORMAT = 1
ANSWERS = "answers"
"""The folder of judges' answers in the store."""
COMPACT_ABOVE = 64
"""If a folder has more files of rows than this when a run begins, they are merged into one file."""

Row = TypeVar("Row")
Part = TypeVar("Part")


class RowFiles(Generic[Row]):
    """Rows of one kind in a folder, as files of JSON lines. One process writes; any number may read."""

    def __init__(
        self, folder: Path, kind: type[Row], key: Callable[[Any], str], *, without: frozenset[str] = frozenset()
    ) -> None:
        """`kind` is a record or dataclass, `key` reads a row's content key, and the fields `without` are not written.

        Raises `InputError` for an unusable folder.
        """
        self.folder, self._key, self._without = folder, key, set(without)
        self._rows = TypeAdapter[Row](kind)
        self.unreadable = 0
        """Lines that could not be read. Their work is done again."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(folder, error) from error

    def read(self) -> dict[str, Row]:
        """All rows by key. The last row of a key counts, but an error does not replace a result."""
        return self._read(self._rows)

    def read_as(self, kind: type[Part]) -> dict[str, Part]:
        """`read`, as records that have only some of the fields."""
        return self._read(TypeAdapter[Part](kind))

    def _read(self, rows: TypeAdapter[Part]) -> dict[str, Part]:
        found = dict[str, Part]()
        for line in self._lines():
            try:
                row = rows.validate_json(line)
            except (ValueError, InputError):
                self.unreadable += 1
                continue
            key = self._key(row)
            if getattr(row, "error", None) is None or key not in found or found[key].error is not None:  # type: ignore[attr-defined]
                found[key] = row
        return found

    def write(self, rows: Sequence[Row]) -> None:
        """Write a batch of rows as one file. Raises `RunError` if the disk is full."""
        if not rows:
            return
        # Names sort by time, so that later rows are read later.
        path = self.folder / f"{time.time_ns():020}-{secrets.token_hex(4)}.jsonl"
        try:
            lines = (self._rows.dump_json(row, exclude=self._without) + b"\n" for row in rows)
            write_atomic(path, b"".join(lines))
        except OSError as error:
            raise _full(self.folder, error) from error

    def compact(self) -> None:
        """Merge many files into one. If this is killed half-way, some rows exist twice; they are equal."""
        files = self._files()
        if len(files) > COMPACT_ABOVE:
            self.write(list(self.read().values()))
            _remove(files)

    def _lines(self) -> Iterator[bytes]:
        for file in self._files():
            with file.open("rb") as lines:
                yield from lines

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.jsonl"))


class Store:
    """A folder of edits and scores. One process writes; any number may read."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises `InputError` if the folder cannot be used."""
        self.folder = Path(folder).resolve()
        mark = self.folder / "format"
        self._edits = RowFiles(self.folder / "edits", EditRow, lambda row: row.edit_key)
        self._scores = RowFiles(
            self.folder / "scores", ScoreRow, lambda row: row.score_key, without=frozenset({"answers"})
        )
        # Replies of judges are long, and only a viewer reads them.
        self._answers = RowFiles(self.folder / ANSWERS, AnswerRow, lambda row: row.score_key)
        try:
            (self.folder / "pictures").mkdir(exist_ok=True)
            if not mark.exists():
                write_atomic(mark, f"{FORMAT}\n".encode())
            found = mark.read_text("ascii").strip()
        except OSError as error:
            raise unusable(self.folder, error) from error
        if found != str(FORMAT):
            raise InputError(
                f"The store {str(folder)!r} has format {found}, but this careedit reads format {FORMAT}; use another folder."
            )

    @property
    def unreadable(self) -> int:
        """Lines that could not be read. Their edits and scores are made again."""
        return self._edits.unreadable + self._scores.unreadable

    def edits(self) -> dict[str, EditRow]:
        """Every edit by its key."""
        return self._edits.read()

    def usable(self) -> dict[str, EditRow]:
        """Every edit that did not fail and whose image exists, by its key."""
        return {key: row for key, row in self.edits().items() if row.error is None and self.path(row).is_file()}

    def scores(self) -> dict[str, Score]:
        """Every score by its key."""
        return self._scores.read_as(Score)

    def put_edits(self, made: Sequence[tuple[EditRow, bytes | None]]) -> None:
        """Store edits with their image files. Raises `RunError` if the disk is full."""
        try:
            for row, picture in made:
                if picture is not None and row.picture is not None:
                    path = self.folder / row.picture
                    path.parent.mkdir(exist_ok=True)
                    write_atomic(path, picture)
        except OSError as error:
            raise _full(self.folder, error) from error
        self._edits.write([row for row, _ in made])

    def put_scores(self, rows: Sequence[ScoreRow]) -> None:
        """Store scores, and the answers of judges behind them. Raises `RunError` if the disk is full."""
        self._answers.write([AnswerRow(score_key=row.score_key, answers=row.answers) for row in rows if row.answers])
        self._scores.write(rows)

    def path(self, row: EditRow) -> Path:
        """The file of an edit's image."""
        return self.folder / str(row.picture)

    def compact(self) -> None:
        """Merge many files of rows into one."""
        self._edits.compact()
        self._scores.compact()
        self._answers.compact()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a killed run. Only the process that writes may call this."""
    _remove(folder.rglob(".*.tmp"))


def unusable(folder: Path, error: OSError) -> InputError:
    """The error for a folder that cannot be created or read."""
    return InputError(f"The folder {str(folder)!r} cannot be used ({error.strerror}); choose another folder.")


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _full(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"{folder} cannot be written ({error.strerror}); what is done is kept. Free some space and run the same "
        "command again."
    )
