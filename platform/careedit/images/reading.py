"""What a reader of a file's structure reports: its size, or why it is not decoded."""

from __future__ import annotations

from dataclasses import dataclass


class DamagedHeaderError(Exception):
    """The structure of an accepted format is cut off or inconsistent; never leaves `careedit.images`."""


class RefusedHeaderError(Exception):
    """The file is not decoded, for the reason that is said: a predicate without its subject; never leaves `careedit.images`."""


@dataclass(frozen=True)
class Header:
    """Size and frame count that a file claims."""

    size: tuple[int, int]
    """Width and height in pixels, before EXIF rotation."""
    frames: int = 1
    """Pictures that are shown one after the other; 1 for a still one."""
    turned: bool = False
    """Whether the decoder itself turns the picture by a quarter, as the boxes of a HEIC file may ask."""
