"""What a picture file says about itself, read from its first bytes without a decoder.

Pillow opens a file before it can be asked for its size, warns (rather than fails) on some damage, and accepts far more
formats than careedit does. Reading the header here lets `decode` refuse a file before any decoder has seen it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from careedit.images import heif, jpeg, png
from careedit.images.reading import DamagedHeaderError, Header, RefusedHeaderError

ACCEPTED = ("PNG", "JPEG", "WebP", "HEIC", "AVIF")
"""Formats that are decoded."""
MAX_WEBP_CHUNKS = 2000
"""Chunks of a WebP file; a still picture has at most seven."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"PK\x03\x04", "ZIP"),
)
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def sniff(data: bytes) -> str | None:
    """Name of the format that `data` starts like ("PNG", "TIFF", "PDF", ...), or None if it is like none we know."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return heif.kind_of(data)
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "SVG"
    return "HTML" if start.startswith((b"<!doctype html", b"<html")) else None


def read_header(data: bytes, kind: str) -> Header:
    """Size and frame count of a file of an accepted format; raises `DamagedHeaderError` and `RefusedHeaderError`."""
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError, ValueError) as error:
        raise DamagedHeaderError(str(error)) from None


def orientation(exif: bytes | None, xmp: bytes | str | None = None) -> int:
    """EXIF orientation 1 to 8 (1 = upright), from an EXIF block or else from XMP; damaged metadata counts as upright."""
    try:
        value = _exif_orientation(exif or b"")
    except struct.error:
        value = 1
    if value == 1 and xmp:
        found = _XMP_ORIENTATION.search(xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp)
        value = int(found[1]) if found else 1
    return value


def _exif_orientation(exif: bytes) -> int:
    block = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    (offset,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, offset)
    for index in range(count):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", block, offset + 2 + 12 * index)
        if tag == 0x0112:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1


def _webp(data: bytes) -> Header:
    frames, size, position, chunks = 0, None, 12, 0
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        start = position + 8
        chunks += 1
        if chunks > MAX_WEBP_CHUNKS:
            raise RefusedHeaderError(f"has more than {MAX_WEBP_CHUNKS:,} WebP chunks; save it again")
        if name == b"ANMF":
            frames += 1
        elif size is None:
            size = _webp_size(data, name, start)
        position = start + length + length % 2
    if size is None:
        raise DamagedHeaderError("no picture chunk")
    return Header(size, max(1, frames))


def _webp_size(data: bytes, name: bytes, start: int) -> tuple[int, int] | None:
    if name == b"VP8X":
        width, high, height, top = struct.unpack_from("<HBHB", data, start + 4)
        return 1 + width + (high << 16), 1 + height + (top << 16)
    if name == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, start + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, start + 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


_READERS: dict[str, Callable[[bytes], Header]] = {
    "PNG": png.read_header,
    "JPEG": jpeg.read_header,
    "WebP": _webp,
    "HEIC": heif.read_header,
    "AVIF": heif.read_header,
}
