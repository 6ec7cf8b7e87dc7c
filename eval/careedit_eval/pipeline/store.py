"""What was edited and measured, on disk, by content key; the same store may serve many runs.

Pictures lie one by one under their edit keys; rows lie in files of JSON lines, one file per finished batch. Every file
is written under a temporary name and renamed, pictures before the rows that name them: whenever a run is killed, what
the store says is there is there. `FORMAT` is the version of this layout.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from careedit.errors import InputError
from careedit.files import write_atomic
from careedit_eval.errors import RunError
from careedit_eval.records import EditRow, ScoreRow

FORMAT = 1
COMPACT_ABOVE = 64
"""Files of rows above which they are made one, when a run begins."""

Row = TypeVar("Row", EditRow, ScoreRow)


class Store:
    """A folder of edits and scores. One process writes; any number may read."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises `InputError` where the folder cannot be used."""
        self.folder = Path(folder).resolve()
        self.unreadable = 0
        """Lines that could not be read; what they said is made again."""
        mark = self.folder / "format"
        try:
            for name in ("pictures", "edits", "scores"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            if not mark.exists():
                write_atomic(mark, f"{FORMAT}\n".encode())
            found = mark.read_text("ascii").strip()
        except OSError as error:
            raise InputError(f"The store {str(folder)!r} cannot be used ({error.strerror}); give another.") from error
        if found != str(FORMAT):
            raise InputError(
                f"The store {str(folder)!r} has format {found}, this careedit reads {FORMAT}; give another."
            )

    def edits(self) -> dict[str, EditRow]:
        """Every edit by its key; of several rows the last, but no error in place of a picture."""
        return self._read("edits", EditRow, lambda row: row.edit_key)

    def scores(self) -> dict[str, ScoreRow]:
        """Every score by its key, likewise."""
        return self._read("scores", ScoreRow, lambda row: row.score_key)

    def put_edits(self, made: Sequence[tuple[EditRow, bytes | None]]) -> None:
        """Keep edits with the files of their pictures; raises `RunError` where the disk takes no more."""
        try:
            for row, picture in made:
                if picture is not None and row.picture is not None:
                    path = self.folder / row.picture
                    path.parent.mkdir(exist_ok=True)
                    write_atomic(path, picture)
            self._write("edits", [row for row, _ in made])
        except OSError as error:
            raise _full(self.folder, error) from error

    def put_scores(self, rows: Sequence[ScoreRow]) -> None:
        """Keep scores; raises `RunError` where the disk takes no more."""
        try:
            self._write("scores", rows)
        except OSError as error:
            raise _full(self.folder, error) from error

    def path(self, row: EditRow) -> Path:
        """The file of an edit's picture."""
        return self.folder / str(row.picture)

    def compact(self) -> None:
        """Make one file of many. Left alone when killed half-way: rows that stand twice are the same rows."""
        edits, scores = self._files("edits"), self._files("scores")
        if len(edits) > COMPACT_ABOVE:
            self._write("edits", list(self.edits().values()))
            _remove(edits)
        if len(scores) > COMPACT_ABOVE:
            self._write("scores", list(self.scores().values()))
            _remove(scores)

    def _files(self, name: str) -> list[Path]:
        return sorted((self.folder / name).glob("[0-9]*.jsonl"))

    def _write(self, name: str, rows: Sequence[EditRow] | Sequence[ScoreRow]) -> None:
        if rows:
            text = "".join(row.model_dump_json() + "\n" for row in rows)
            # The name sorts by time, so that later rows are read later.
            write_atomic(
                self.folder / name / f"{time.time_ns():020}-{secrets.token_hex(4)}.jsonl", text.encode("utf-8")
            )

    def _read(self, name: str, kind: type[Row], key: Callable[[Row], str]) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for file in self._files(name):
            for line in file.read_bytes().splitlines():
                try:
                    row = kind.model_validate_json(line)
                except (ValueError, InputError):
                    self.unreadable += 1
                    continue
                one = key(row)
                if row.error is None or one not in found or found[one].error is not None:
                    found[one] = row
        return found


def present(rows: Mapping[str, Row]) -> set[str]:
    """Keys of rows that hold a result: an error is none, so the next run tries again."""
    return {key for key, row in rows.items() if row.error is None}


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run had under temporary names; only the process that writes may call it."""
    _remove(folder.rglob(".*.tmp"))


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _full(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"The store {folder} cannot be written ({error.strerror}); what is done is kept. Free some space and run the same "
        "command again."
    )
