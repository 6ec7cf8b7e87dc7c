"""The rows of a batch: the pictures of a folder, or a table. Each becomes requests and the names of their outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from careedit.errors import CareEditError, InputError
from careedit.experts import ExpertSet
from careedit.files import check_relative, file_digest, json_digest
from careedit.images.save import SUFFIXES
from careedit.records import MAX_IMAGES, EditResult
from careedit.tabular import (
    METADATA,
    ParquetTable,
    Table,
    is_missing,
    match_columns,
    open_table,
    picture_of,
    weights_of,
    words_of,
)

FIELDS = ("instruction", "expert", "seed", "steps", "guidance", "n", "top_k", "refine_mask")
"""Columns that are fields of an `EditRequest`."""
OWN = (*FIELDS, "references", "image", "expert_set", "output", "id")
"""Columns that a table of a batch may have in addition to the roles of `careedit.tabular`."""
PICTURES = (*SUFFIXES, ".heic", ".heif", ".avif")
"""The endings of the names of files that are edited in a folder."""
KEY_VERSION = 1
"""The version of row keys. Raise it with a change that makes other edits from the same rows."""

Mark = Callable[[Sequence[Path], EditResult, bytes, ExpertSet], tuple[list[bytes], str, list[str]]]
"""(outputs, result, file of the source, expert set) to the marked files of the outputs, the id that the marks name, and notes."""


@dataclass(frozen=True)
class Batch:
    """What is edited, and how. It can be sent to other processes."""

    place: Path
    """The folder of pictures, or the table."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `EditRequest` for rows that have no such cell; pictures as paths."""
    expert_set: str = "tiny"
    """The expert set of rows that name none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of `careedit.editor.Editor`: device, application, quantisation, compiled."""
    judge: str = "tiny"
    """The judge of an early filter."""
    mark: Mark | None = None
    """Signs results, or puts a watermark into them. None: results have no marks."""
    marks: tuple[str, ...] = ()
    """What `mark` does, by which results with other marks are made again."""


@dataclass(frozen=True, slots=True)
class Task:
    """One row to be edited."""

    index: int
    """The row of the table, from 0."""
    outputs: tuple[str, ...]
    """The file of each image, relative to the folder of results."""
    expert_set: str
    """The expert set that edits."""


class PictureFolder:
    """The pictures of a folder and its sub-folders as a table with the column `source`."""

    columns: tuple[str, ...] = ("source",)

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self.root, self._files = root, files

    def __len__(self) -> int:
        return len(self._files)

    def where(self, index: int) -> str:
        """The path of the picture in the folder."""
        return self._files[index]

    def cells(self, index: int) -> Mapping[str, Any]:
        """The path of the picture."""
        return {"source": self._files[index]}

    def identity(self) -> str:
        """A hash of the names."""
        return json_digest(list(self._files))


