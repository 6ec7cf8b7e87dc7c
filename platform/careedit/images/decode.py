"""Pictures in and out: every input becomes 8-bit sRGB or a two-valued mask, or is refused by one sentence."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from careedit.errors import ImageError, MaskError
from careedit.images.colour import split_alpha, to_rgb, upright
from careedit.images.headers import ACCEPTED, DamagedHeaderError, read_header, sniff
from careedit.images.limits import DEFAULT_LIMITS, Limits

_THRESHOLD = 128
# The classes themselves rather than `Image.open`: no guessing among formats, no process-wide bomb warning, and a
# multi-picture JPEG (phones write them) is read as the ordinary JPEG that it starts with.
_READERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    struct.error,
    zlib.error,
)


def decode_image(source: Any, *, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a picture to "RGB": 8-bit sRGB, upright, alpha over white, without metadata.

    `source` is a path (`str` or `os.PathLike`), the bytes of a PNG, JPEG or WebP file, or a PIL image of any mode; a
    decoded RGB picture comes back as it is. `limits` is checked on the header, before pixels are decoded. Raises
    `ImageError`.
    """
    name = _name(source, "image")
    if type(source) is Image.Image and source.mode == "RGB" and not source.info:
        limits.check_size(*source.size, name)
        return source
    return to_rgb(_open(source, name, limits), name)


def decode_mask(source: Any, *, white_is_edit: bool = True, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a mask to "L" with the two values 255 = edit and 0 = keep.

    A mask with a pixel that is not fully opaque follows OpenAI's rule: transparent (alpha under 128) = edit. Any other
    mask is read by brightness, white (128 and over) = edit, or, with `white_is_edit=False`, refused by `MaskError`.
    Inputs and `ImageError` as in `decode_image`; its own output comes back as it is.
    """
    name = _name(source, "mask")
    image = _open(source, name, limits)
    colours, alpha = split_alpha(image, name)
    if alpha is not None and alpha.getextrema()[0] < 255:  # type: ignore[operator]
        marked = alpha.point(lambda value: 255 if value < _THRESHOLD else 0)
    elif white_is_edit:
        marked = colours.convert("RGB").convert("L").point(lambda value: 255 if value >= _THRESHOLD else 0)
    else:
        raise MaskError(f"{name} has no transparent pixel; make the region to change transparent (alpha 0).")
    return upright(marked, image)


def image_sha256(image: Image.Image) -> str:
    """Hex SHA-256 of mode, size and pixels: equal for equal pictures, whatever file they came from."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _name(source: Any, noun: str) -> str:
    if not isinstance(source, str | os.PathLike):
        return f"The {noun}"
    text = os.fsdecode(os.fspath(source))
    return f"The {noun} {text if len(text) <= 120 else text[:117] + '...'!r}"


def _open(source: Any, name: str, limits: Limits) -> Image.Image:
    """The picture with all its pixels decoded, in its own mode."""
    if isinstance(source, Image.Image):
        limits.check_size(*source.size, name)
        return _load(source, source.format != "MPO", name)
    if isinstance(source, str | os.PathLike):
        data = _read(Path(os.fsdecode(os.fspath(source))), name, limits)
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        limits.check_bytes(len(data), name)
    else:
        raise ImageError(f"{name} is a {type(source).__name__}; give a path, the bytes of a file, or a PIL image.")
    kind = sniff(data)
    if kind not in _READERS:
        what = "not a picture that is recognised" if kind is None else f"{_article(kind)} {kind} file"
        raise ImageError(f"{name} is {what}; give {ACCEPTED[0]}, {ACCEPTED[1]} or {ACCEPTED[2]}.")
    try:
        header = read_header(data, kind)
        limits.check_size(*header.size, name)
        picture = _READERS[kind](io.BytesIO(data))
        limits.check_size(*picture.size, name)
    except (*_DAMAGE, DamagedHeaderError):
        raise _damaged(name, kind) from None
    return _load(picture, header.animated, name)


def _read(path: Path, name: str, limits: Limits) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name} is a folder; give a picture file.")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{name} is not an ordinary file; give a picture file.")
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist; check the path.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{name} cannot be read ({reason}); check the path.") from None
    limits.check_bytes(len(data), name)
    return data


def _load(picture: Image.Image, may_be_animated: bool, name: str) -> Image.Image:
    try:
        frames = getattr(picture, "n_frames", 1) if may_be_animated else 1
        if frames == 1:
            picture.load()
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory; make it smaller.") from None
    except _DAMAGE:
        raise _damaged(name, picture.format or "picture") from None
    if frames > 1:
        raise ImageError(f"{name} is animated ({frames} frames); give a still picture.")
    return picture


def _damaged(name: str, kind: str) -> ImageError:
    return ImageError(f"{name} is damaged or cut off: its {kind} data cannot be decoded; save or download it again.")


def _article(noun: str) -> str:
    return "an" if noun in ("AVIF", "HTML", "ICO", "MP4", "OpenEXR", "SVG") else "a"
