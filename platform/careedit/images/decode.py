"""Decoding: every input becomes 8-bit sRGB or a two-valued mask, or is refused with one sentence."""

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

from PIL import AvifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from careedit.errors import ImageError, MaskError
from careedit.images import jpeg, png
from careedit.images.colour import MARKS, is_transparent, mark, split_alpha, to_rgb, upright
from careedit.images.headers import read_header, sniff
from careedit.images.reading import DEFAULT_LIMITS, DamagedHeaderError, Header, Limits, RefusedHeaderError

_THRESHOLD = 128
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_SEVERAL = ("MPO", "HEIF")  # several pictures, of which the first or the primary one counts; nothing moves
Size = tuple[int, int]


def decode_image(source: Any, *, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a picture to "RGB": 8-bit sRGB, upright, white behind transparency, without metadata.

    `source` is a path (`str` or `os.PathLike`), the bytes of a PNG, JPEG, WebP, HEIC or AVIF file, or a PIL image of any
    mode; a decoded RGB picture comes back unchanged. `limits` is checked on the header, before pixels are decoded. Changes
    that a user should know are marked: see `careedit.images.colour`. Raises `ImageError`.
    """
    name = _name(source, "image")
    if type(source) is Image.Image and source.mode == "RGB" and set(source.info) <= MARKS:
        limits.check_size(*source.size, name)
        return source
    picture, stored = _open(source, name, limits)
    return to_rgb(picture, name, stored)


def decode_mask(source: Any, *, white_is_edit: bool = True, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a mask to "L" with the two values 255 = edit and 0 = keep.

    A mask with a pixel that is not fully opaque follows OpenAI's rule: transparent (alpha under 128) = edit. Any other
    mask is read by brightness, white (128 and over) = edit, or, with `white_is_edit=False`, refused by `MaskError`.
    Inputs and `ImageError` as in `decode_image`; its own output comes back unchanged.
    """
    name = _name(source, "mask")
    image, stored = _open(source, name, limits)
    colours, alpha = split_alpha(image, name)
    if alpha is not None and is_transparent(alpha):
        marked = alpha.point(lambda value: 255 if value < _THRESHOLD else 0)
    elif white_is_edit:
        marked = colours.convert("RGB").convert("L").point(lambda value: 255 if value >= _THRESHOLD else 0)
    else:
        raise MaskError(f"{name} has no transparent pixel; make the region to change transparent (alpha 0).")
    return mark(upright(marked, image), image, stored)


def inspect_picture(data: bytes, noun: str = "image", *, limits: Limits = DEFAULT_LIMITS) -> tuple[str, Size]:
    """Format ("PNG") and size (width, height) that a file's header states; `noun` is what an error calls it.

    Decodes nothing, and refuses what `decode_image` refuses by the header: other formats, animations, what costs too much,
    what is over a limit. Raises `ImageError`.
    """
    name = f"The {noun}"
    limits.check_bytes(len(data), name)
    kind, header = _header(data, name, limits)
    return kind, header.size


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


def _open(source: Any, name: str, limits: Limits) -> tuple[Image.Image, Size]:
    """The picture with all its pixels decoded, in its own mode, and its size as stored."""
    if isinstance(source, Image.Image):
        limits.check_size(*source.size, name)
        return _load(source, name), source.size
    if isinstance(source, str | os.PathLike):
        data = _read(Path(os.fsdecode(os.fspath(source))), name, limits)
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        limits.check_bytes(len(data), name)
    else:
        raise ImageError(f"{name} is a {type(source).__name__}; give a path, the bytes of a file, or a PIL image.")
    kind, header = _header(data, name, limits)
    try:
        picture = _READERS[kind](data)
        limits.check_size(*picture.size, name)
        if picture.width * picture.height > header.size[0] * header.size[1]:  # memory was counted by the header
            raise DamagedHeaderError("more pixels than the header states")
        picture.load()
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory; make it smaller.") from None
    except (*_DAMAGE, DamagedHeaderError):
        raise _damaged(name, kind) from None
    turned = kind == "HEIC" and header.turned  # Pillow leaves the turn of an AVIF file to its reader, libheif makes it
    return picture, picture.size[::-1] if turned else picture.size


def _header(data: bytes, name: str, limits: Limits) -> tuple[str, Header]:
    """Format and header of a file that may be decoded. Raises `ImageError`."""
    kind = sniff(data)
    if kind is None or kind not in _READERS:
        what = "not a picture that is recognised" if kind is None else f"{_article(kind)} {kind} file"
        raise ImageError(f"{name} is {what}; give PNG, JPEG or WebP (HEIC and AVIF are read too).")
    try:
        header = read_header(data, kind)
    except DamagedHeaderError:
        raise _damaged(name, kind) from None
    except RefusedHeaderError as error:
        raise ImageError(f"{name} {error}.") from None
    limits.check_size(*header.size, name)
    if header.frames > 1:
        raise ImageError(f"{name} is animated ({header.frames} frames); give a still picture.")
    return kind, header


# The classes themselves rather than `Image.open`: no guessing among formats, no process-wide bomb warning, and a
# multi-picture JPEG (phones write them) is read as the ordinary JPEG that it starts with.
def _read_heif(data: bytes) -> Image.Image:
    picture: Image.Image
    if sniff(data) == "AVIF":
        picture = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    else:
        from pi_heif import HeifImageFile  # here: few pictures need it

        picture = HeifImageFile(io.BytesIO(data))
    picture.load()
    # Only the file's own boxes turn these formats (23008-12, 6.5.10), and the readers have put that into the EXIF block.
    picture.info.pop("xmp", None)
    return picture


_READERS: dict[str, Callable[[bytes], Image.Image]] = {
    "PNG": lambda data: PngImagePlugin.PngImageFile(io.BytesIO(png.checked(data))),
    "JPEG": lambda data: jpeg.open_whole(data, lambda whole: JpegImagePlugin.JpegImageFile(io.BytesIO(whole))),
    "WebP": lambda data: WebPImagePlugin.WebPImageFile(io.BytesIO(data)),
    "HEIC": _read_heif,
    "AVIF": _read_heif,
}


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


def _load(picture: Image.Image, name: str) -> Image.Image:
    """A PIL image that may have been opened and not yet read."""
    try:
        frames = 1 if picture.format in _SEVERAL else getattr(picture, "n_frames", 1)
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
