"""Writing a picture so that the file is either whole or not there."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.errors import InputError
from careedit.files import write_atomic
from careedit.provenance import xmp_options

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
SUFFIXES = tuple(_FORMATS)
"""The endings of the names of files that `save_image` writes."""


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write `image` to `path`: .png and .webp losslessly, .jpg and .jpeg at quality 95; metadata is not written.

    The file is written under a temporary name in the same folder and renamed. Raises `InputError` if the suffix names
    no format, the folder does not exist, or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise InputError(f"The output {str(target)!r} has no suffix that names a format; use .png, .jpg or .webp.")
    kind, options = _FORMATS[target.suffix.lower()]
    if not target.parent.is_dir():
        raise InputError(f"The folder {str(target.parent)!r} of the output does not exist; create it first.")
    if target.is_dir():
        raise InputError(f"The output {str(target)!r} is a folder; give a file name.")
    try:
        write_atomic(target, _encode(image, kind, options), sync=False)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"The output {str(target)!r} cannot be written ({reason}); choose another place.") from None


def image_bytes(image: Image.Image, suffix: str, *, marked: bool = False) -> bytes:
    """What `save_image` writes to a file with this suffix; `marked`: with the XMP mark of a trained model."""
    kind, options = _FORMATS[suffix.lower()]
    return _encode(image, kind, {**options, **(xmp_options(kind) if marked else {})})


def _encode(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    pixels = image if image.mode in ("L", "RGB") else image.convert("RGB")
    if pixels.info:
        pixels = pixels.copy()
        pixels.info = {}
    buffer = io.BytesIO()
    pixels.save(buffer, kind, **options)
    return buffer.getvalue()
