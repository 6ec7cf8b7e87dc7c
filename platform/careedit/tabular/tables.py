"""Tables of rows on disk: a folder with metadata.jsonl or metadata.csv, or parquet shards.

Only the table itself is in memory: images are read with their row.
"""

from __future__ import annotations

import csv
import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from careedit.errors import CareEditError, InputError
from careedit.tabular.cells import find_file, is_missing, lines_of

METADATA = ("metadata.jsonl", "metadata.csv")
"""Names of the table file in a folder, as in Hugging Face's `imagefolder`."""

TABLES = (".csv", ".jsonl", ".parquet")
"""The endings of the names of tables."""


class BrokenRowError(InputError):
    """A row whose cells cannot be read."""


class Table(Protocol):
    """Rows with named cells. An image is a path (relative to `root`), bytes, or {"bytes": ..., "path": ...}."""

    root: Path
    """Folder to which paths in cells are relative."""
    columns: tuple[str, ...]
    """Names of the columns, in their order."""

    def __len__(self) -> int:
        """Number of rows."""

    def where(self, index: int) -> str:
        """The place of row `index` (from 0) for messages: "metadata.jsonl, line 7"."""

    def cells(self, index: int) -> Mapping[str, Any]:
        """The cells of row `index`. Raises `BrokenRowError`."""

    def identity(self) -> str:
        """A hash that changes when the table does."""


def open_table(data: Path) -> Table:
    """The table at `data`: a folder, its metadata file, or a parquet file. Raises `InputError`."""
    if not data.exists():
        raise InputError(f"The file or folder {str(data)!r} does not exist; check the path of the rows.")
    if data.is_file():
        if data.suffix in (".jsonl", ".csv"):
            return TextTable(data)
        if data.suffix == ".parquet":
            return ParquetTable([data], data.parent)
        raise InputError(f"{data.name!r} is not a .jsonl, .csv or .parquet file; give one of them, or a folder.")
    found = [data / name for name in METADATA if (data / name).is_file()]
    if len(found) > 1:
        raise InputError(
            f"The folder {str(data)!r} has both {METADATA[0]} and {METADATA[1]}; name one of the two files."
        )
    if found:
        return TextTable(found[0])
    shards = sorted(path for path in data.rglob("*.parquet") if path.is_file())
    if not shards:
        raise InputError(
            f"The folder {str(data)!r} has no {METADATA[0]}, {METADATA[1]} or .parquet file; give a folder that has one."
        )
    return ParquetTable(shards, data)


