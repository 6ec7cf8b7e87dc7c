"""What a picture may cost before it is decoded, and what a reader of a file's structure reports."""

from __future__ import annotations

from dataclasses import dataclass

from careedit.errors import ImageError


@dataclass(frozen=True)
class Limits:
    """The largest picture that is decoded. Everything is checked on the header, before any pixel is decoded."""

    max_bytes: int = 32 * 1024 * 1024
    """Maximum size of the file, in bytes; the default is 32 MiB."""
    max_pixels: int = 50_000_000
    """Maximum number of pixels, width times height."""
    max_side: int = 16_384
    """Maximum length of the longer side, in pixels."""
    max_aspect: float = 16.0
    """Maximum ratio of the longer side to the shorter side."""

    def check_bytes(self, count: int, name: str) -> None:
        """Raise `ImageError` unless a file of `count` bytes may be read; `name` is the subject of the sentence."""
        if count == 0:
            raise ImageError(f"{name} is empty (0 bytes); give a picture file.")
        if count > self.max_bytes:
            raise ImageError(
                f"{name} is larger than {self.max_bytes / 2**20:g} MiB, the limit; compress it or make it smaller."
            )

    def check_size(self, width: int, height: int, name: str) -> None:
        """Raise `ImageError` unless a picture of `width` x `height` pixels may be decoded."""
        if width < 1 or height < 1:
            raise ImageError(f"{name} has no pixels ({width}x{height}); give a picture of at least 1x1.")
        if max(width, height) > self.max_side:
            raise ImageError(
                f"{name} is {width}x{height} pixels; a side may have at most {self.max_side:,}, so make it smaller."
            )
        if width * height > self.max_pixels:
            raise ImageError(
                f"{name} is {width}x{height} = {width * height:,} pixels; the limit is {self.max_pixels:,}, "
                "so make it smaller."
            )
        if max(width, height) > self.max_aspect * min(width, height):
            raise ImageError(
                f"{name} is {width}x{height}; the longer side may be at most {self.max_aspect:g} times the shorter, "
                "so crop it."
            )


DEFAULT_LIMITS = Limits()
"""The limits of a caller that gives no other ones."""


class DamagedHeaderError(Exception):
    """The structure of an accepted format is cut off or inconsistent; never leaves `careedit.images`."""


class RefusedHeaderError(Exception):
    """The file is not decoded, for the reason given as a predicate without its subject; never leaves `careedit.images`."""


@dataclass(frozen=True)
class Header:
    """Size and frame count that a file claims."""

    size: tuple[int, int]
    """Width and height in pixels, before EXIF rotation."""
    frames: int = 1
    """Number of pictures that are shown one after another; 1 for a still picture."""
    turned: bool = False
    """Whether the decoder itself turns the picture by 90 degrees, as the boxes of a HEIC file may request."""
