"""Images of benchmark rows by reference: a row has a few hundred bytes, and its images are read where they are used.

A reference names a file, or a cell of a parquet or Arrow file, and the hash of its bytes, so that a changed image is detected.
"""

from __future__ import annotations

import hashlib
from typing import Any

import fsspec
from pydantic import Field, model_validator

from careedit.errors import InputError
from careedit.record import Record
from careedit_eval.errors import BenchmarkError, reason_of
from careedit_eval.row_groups import read_column

EMPTY = hashlib.sha256(b"").hexdigest()
"""The hash of no bytes: of a missing image, and of an empty file."""


class Cell(Record):
    """A cell of a parquet or Arrow file with an image, as bytes or as Hugging Face's {bytes, path}."""

    group: int
    """The index of the row group, or of the record batch of an Arrow file."""
    row: int
    """The row within its row group, from 0."""
    column: str
    """The name of the column."""
    item: int | None = None
    """The place of the image in the cell's list, from 0; None if the cell holds a single image."""


class PictureRef(Record):
    """The bytes of one image file, or the place to read them from."""

    sha256: str = Field(min_length=64, max_length=64)
    """The sha256 of the file's bytes, in hex."""
    data: bytes | None = Field(default=None, repr=False)
    """The bytes themselves; None if they are read from a place."""
    uri: str | None = None
    """A path or an address for fsspec ("s3://bucket/key"): the image, or the file of rows that contains it."""
    cell: Cell | None = None
    """The cell in the file of rows at `uri`; None if `uri` is the image."""
    missing: str | None = None
    """Why the image is missing, as a sentence that names the file or the row; None if it is not missing."""

    @model_validator(mode="after")
    def _check_place(self) -> PictureRef:
        given = [self.data, self.uri, self.missing]
        if sum(value is not None for value in given) != 1 or (self.cell is not None and self.uri is None):
            raise InputError("A picture is given by its bytes, by its uri, or as missing; give exactly one of them.")
        return self

    @classmethod
    def of(cls, data: bytes) -> PictureRef:
        """An image whose bytes are already read."""
        return cls(sha256=hashlib.sha256(data).hexdigest(), data=data)

    @classmethod
    def gone(cls, why: str) -> PictureRef:
        """An image that a row names but that cannot be read; `why` becomes the error of every reader."""
        return cls(sha256=EMPTY, missing=why)

    @property
    def place(self) -> str:
        """The place of the image, for messages; "" if its bytes are held here."""
        if self.uri is None:
            return ""
        if self.cell is None:
            return repr(self.uri)
        return f"{self.uri!r}, row {self.cell.row + 1} of row group {self.cell.group + 1}, {self.cell.column}"

    def read(self) -> bytes:
        """The bytes. Raises `BenchmarkError` if they are missing, gone, or no longer the listed ones."""
        if self.missing is not None:
            raise BenchmarkError(self.missing)
        if self.data is not None:
            return self.data
        uri = str(self.uri)
        data = read_bytes(uri) if self.cell is None else _cell(uri, self.cell)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise BenchmarkError(f"A picture in {uri!r} has changed since its benchmark was read; start the run again.")
        return data


def read_bytes(uri: str) -> bytes:
    """The bytes of a file. Raises `BenchmarkError`."""
    try:
        with fsspec.open(uri, "rb") as stream:
            return bytes(stream.read())
    except Exception as error:  # each file system raises its own kind
        raise BenchmarkError(f"{uri!r} cannot be read ({reason_of(error)}); check path, network and rights.") from error


def picture_bytes(value: Any) -> bytes | None:
    """The bytes in a cell of an image column; None for an empty cell."""
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) and found else None


def _cell(uri: str, cell: Cell) -> bytes:
    column = read_column(uri, cell.group, cell.column)
    value = column[cell.row].as_py() if 0 <= cell.row < len(column) else None
    if cell.item is not None:
        value = value[cell.item] if isinstance(value, list) and cell.item < len(value) else None
    data = picture_bytes(value)
    if data is None:
        raise BenchmarkError(f"{uri!r} has changed since its benchmark was read; start the run again.")
    return data
