"""What decoding did to a picture that its user should hear of, kept in the picture's `info` until an edit is made of it."""

from __future__ import annotations

from PIL import Image

_FLATTENED = "careedit.flattened"
_STORED = "careedit.stored_size"
MARKS = frozenset({_FLATTENED, _STORED})
"""Keys of `Image.info` that decoding sets; a decoded picture has no others."""


def mark(image: Image.Image, *, stored: tuple[int, int], flattened: bool = False) -> Image.Image:
    """`image`, marked in place: `stored` is its size in its file; `flattened`, whether transparency was laid over white."""
    image.info = {}
    if stored != image.size:
        image.info[_STORED] = stored
    if flattened:
        image.info[_FLATTENED] = True
    return image


def marks_of(image: Image.Image) -> dict[str, object]:
    """The marks alone, for a copy of the same picture."""
    return {key: value for key, value in image.info.items() if key in MARKS}


def is_flattened(image: Image.Image) -> bool:
    """Whether decoding laid transparent pixels of `image` over white."""
    return bool(image.info.get(_FLATTENED))


def other_size(mask: Image.Image, image: Image.Image, owner: str = "the image") -> str:
    """The sentence for a mask that has not the size of its picture; it names a turn that the file's orientation made.

    `owner` is what the picture is called, e.g. "its source".
    """
    text = f"The mask is {_size(mask.size)} but {owner} is {_size(image.size)}"
    needed = _size(image.size)
    if _STORED in image.info:
        return (
            f"{text}: its file stores {_size(image.info[_STORED])} pixels and its orientation (EXIF) turns them upright, "
            f"so draw the mask on the upright picture and give it with {needed}."
        )
    if _STORED in mask.info:
        return (
            f"{text}: the mask's file stores {_size(mask.info[_STORED])} pixels and its orientation (EXIF) turns them, "
            f"so give a mask without orientation of {needed}."
        )
    return f"{text}; give a mask of the image's size, {needed}."


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
