"""The results of a batch, `results.csv`: one row per edit. It is at the same time the record by which a batch is resumed.

A row is appended when its edit is finished, so a run may be killed at any time; a row that was written in part is not read.
At the end the file is written again, in the order of the table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

from careedit.errors import CareEditError, InputError
from careedit.files import atomic_path, write_atomic

NAME = "results.csv"


@dataclass(frozen=True, slots=True)
class Result:
    """One edit of a batch, made or failed."""

    row: str
    """The place of the row: a line of the table, or the path of the picture in the folder."""
    output: str
    """The file of the image in the folder of results. It exists if the edit is done."""
    status: str
    """The state of the edit: "done" or "failed"."""
    error: str = ""
    """Why the edit failed, as a sentence; "" if it is done."""
    source: str = ""
    """The path of the source as the row has it; "" if the table holds the picture."""
    instruction: str = ""
    """The instruction of the edit."""
    seed: int | None = None
    """The seed of the noise; None if nothing was edited."""
    experts: Mapping[str, float] | None = None
    """The weight of each expert; None if nothing was edited."""
    expert_set: str = ""
    """The name of the expert set and the beginning of its hash; "" if nothing was edited."""
    seconds: float | None = None
    """Wall-clock seconds of the edit, shared by the images of a row; None if nothing was edited."""
    edit: str = ""
    """The id of the edit that Content Credentials and watermark name; "" without them."""
    notes: str = ""
    """What the edit could not do as asked, as sentences; "" if there is nothing to say."""
    key: str = ""
    """A hash of the row, its pictures and the settings. An edit whose key is the same is not made again."""

    @property
    def done(self) -> bool:
        """Whether the image was made."""
        return self.status == "done"


COLUMNS = tuple(one.name for one in fields(Result))


class Results:
    """The results in a folder, by output. One process writes."""

    def __init__(self, folder: Path) -> None:
        """Reads the results of earlier runs. Raises `InputError` if the folder cannot be used."""
        self.folder, self.path = folder, folder / NAME
        self._rows: dict[str, Result] = {}
        self._stream: TextIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                for leftover in folder.rglob(".*.tmp"):  # of a killed run
                    leftover.unlink(missing_ok=True)
                with self.path.open(encoding="utf-8", errors="replace", newline="") as stream:
                    self._rows = {row.output: row for row in map(_read, csv.DictReader(stream)) if row is not None}
            elif any(folder.iterdir()):
                raise InputError(
                    f"The folder {str(folder)!r} has files but no {NAME}; give an empty folder, or that of an earlier run."
                )
        except OSError as error:
            raise InputError(
                f"The folder {str(folder)!r} cannot be used ({error.strerror}); choose another folder."
            ) from None

    def get(self, output: str) -> Result | None:
        """The result of an output, whose image exists if it is done."""
        known = self._rows.get(output)
        return None if known is None or (known.done and not (self.folder / output).is_file()) else known

    def put(self, result: Result, image: bytes | None) -> None:
        """Store a finished edit: its image, then its row. A failed edit leaves no older image behind.

        Raises `CareEditError` if the disk is full.
        """
        path = self.folder / result.output
        try:
            if image is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, image, sync=False)
            if self._stream is None:
                self.write()  # a row that was written in part must not swallow the next one
                self._stream = self.path.open("a", encoding="utf-8", newline="")
            self._stream.write(_lines([result]))
            self._stream.flush()
        except OSError as error:
            raise CareEditError(
                f"{str(path)!r} cannot be written ({error.strerror}); what is done is kept. Free some space and run the same "
                "command again."
            ) from error
        self._rows[result.output] = result

    def finish(self, rows: Mapping[str, str], *, parquet: bool = False) -> None:
        """Write the file in the order of `rows`, which are places by output; edits of earlier tables come last.

        `parquet`: write `results.parquet` as well.
        """
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        ordered = {name: replace(self._rows[name], row=row) for name, row in rows.items() if name in self._rows}
        self._rows = ordered | {name: row for name, row in self._rows.items() if name not in ordered}
        self.write()
        if parquet:
            _write_parquet(self.path.with_suffix(".parquet"), list(self._rows.values()))

    def write(self) -> None:
        """Write all rows to the file."""
        write_atomic(self.path, ",".join(COLUMNS) + "\n" + _lines(self._rows.values()))


def _lines(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(list(_plain(row).values()) for row in rows)
    return text.getvalue()


def _plain(row: Result) -> dict[str, Any]:
    experts = "" if row.experts is None else json.dumps(dict(row.experts), ensure_ascii=False)
    return asdict(row) | {"experts": experts, "seconds": None if row.seconds is None else round(row.seconds, 3)}


def _read(cells: Mapping[str | Any, Any]) -> Result | None:
    """A row of the file; None if it was written in part."""
    if (
        any(cells.get(name) is None for name in COLUMNS)
        or len(cells) != len(COLUMNS)
        or len(cells["key"]) not in (0, 64)
    ):
        return None
    try:
        return Result(
            **{name: cells[name] for name in COLUMNS if name not in ("seed", "experts", "seconds")},
            seed=int(cells["seed"]) if cells["seed"] else None,
            experts=json.loads(cells["experts"]) if cells["experts"] else None,
            seconds=float(cells["seconds"]) if cells["seconds"] else None,
        )
    except ValueError:
        return None


def _write_parquet(path: Path, rows: Sequence[Result]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {"seed": pyarrow.int64(), "seconds": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([_plain(row) for row in rows], schema), temporary)