class TextTable:
    """A metadata.jsonl (one object per line) or metadata.csv (a header, then rows)."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path.parent
        try:
            # Not in text mode, in which a lone CR ends a line, too.
            text = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{str(path)!r} cannot be read as UTF-8 text ({error}); check the file.") from None
        lines = lines_of(text)
        if len(lines) == 1 and "\r" in lines[0]:
            raise InputError(f"The lines of {str(path)!r} end with CR alone; save it with LF or CRLF.")
        self._digest = hashlib.sha256(text.replace("\r\n", "\n").encode("utf-8"))
        self._rows: list[tuple[int, Mapping[str, Any] | str]] = []
        self.columns: tuple[str, ...] = ()
        (self._read_csv if path.suffix == ".csv" else self._read_json)(lines)
        if not self._rows:
            raise InputError(f"{str(path)!r} has no rows; write one line per edit.")
        if len(self.broken) == len(self._rows):
            raise InputError(
                f"None of the {len(self)} rows of {str(path)!r} can be read ({self.broken[0]}); correct the file."
            )

    def _read_json(self, lines: Sequence[str]) -> None:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                self._rows.append((number, row if isinstance(row, dict) else "the line is not a JSON object"))
        names = (name for _, row in self._rows if not isinstance(row, str) for name in row)
        self.columns = tuple(dict.fromkeys(names))

    def _read_csv(self, lines: Sequence[str]) -> None:
        # Strict: otherwise a quote that is never closed would take all later lines into its field.
        reader = csv.reader((f"{line}\n" for line in lines), strict=True)
        number = 1  # line at which a row begins; a quoted field may hold several
        try:
            for values in reader:
                if number == 1:
                    if len(set(values)) != len(values):
                        raise InputError(f"The header of {str(self.path)!r} names a column twice; rename one.")
                    self.columns = tuple(values)
                elif len(values) == len(self.columns):
                    self._rows.append((number, dict(zip(self.columns, values, strict=True))))
                elif values:
                    found = f"the line has {len(values)} fields where the header has {len(self.columns)}"
                    self._rows.append((number, found))
                number = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"{str(self.path)!r}, line {number}: {error}; correct the file.") from None

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, index: int) -> str:
        """The line in the file."""
        return f"{self.path.name}, line {self._rows[index][0]}"

    @property
    def broken(self) -> list[str]:
        """Rows that cannot be read: the place of each, and what is wrong."""
        return [f"{self.where(i)}: {row}" for i, (_, row) in enumerate(self._rows) if isinstance(row, str)]

    def cells(self, index: int) -> Mapping[str, Any]:
        """The cells; images are file names."""
        row = self._rows[index][1]
        if isinstance(row, str):
            raise BrokenRowError(row)
        return row

    def identity(self) -> str:
        """A hash of the metadata, and of size and time of every file that a cell names."""
        digest = self._digest.copy()
        for _, row in self._rows:
            for value in {} if isinstance(row, str) else row.values():
                if isinstance(value, str) and 0 < len(value) < 1024:
                    digest.update(_stamp(self.root / value))
        return digest.hexdigest()


class ParquetTable:
    """Parquet shards, read a row group at a time."""

    def __init__(self, shards: Sequence[Path], root: Path) -> None:
        parquet = _parquet()
        self.columns: tuple[str, ...] = ()
        self.root, self._shards = root, list(shards)
        self._files: list[Any] = []
        self._groups: list[tuple[int, int]] = []
        counts: list[int] = []
        for number, path in enumerate(shards):
            try:
                file = parquet.ParquetFile(path)
            except Exception as error:  # noqa: BLE001 - pyarrow's errors have no common root
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"{str(path)!r} cannot be read as parquet ({reason}); download or write it again."
                ) from None
            names = tuple(file.schema_arrow.names)
            if number and names != self.columns:
                raise InputError(f"{path.name!r} has other columns than {shards[0].name!r}; give one table's shards.")
            self.columns = names
            self._files.append(file)
            for group in range(file.num_row_groups):
                self._groups.append((number, group))
                counts.append(file.metadata.row_group(group).num_rows)
        self._ends = list(accumulate(counts))
        self._loaded: tuple[int, Any] | None = None
        if not len(self):
            raise InputError(f"{str(root)!r} has no rows; give a table with rows.")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _place(self, index: int) -> tuple[int, int]:
        """Row group of a row, and the row's position in it."""
        group = bisect_right(self._ends, index)
        return group, index - (self._ends[group - 1] if group else 0)

    def where(self, index: int) -> str:
        """The row, counted from 1, in its shard."""
        group, _ = self._place(index)
        shard = self._groups[group][0]
        before = next(i for i, (number, _) in enumerate(self._groups) if number == shard)
        return f"{self._shards[shard].name}, row {index + 1 - (self._ends[before - 1] if before else 0)}"

    def cells(self, index: int) -> Mapping[str, Any]:
        """The cells. A column is decoded when it is read."""
        group, row = self._place(index)
        if self._loaded is None or self._loaded[0] != group:
            shard, part = self._groups[group]
            try:
                self._loaded = (group, self._files[shard].read_row_group(part))
            except Exception as error:  # noqa: BLE001 - as above
                self._loaded = None
                reason = " ".join(str(error).split())[:200]
                raise BrokenRowError(f"its part of the parquet file cannot be read ({reason})") from None
        return _Lazy(self._loaded[1], row, self.columns)

    def identity(self) -> str:
        """A hash of name, size and time of the shards."""
        return hashlib.sha256(b"".join(_stamp(path) for path in self._shards)).hexdigest()


def picture_of(root: Path, value: Any, role: str) -> bytes | Path:
    """The image that a cell holds: its bytes, or its file, whose path is relative to `root`. Raises `InputError`."""
    inside, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, value)
    if isinstance(inside, bytes) and inside:
        return inside
    if is_missing(path) or not isinstance(path, str):
        raise InputError(f"the {role} is a {type(value).__name__}; give a path, or the bytes of a picture file")
    return find_file(root, path, role)


class _Lazy(Mapping[str, Any]):
    """One row of an Arrow table. A cell becomes a Python object when it is read."""

    def __init__(self, table: Any, row: int, columns: Sequence[str]) -> None:
        self._table, self._row, self._columns = table, row, columns

    def __getitem__(self, name: str) -> Any:
        return self._table.column(name)[self._row].as_py()

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _stamp(path: Path) -> bytes:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return b"-"
    return f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode()


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise CareEditError("Parquet files need pyarrow; install it with: pip install 'careedit[train]'.") from None
    return pyarrow.parquet
