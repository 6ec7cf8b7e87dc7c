"""Reads benchmarks whose rows are a JSON document next to folders of images."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from careedit_eval.benchmarks.shards import Row, file_ref, names_nothing
from careedit_eval.errors import BenchmarkError, reason_of
from careedit_eval.pictures import PictureRef, read_bytes


@dataclass(frozen=True, slots=True)
class Entry(Row):
    """A row of a JSON listing; its images are files in a folder."""

    key: str
    """The key of the row in its listing, or its number from 1."""
    folder: str
    """The folder that names of image files are relative to."""

    def picture_or_none(self, column: str) -> PictureRef | None:
        """See `Row`."""
        return self._image(self.cells.get(column), column)

    def pictures(self, column: str) -> tuple[PictureRef, ...]:
        """The images of a cell with one name or a list of names."""
        value = self.cells.get(column)
        names = value if isinstance(value, list) else [value]
        return tuple(
            self._image(name, column) or PictureRef.gone(f"{self.place}: {column} holds no image.") for name in names
        )

    def _image(self, name: Any, column: str) -> PictureRef | None:
        if names_nothing(name):
            return None
        return file_ref(self.folder, name, column, str(self.place))


def find_listing(path: str, names: Sequence[str]) -> str:
    """The listing: the file at `path`, or the only file in the folder `path` with one of `names`. Raises `BenchmarkError`."""
    if path.endswith(".json"):
        return path
    found = [place for name in names if _exists(place := posixpath.join(path.rstrip("/"), name))]
    if len(found) != 1:
        what = "is no" if not found else "is more than one"
        raise BenchmarkError(f"There {what} {' or '.join(names)} in {path!r}; give the path of the JSON file.")
    return found[0]


def files_named(path: str, pattern: str) -> list[str]:
    """The files below the folder `path` that match a glob pattern, sorted. Raises `BenchmarkError`."""
    try:
        files, root = fsspec.core.url_to_fs(path)
        found = sorted(files.glob(posixpath.join(root, pattern)))
    except Exception as error:  # each file system raises its own kind
        raise BenchmarkError(
            f"{path!r} cannot be listed ({reason_of(error)}); check path, network and rights."
        ) from error
    return [str(files.unstrip_protocol(name)) if "://" in path else str(name) for name in found]


def entries_of(listing: str, folder: str | None = None, *, where: str = "") -> Iterator[Entry]:
    """The rows of a JSON object or list, with images in `folder`, by default that of the listing.

    `where` names the listing in messages. A row that is not an object has no cells. Raises `BenchmarkError`.
    """
    found = read_json(listing)
    rows: Iterable[tuple[Any, Any]] = found.items() if isinstance(found, dict) else enumerate(found, 1)
    for key, cells in rows:
        place = f"{where or posixpath.basename(listing)}, {'entry' if isinstance(found, dict) else 'row'} {key}"
        mapping: Mapping[str, Any] = cells if isinstance(cells, dict) else {}
        yield Entry(place, mapping, str(key), folder or posixpath.dirname(listing))


def read_json(uri: str) -> dict[str, Any] | list[Any]:
    """The JSON object or list in a file. Raises `BenchmarkError`."""
    try:
        found = json.loads(read_bytes(uri))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict | list):
        raise BenchmarkError(f"{uri!r} is not a JSON object or list; get the file again.")
    return found


def _exists(place: str) -> bool:
    try:
        files, path = fsspec.core.url_to_fs(place)
        return bool(files.exists(path))
    except Exception as error:  # each file system raises its own kind
        raise BenchmarkError(
            f"{place!r} cannot be read ({reason_of(error)}); check path, network and rights."
        ) from error