class Rows:
    """Reads the rows of a batch."""

    def __init__(self, batch: Batch) -> None:
        """Raises `InputError` for a table without sources or instructions."""
        self.batch, self.table = batch, _open(batch.place)
        names = tuple(self.table.columns)
        needed = ("source",) if "instruction" in batch.defaults else ("source", "instruction")
        stated = {"source": "image"} if "image" in names and "source" not in names else {}
        found = match_columns(names, needed=needed, own=OWN, stated=stated)
        if found is None:
            raise InputError(
                f"The columns {', '.join(names)} of {str(batch.place)!r} do not show {' and '.join(needed)}; name the "
                "columns so, or give the instruction of all rows after the folder."
            )
        refused = sorted({"early_filter", "step_cache", "model"} & set(names))
        if refused:
            raise InputError(
                f"The column {refused[0]!r} cannot differ per row (a model is an expert_set here); remove the column."
            )
        self._columns = {role: column for role, column in found.items() if role != "target"}
        self.unused = [name for name in names if name not in self._columns.values()]
        """Columns that are not read."""

    @property
    def is_parquet(self) -> bool:
        """Whether the rows come from parquet files."""
        return isinstance(self.table, ParquetTable)

    def name(self, index: int) -> str:
        """The name of a row that cannot be read."""
        return f"row-{index + 1}.png"

    def task(self, index: int) -> Task:
        """The task of a row. Raises `InputError` if its output, number of images or expert set cannot be read."""
        text = words_of(self._cell(index, "n")) or str(self.batch.defaults.get("n", 1))
        if not text.isdecimal() or not 1 <= int(text) <= MAX_IMAGES:
            raise InputError(f"n is {text[:20]!r}; between 1 and {MAX_IMAGES} images can be asked for.", field="n")
        path = Path(self._output(index))
        count = int(text)
        names = [path] if count == 1 else [path.with_stem(f"{path.stem}-{i}") for i in range(1, count + 1)]
        expert_set = words_of(self._cell(index, "expert_set")) or self.batch.expert_set
        return Task(index, tuple(name.as_posix() for name in names), expert_set)

    def source(self, index: int) -> str:
        """The path of a row's source as its cell has it; "" if the table holds the picture."""
        try:
            value = self._cell(index, "source")
        except InputError:
            return ""
        path = value.get("path") if isinstance(value, Mapping) else value
        return path if isinstance(path, str) else ""

    def instruction(self, index: int) -> str:
        """The instruction of a row, "" if it cannot be read."""
        try:
            return words_of(self._cell(index, "instruction")) or str(self.batch.defaults.get("instruction", ""))
        except InputError:
            return ""

    def fields(self, index: int) -> dict[str, Any]:
        """The fields of a row's request; pictures are paths or bytes. Raises `InputError`."""
        fields = dict(self.batch.defaults)
        for name in FIELDS:
            if not is_missing(value := self._cell(index, name)):
                fields[name] = (
                    value if isinstance(value, bool | Mapping) else words_of(value, numbers=name != FIELDS[0])
                )
        if isinstance(fields.get("expert"), str):
            fields["expert"] = weights_of(fields["expert"], "The expert")
        root = self.table.root
        fields["image"] = picture_of(root, self._cell(index, "source"), "source")
        if not is_missing(mask := self._cell(index, "mask")):
            fields["mask"] = picture_of(root, mask, "mask")
        if references := [one for name in ("reference", "references") for one in _several(self._cell(index, name))]:
            fields["references"] = tuple(picture_of(root, one, "reference") for one in references)
        return fields

    def key(self, index: int, set_sha256: str) -> str:
        """A hash of all that decides on a row's images. Raises `InputError` if the row or one of its files cannot be read."""
        batch, fields = self.batch, self.fields(index)
        pictures = {name: fields.pop(name) for name in ("image", "mask", "references") if name in fields}
        content = {
            "version": KEY_VERSION,
            "expert_set": set_sha256,
            "options": {name: value for name, value in batch.options.items() if name != "device"},
            "judge": batch.judge if "early_filter" in fields else None,
            "marks": batch.marks,
            "pictures": {name: [_digest(one) for one in _several(value)] for name, value in pictures.items()},
            "fields": fields,
        }
        return json_digest(content, default=lambda record: record.model_dump(mode="json"))

    def _cell(self, index: int, role: str) -> Any:
        """The cell of a role, which is decoded now, or None. Raises `InputError` for a row that cannot be read."""
        column = self._columns.get(role)
        return None if column is None else self.table.cells(index).get(column)

    def _output(self, index: int) -> str:
        """The name of a row's output: stated, that of the picture in a folder, by its id, or by its number."""
        name = words_of(self._cell(index, "output"))
        if not name and isinstance(self.table, PictureFolder):
            source = self.table.where(index)
            name = source if source.lower().endswith(SUFFIXES) else f"{source}.png"
        if not name:
            identity = words_of(self._cell(index, "id"))
            name = f"{identity}.png" if identity else self.name(index)
        try:
            check_relative(name)
        except CareEditError as error:
            raise InputError(str(error), field="output") from None
        if not name.lower().endswith(SUFFIXES):
            raise InputError(f"The output {name!r} has no suffix of an image format; use .png, .jpg or .webp.")
        return Path(name).as_posix()


def _open(place: Path) -> Table:
    """The pictures of a folder without a table, or the table. Raises `InputError`."""
    if not place.is_dir() or any((place / name).is_file() for name in METADATA):
        return open_table(place)
    found = sorted(path.relative_to(place) for path in place.rglob("*") if path.suffix.lower() in PICTURES)
    files = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    if files:
        return PictureFolder(place, files)
    if not any(place.rglob("*.parquet")):
        raise InputError(
            f"The folder {str(place)!r} has no pictures ({', '.join(PICTURES)}) and no table; check the path."
        )
    return open_table(place)


def _several(value: Any) -> Iterator[Any]:
    """The values of a cell with one value, a list, or nothing."""
    for one in value if isinstance(value, list | tuple) else (value,):
        if not is_missing(one):
            yield one


def _digest(picture: Path | bytes) -> str:
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    try:
        return file_digest(picture)
    except OSError as error:
        raise InputError(f"{str(picture)!r} cannot be read ({error.strerror}); check the file.") from None
