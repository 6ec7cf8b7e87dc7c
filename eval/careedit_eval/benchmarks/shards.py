"""Parquet shards wherever fsspec reaches: words of all rows first, pictures by reference."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from careedit_eval.benchmarks.base import check_columns
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import Cell, PictureRef, picture_bytes, read_bytes, read_column, reason_of

_HUB = re.compile(r"hf://(?:datasets/)?([^/@]+/[^/@]+)(?:@([^/]+))?(/.*)?")


@dataclass(frozen=True, slots=True)
class Place:
    """A row."""

    uri: str
    """Its shard."""
    group: int
    """Row group in the shard."""
    row: int
    """Row in the group."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row without its pictures."""

    place: Place
    cells: Mapping[str, Any]

    def text(self, column: str) -> str:
        """A cell as stripped text, empty where there is none."""
        value = self.cells.get(column)
        return "" if value is None else str(value).strip()

    def picture(self, column: str) -> PictureRef:
        """A picture; where the cell is empty, one of no bytes, which no editor and no metric takes for a picture."""
        return self.picture_or_none(column) or PictureRef.of(b"")

    def picture_or_none(self, column: str) -> PictureRef | None:
        """A picture, or None where the cell is empty. Reads the cell, for its hash."""
        place = self.place
        value = read_column(place.uri, place.group, column)[place.row].as_py()
        data = picture_bytes(value)
        if data is not None:
            cell = Cell(group=place.group, row=place.row, column=column)
            return PictureRef(sha256=PictureRef.of(data).sha256, uri=place.uri, cell=cell)
        path = value.get("path") if isinstance(value, dict) else value
        if not isinstance(path, str) or not path:
            return None
        return file_ref(posixpath.join(posixpath.dirname(place.uri), path))


class Shards:
    """The rows of a parquet file, or of all shards below a folder whose names begin with `prefix`."""

    def __init__(self, path: str, *, prefix: str = "") -> None:
        self.path = path
        try:
            files, root = fsspec.core.url_to_fs(os.path.expanduser(path))
            found = [root] if files.isfile(root) else sorted(files.find(root))
        except Exception as error:  # each file system raises its own kind
            raise BenchmarkError(
                f"{path!r} cannot be listed ({reason_of(error)}); check path, network and rights."
            ) from error
        names = [name for name in found if name.endswith(".parquet") and posixpath.basename(name).startswith(prefix)]
        if not names:
            shards = f"{prefix}*.parquet" if prefix else ".parquet file"
            raise BenchmarkError(f"There is no {shards} in {path!r}; give the folder of the data set.")
        self.uris = tuple(files.unstrip_protocol(name) for name in names)

    def columns(self) -> tuple[str, ...]:
        """Names of the columns, of the first shard."""
        with self._open(self.uris[0]) as (file, _):
            return tuple(file.schema_arrow.names)

    def lines(self, words: Sequence[str], pictures: Sequence[str]) -> Iterator[Line]:
        """Every row, in order; all of `words` and `pictures` must be columns, and the words are read."""
        for uri in self.uris:
            with self._open(uri) as (file, name):
                check_columns(file.schema_arrow.names, (*words, *pictures), f"The shard {name!r}")
                for group in range(file.num_row_groups):
                    try:
                        cells = file.read_row_group(group, columns=list(words)).to_pylist()
                    except Exception as error:  # pyarrow's errors have no common root
                        raise _unreadable(uri, error) from error
                    for row, values in enumerate(cells):
                        yield Line(Place(uri, group, row), values)

    def _open(self, uri: str) -> _Opened:
        return _Opened(uri)


class _Opened:
    """A shard that is open: (file, name for a person)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> tuple[Any, str]:
        from pyarrow import parquet

        try:
            self.stream = fsspec.open(self.uri, "rb").open()
        except Exception as error:  # each file system raises its own kind
            raise _unreadable(self.uri, error) from error
        try:
            return parquet.ParquetFile(self.stream), posixpath.basename(self.uri)
        except Exception as error:  # pyarrow's errors have no common root
            self.stream.close()
            raise _unreadable(self.uri, error) from error

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def _unreadable(uri: str, error: BaseException) -> BenchmarkError:
    return BenchmarkError(
        f"The shard {posixpath.basename(uri)!r} cannot be read as parquet ({reason_of(error)}); get it again."
    )


def file_ref(uri: str) -> PictureRef:
    """A picture that is a file of its own; where it cannot be read, one of no bytes. Reads it, for its hash."""
    try:
        data = read_bytes(uri)
    except BenchmarkError:
        return PictureRef.of(b"")
    return PictureRef(sha256=PictureRef.of(data).sha256, uri=uri)


def resolve(path: str, revision: str | None, pinned: str | None = None) -> tuple[str, str | None]:
    """(path, revision) to read: "hf://owner/name" becomes the data set of a hub at a commit, other paths stay.

    Raises `BenchmarkError` for a hub's data set without a revision, as it could change under the benchmark.
    """
    match = _HUB.fullmatch(path)
    if match is None:
        if path.startswith("hf://"):
            raise BenchmarkError(f"{path!r} names no data set of a hub; write hf://OWNER/NAME.")
        return path, revision
    name, stated, rest = match.groups()
    if stated is not None and revision is not None and stated != revision:
        raise BenchmarkError(f"{path!r} and the revision {revision!r} differ; state one of them.")
    commit = stated or revision or pinned
    if commit is None:
        raise BenchmarkError(f"{path!r} needs a revision, as a hub's data set can change; state its commit.")
    return f"hf://datasets/{name}@{commit}{rest or ''}", commit
