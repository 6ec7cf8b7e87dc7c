"""A picture's file without metadata: no place, time, device, author, comment or thumbnail, and the same pixels.

What the decoder uses stays as it is, byte by byte: compressed pixels, colour profile, transparency. Of EXIF and XMP only the
orientation stays.
"""

from __future__ import annotations

import struct

from careedit.images import jpeg, png
from careedit.images.headers import orientation, sniff

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP = b"XML:com.adobe.xmp\0"
_JFIF = 16
"""Length of a JFIF segment up to its thumbnail, without the marker."""
_HAS_XMP, _HAS_EXIF = 0x04, 0x08
"""Bits of a WebP file's flags."""

_WEBP = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF"})
"""Chunks of a WebP file that the decoder uses."""


def without_metadata(data: bytes) -> bytes | None:
    """The file without metadata, or None for a format from which it cannot be removed (HEIC and AVIF).

    `careedit.images.decode_image` and `decode_mask` make the same picture of both files. `data` must be a file that they accept.
    """
    strip = {"JPEG": _plain_jpeg, "PNG": _plain_png, "WebP": _plain_webp}.get(sniff(data) or "")
    return None if strip is None else strip(data)


def _only_orientation(exif: bytes | None, xmp: bytes | None) -> bytes:
    """An EXIF block with nothing but the orientation; empty for an upright picture."""
    turn = orientation(exif, xmp)
    if turn == 1:
        return b""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, turn, 0, 0)


def _plain_jpeg(data: bytes) -> bytes:
    kept: list[bytes] = []
    found: dict[bytes, bytes] = {}
    for part in jpeg.parts_of(data):
        marker, body = part[1], part[4:]
        if marker == 0xE1:
            name = _EXIF if body.startswith(_EXIF) else _XMP
            found.setdefault(name, body.removeprefix(_XMP))
        elif marker == 0xE0:
            if body.startswith(b"JFIF\0") and len(part) >= 2 + _JFIF:
                kept.append(struct.pack(">HH", 0xFFE0, _JFIF) + body[: _JFIF - 4] + b"\0\0")
        elif marker != 0xEE or body.startswith(b"Adobe"):
            kept.append(part)
    exif = _only_orientation(found.get(_EXIF), found.get(_XMP))
    block = struct.pack(">HH", 0xFFE1, 2 + len(_EXIF + exif)) + _EXIF + exif if exif else b""
    return b"".join((kept[0], block, *kept[1:]))


def _plain_png(data: bytes) -> bytes | None:
    chunks = png.used_chunks(data)
    exif = [bytes(chunk[8:-4]) for name, chunk in chunks if name == b"eXIf"]
    xmp = [bytes(chunk[8 + len(_PNG_XMP) : -4]) for name, chunk in chunks if name == b"iTXt"]
    if len(exif) > 1 or len(xmp) > 1 or any(text[:1] != b"\0" for text in xmp):  # several, or a compressed one
        return None
    block = _only_orientation(*(one[0] if one else None for one in (exif, xmp)))
    kept = [bytes(chunk) for name, chunk in chunks if name not in (b"eXIf", b"iTXt")]
    return b"".join((png.SIGNATURE, kept[0], png.chunk(b"eXIf", block) if block else b"", *kept[1:]))


def _plain_webp(data: bytes) -> bytes | None:
    (length,) = struct.unpack_from("<I", data, 4)
    end, position = min(len(data), 8 + length), 12
    chunks: list[tuple[bytes, bytes]] = []
    while position + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, position)
        chunks.append((name, data[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
    names = [name for name, _ in chunks]
    found = dict(chunks)
    block = b""
    if names[0] == b"VP8X":
        flags = found[b"VP8X"][0]
        if names.count(b"EXIF") > 1 or names.count(b"XMP ") > 1:
            return None
        exif, xmp = (
            found.get(name) if flags & bit else None for name, bit in ((b"EXIF", _HAS_EXIF), (b"XMP ", _HAS_XMP))
        )
        block = _only_orientation(exif, xmp)
        flags = flags & ~(_HAS_EXIF | _HAS_XMP) | (_HAS_EXIF if block else 0)
        chunks[0] = (b"VP8X", bytes((flags,)) + found[b"VP8X"][1:])
    kept = [(name, body) for name, body in chunks if name in _WEBP]
    if block:
        kept.append((b"EXIF", block))
    body = b"".join(struct.pack("<4sI", name, len(one)) + one + b"\0" * (len(one) % 2) for name, one in kept)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
