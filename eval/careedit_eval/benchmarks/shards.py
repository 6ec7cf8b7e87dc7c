"""Reads rows from parquet and Arrow shards and from JSON listings, wherever fsspec can: the words of all rows first, images by
reference."""

from __future__ import annotations

import os
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from careedit.errors import InputError
from careedit.tabular import find_file, is_missing, words_of
from careedit_eval.errors import BenchmarkError, reason_of
from careedit_eval.pictures import Cell, PictureRef, picture_bytes, read_bytes
from careedit_eval.row_groups import SUFFIXES, opened, read_column, unreadable

_HUB = re.compile(r"hf://(?:datasets/)?([^/@]+/[^/@]+)(?:@([^/]+))?(/.*)?")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a row."""

    uri: str
    """The address of its shard."""
    group: int
    """The index of the row group in the shard."""
    row: int
    """The row within its row group, from 0."""
    shard: str
    """The path of its shard in the data set: "data/train-00000-of-00034.parquet"."""
    number: int
    """The row in the shard, from 1."""

    @property
    def name(self) -> str:
        """The name of a row without an id."""
        return f"{self.shard}:{self.number}"

    def __str__(self) -> str:
        return f"{self.shard}, row {self.number}"


@dataclass(frozen=True, slots=True)
class Row(ABC):
    """A row without its images: of a shard, or of a JSON listing."""

    place: Place | str
    """The place of the row, for error messages."""
    cells: Mapping[str, Any]
    """The cells of the row by column."""

    def text(self, column: str) -> str:
        """A cell as stripped text, empty if the cell is missing; see `careedit.tabular.words_of`."""
        try:
            return words_of(self.cells.get(column))
        except InputError:
            return ""

    def lack(self, *columns: str) -> str | None:
        """Why the row is unusable if one of these columns has no text; None if all have text."""
        for column in columns:
            try:
                if words_of(self.cells.get(column)):
                    continue
                why = f"{column} is empty"
            except InputError as error:
                why = f"{column} is {str(error).partition(';')[0]}"
            return f"{self.place}: {why}."
        return None

    def picture(self, column: str) -> PictureRef:
        """An image; an empty cell gives an image that is missing and says so."""
        return self.picture_or_none(column) or PictureRef.gone(f"{self.place}: {column} holds no image.")

    @abstractmethod
    def picture_or_none(self, column: str) -> PictureRef | None:
        """An image, or None for an empty cell. Reads the image, for its hash."""


@dataclass(frozen=True, slots=True)
class Line(Row):
    """A row of a shard."""

    place: Place
    """The place of the row: its shard, row group and number."""

    def picture_or_none(self, column: str) -> PictureRef | None:
        """See `Row`."""
        place = self.place
        value = read_column(place.uri, place.group, column)[place.row].as_py()
        data = picture_bytes(value)
        if data is not None:
            cell = Cell(group=place.group, row=place.row, column=column)
            return PictureRef(sha256=PictureRef.of(data).sha256, uri=place.uri, cell=cell)
        path = value.get("path") if isinstance(value, dict) else value
        if names_nothing(path):
            return None
        return file_ref(posixpath.dirname(place.uri), path, column, str(place))


class Shards:
    """The rows of a parquet or Arrow file, or of all shards in a folder whose names begin with `prefix`."""

    def __init__(self, path: str, *, prefix: str = "") -> None:
        self.path = path
        try:
            files, root = fsspec.core.url_to_fs(os.path.expanduser(path))
            found = [root] if files.isfile(root) else sorted(files.find(root))
        except Exception as error:  # each file system raises its own kind
            raise BenchmarkError(
                f"{path!r} cannot be listed ({reason_of(error)}); check path, network and rights."
            ) from error
        names = [name for name in found if name.endswith(SUFFIXES) and posixpath.basename(name).startswith(prefix)]
        kinds = sorted({posixpath.splitext(name)[1] for name in names})
        if not names:
            shards = f"{prefix}*.parquet" if prefix else ".parquet or .arrow file"
            raise BenchmarkError(f"There is no {shards} in {path!r}; give the folder of the data set.")
        if len(kinds) > 1:
            raise BenchmarkError(f"{path!r} holds both .arrow and .parquet files; give the folder of one of them.")
        self.uris = tuple(files.unstrip_protocol(name) for name in names)
        folder = posixpath.dirname(root) if names == [root] else root
        self._names = tuple(posixpath.relpath(name, folder) for name in names)

    def columns(self) -> tuple[str, ...]:
        """The names of the columns of the first shard."""
        with opened(self.uris[0]) as file:
            return tuple(file.schema_arrow.names)

    def lines(self, words: Sequence[str], pictures: Sequence[str]) -> Iterator[Line]:
        """Every row, in order, with the words read. All of `words` and `pictures` must be columns."""
        for uri, shard in zip(self.uris, self._names, strict=True):
            with opened(uri) as file:
                what = f"The shard {posixpath.basename(uri)!r}"
                check_columns(file.schema_arrow.names, (*words, *pictures), what)
                number = 0
                for group in range(file.num_row_groups):
                    try:
                        cells = file.read_row_group(group, columns=list(words)).to_pylist()
                    except Exception as error:  # pyarrow's errors have no common root
                        raise unreadable(uri, error) from error
                    for row, values in enumerate(cells):
                        number += 1
                        yield Line(Place(uri, group, row, shard, number), values)


def check_columns(names: Sequence[str], wanted: Iterable[str], what: str) -> None:
    """Raise `BenchmarkError` if a column is missing."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise BenchmarkError(
            f"{what} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(names) or 'none'}. Give "
            "the data set in its published layout."
        )


def names_nothing(name: Any) -> bool:
    """Whether a cell names no image: it is empty, or has the text "None", which AnyEdit writes there."""
    return is_missing(name) or name == "None"


def file_ref(folder: str, name: Any, what: str, where: str = "") -> PictureRef:
    """The image file that the row at `where` names in `folder`, read for its hash; a missing file gives a missing image."""
    local = folder.removeprefix("file://")
    try:
        uri = (
            posixpath.join(local, str(name)) if "://" in local else str(find_file(Path(local).expanduser(), name, what))
        )
        return PictureRef(sha256=PictureRef.of(read_bytes(uri)).sha256, uri=uri)
    except InputError as error:
        return PictureRef.gone(f"{where}: {error}" if where else str(error))


def resolve(path: str, revision: str | None, pinned: str | None = None) -> tuple[str, str | None]:
    """(path, revision) to read: "hf://owner/name" becomes the data set of a hub at a commit; other paths do not change.

    Raises `BenchmarkError` for a hub's data set without a revision, because it could change during the evaluation.
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


def newest_commit(path: str) -> str:
    """The newest commit of a hub's data set. Raises `BenchmarkError` if the hub does not report it."""
    from huggingface_hub import HfApi

    name = path.removeprefix("hf://")
    try:
        commit = HfApi().dataset_info(name, timeout=20).sha
    except Exception as error:  # the hub's client raises errors of several libraries
        raise BenchmarkError(
            f"The hub does not say which commit {path!r} is at ({reason_of(error)}); state `revision`, or give the `path` of "
            "your own copy."
        ) from error
    if not commit:
        raise BenchmarkError(f"The hub names no commit of {path!r}; state `revision`.")
    return commit
