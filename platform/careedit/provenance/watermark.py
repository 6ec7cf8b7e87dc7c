"""Invisible watermarks: what a method of marking pixels must do, and the mark that a result gets.

A watermark stays where a program drops all metadata. Its payload is a keyed hash of the edit's id: who has the key and the id can
say that the picture comes from that edit. The method is found by name among the entry points of `plugins.WATERMARKS`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

from PIL import Image

from careedit import plugins
from careedit.errors import InputError

PAYLOAD_BYTES = 8
"""Length of a payload, in bytes."""
MIN_KEY_BYTES = 16
"""Minimum length of a key, in bytes."""
DEFAULT_METHOD = "spread"
"""Name of the method that careedit uses if no other is named."""

_MAX_KEY_BYTES = 4096


@dataclass(frozen=True)
class Found:
    """A watermark that was found in a picture."""

    payload: bytes
    """The payload that was read, `PAYLOAD_BYTES` long."""
    confidence: float
    """Probability that the payload is read without an error, 0 to 1, as the method estimates it."""


class Watermark(Protocol):
    """A method of marking pixels. Its objects hold no state, so threads and processes may share them."""

    @property
    def min_side(self) -> int:
        """Minimum width and height of a picture that is marked, in pixels."""

    def embed(self, picture: Image.Image, payload: bytes) -> Image.Image:
        """A new picture of the same size with the payload; an earlier payload of this method is replaced.

        The picture is "L" or "RGB"; the result has the same mode. Equal inputs give equal pixels. Raises `ImageError` if a
        side is below `min_side`.
        """

    def detect(self, picture: Image.Image) -> Found | None:
        """The payload of an "L" or "RGB" picture of any size; None: no watermark was found."""


@dataclass(frozen=True)
class Mark:
    """A method and a payload: what is done to one picture. It can be sent to another process."""

    method: str
    """Name of the method, as an entry point has it."""
    payload: bytes
    """The payload that is put in, `PAYLOAD_BYTES` long."""

    def embed(self, picture: Image.Image) -> Image.Image:
        """The picture with the payload, as "L" or "RGB"."""
        plain = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
        return method_of(self.method).embed(plain, self.payload)


@dataclass(frozen=True)
class Marking:
    """Marks results with one method and key."""

    key: bytes = field(repr=False)
    """The secret key of the payloads."""
    method: str = DEFAULT_METHOD
    """Name of the method, as an entry point has it; default "spread"."""

    def of(self, edit: str, size: tuple[int, int]) -> Mark | None:
        """The mark of an edit's result of this size (width, height); None: the result is too small, see `size_note`."""
        return None if size_note(self.method, size) else Mark(self.method, self.payload(edit))

    def payload(self, edit: str) -> bytes:
        """The payload of an edit: the first bytes of HMAC-SHA256 of its id."""
        return hmac.digest(self.key, edit.encode(), hashlib.sha256)[:PAYLOAD_BYTES]


def size_note(method: str, size: tuple[int, int]) -> str | None:
    """A sentence if a result of this size (width, height) is too small for a watermark, else None."""
    side = method_of(method).min_side
    if min(size) >= side:
        return None
    return f"The result has no watermark: it is {size[0]}x{size[1]}, and a watermark needs {side} pixels in width and height."


@cache
def method_of(name: str) -> Watermark:
    """The method of this name, looked up once: entry points are files. Raises `InputError` if no installed package has it."""
    found: Watermark | None = plugins.load(plugins.WATERMARKS, name, error=InputError)
    if found is None:
        known = ", ".join(plugins.names(plugins.WATERMARKS))
        raise InputError(f"The watermark method {name!r} does not exist; use one of {known}.")
    return found


def find_watermark(picture: Image.Image) -> tuple[str, Found] | None:
    """The first installed method that finds a watermark in an "L" or "RGB" picture, and what it found; None: none does."""
    for name in plugins.names(plugins.WATERMARKS):
        if (found := method_of(name).detect(picture)) is not None:
            return name, found
    return None


def key_from_file(path: str | os.PathLike[str]) -> bytes:
    """The key in a file, without white space around it. Raises `InputError`."""
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"The watermark key {str(path)!r} cannot be read ({error.strerror}); {_ADVICE} > {path}"
        ) from None
    return _checked(data, f"file {str(path)!r}")


def key_from_environment(variable: str) -> bytes:
    """The key in an environment variable, without white space around it. Raises `InputError`."""
    data = os.environ.get(variable, "").encode("utf-8", "surrogateescape")
    if not data:
        raise InputError(f"The environment variable {variable} with the watermark key is not set; {_ADVICE}")
    return _checked(data, f"environment variable {variable}")


_ADVICE = "set it, for example: openssl rand -base64 32"


def _checked(data: bytes, place: str) -> bytes:
    key = data.strip()
    if not MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise InputError(
            f"The watermark key in the {place} has {len(key)} bytes; give {MIN_KEY_BYTES} to {_MAX_KEY_BYTES:,}, for example the "
            "output of: openssl rand -base64 32"
        )
    return key
