"""What a picture file says about itself, read from its first bytes without a decoder.

Pillow opens a file before it can be asked for its size, warns (rather than fails) on some damage, and accepts far more
formats than careedit does. Reading the header here lets `decode` refuse a file before any decoder has seen it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

ACCEPTED = ("PNG", "JPEG", "WebP")
"""Formats that are decoded."""

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
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


class DamagedHeaderError(Exception):
    """The header of an accepted format is cut off or inconsistent; never leaves `careedit.images`."""


@dataclass(frozen=True)
class Header:
    """Size and frame count that a file claims."""

    size: tuple[int, int]
    """Width and height in pixels, before EXIF rotation."""
    animated: bool
    """Whether the file holds more than one frame."""


def sniff(data: bytes) -> str | None:
    """Name of the format that `data` starts like ("PNG", "TIFF", "PDF", ...), or None if it is like none we know."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "MP4")
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "SVG"
    return "HTML" if start.startswith((b"<!doctype html", b"<html")) else None


def read_header(data: bytes, kind: str) -> Header:
    """Size and frame count of a file of an accepted format; raises `DamagedHeaderError`."""
    try:
        return {"PNG": _png, "JPEG": _jpeg, "WebP": _webp}[kind](data)
    except (struct.error, IndexError) as error:
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


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise DamagedHeaderError("no IHDR")
    if data.rfind(b"IEND") < 0:
        raise DamagedHeaderError("no IEND")
    width, height = struct.unpack_from(">II", data, 16)
    position, frames = 8, 1
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"acTL":
            (frames,) = struct.unpack_from(">I", data, position + 8)
            if frames == 0 or length != 8:
                raise DamagedHeaderError("bad acTL")
        if name == b"IDAT":
            break
        position += 12 + length
    return Header((width, height), animated=frames > 1)


def _jpeg(data: bytes) -> Header:
    position = 2
    while True:
        while data[position] != 0xFF:
            position += 1
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return Header((width, height), animated=False)
        if marker == 0xDA or marker == 0xD9:
            raise DamagedHeaderError("no frame header")
        if marker != 0x01 and not 0xD0 <= marker <= 0xD8:
            (length,) = struct.unpack_from(">H", data, position)
            position += length


def _webp(data: bytes) -> Header:
    chunk = data[12:16]
    if chunk == b"VP8X":
        (flags,) = struct.unpack_from("<B", data, 20)
        width, high, height, top = struct.unpack_from("<HBHB", data, 24)
        return Header(
            (1 + width + (high << 16), 1 + height + (top << 16)),
            animated=bool(flags & 0x02),
        )
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), animated=False)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header((width & 0x3FFF, height & 0x3FFF), animated=False)
    raise DamagedHeaderError("no picture chunk")
