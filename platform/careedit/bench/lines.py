"""Measurements of a benchmark by key, one line of JSON each, so that a killed run can continue."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from careedit.errors import InputError
from careedit.files import json_digest

Measured = TypeVar("Measured")
"""A dataclass whose fields JSON can hold."""


class LineCache(Generic[Measured]):
    """Measurements in memory and, with a folder, on disk for the next run.

    Lines are only appended, each by one write, so a killed run loses at most its last line. A line that cannot be read is
    skipped and measured again.
    """

    def __init__(
        self, folder: Path | None, file: str, version: int, read: Callable[[dict[str, Any]], Measured]
    ) -> None:
        """`read` makes a measurement from a line's fields; a line of another `version` is ignored."""
        self._found: dict[str, Measured] = {}
        self._version, self._make = version, read
        self.unreadable = 0
        """Number of lines that were skipped."""
        self._path: Path | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / file
            if self._path.exists():
                data = self._path.read_bytes()
                if data and not data.endswith(b"\n"):  # the line of a killed run: end it
                    with self._path.open("ab") as stream:
                        stream.write(b"\n")
                for line in data.splitlines():
                    self._read(line)
        except OSError as error:
            raise InputError(
                f"The cache {str(folder)!r} cannot be used ({error.strerror}); give another folder."
            ) from error

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> Measured | None:
        """The measurement, or None."""
        return self._found.get(key)

    def put(self, measured: Mapping[str, Measured]) -> None:
        """Store several measurements; raises `InputError` if the disk is full."""
        self._found.update(measured)
        if self._path is None or not measured:
            return
        lines = [
            json.dumps({"version": self._version, "key": key, **dataclasses.asdict(one)}, allow_nan=False)  # type: ignore[call-overload]
            for key, one in measured.items()
        ]
        try:
            handle = os.open(self._path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                for line in lines:
                    os.write(handle, f"{line}\n".encode("ascii"))
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
            if version == self._version:
                self._found[key] = self._make(fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.unreadable += 1


def content_key(content: Mapping[str, Any]) -> str:
    """Hash of everything that a measurement depends on, as JSON."""
    return json_digest(content, ensure_ascii=True, allow_nan=True)[:32]
