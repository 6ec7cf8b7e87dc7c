"""What decoding did to a picture that its user should know, kept in the picture's `info` until an edit reports it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

FLATTENED = "transparent pixels were laid over white"
"""Ends the note of a picture that had some."""

_FLATTENED = "careedit.flattened"
_STORED = "careedit.stored_size"
MARKS = frozenset({_FLATTENED, _STORED})
"""Keys of `Image.info` that decoding sets; a decoded picture has no others."""


def mark(image: Image.Image, source: Image.Image, stored: tuple[int, int], *, flattened: bool = False) -> Image.Image:
    """`image`, marked in place, with the marks that `source` has already.

    `stored` is the size in the file; `flattened`, whether transparency was laid over white. Marks are text, so that a PNG
    file can keep them.
    """
    image.info = dict(marks_of(source))
    if stored != image.size:
        image.info[_STORED] = _size(stored)
    if flattened:
        image.info[_FLATTENED] = "yes"
    return image


def marks_of(image: Image.Image) -> dict[str | tuple[int, int], str]:
    """The marks alone, for a copy of the same picture."""
    return {key: value for key, value in image.info.items() if key in MARKS}


def decoding_notes(pictures: Sequence[Image.Image]) -> tuple[str, ...]:
    """What a source and its references lost when they were decoded, for `EditTrace.degradations`."""
    names = ("image", *("reference" for _ in pictures[1:]))
    return tuple(
        f"{name}: {FLATTENED}" for name, picture in zip(names, pictures, strict=True) if picture.info.get(_FLATTENED)
    )


def turn_note(image: Image.Image) -> str:
    """A part of a sentence about an unexpected size: that the file's orientation exchanged the sides, or nothing."""
    stored = image.info.get(_STORED)
    if stored is None:
        return ""
    return f" (its file stores {stored} pixels, which its EXIF orientation turns upright)"


def other_size(mask: Image.Image, image: Image.Image, owner: str = "the image") -> str:
    """The sentence for a mask that has not the size of its picture, which is called `owner`."""
    drawn = ", drawn on the upright picture" if turn_note(mask) or turn_note(image) else ""
    return (
        f"The mask is {_size(mask.size)}{turn_note(mask)} but {owner} is {_size(image.size)}{turn_note(image)}; "
        f"give a mask of {owner}'s size, {_size(image.size)}{drawn}."
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
