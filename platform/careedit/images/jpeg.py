"""What a JPEG file holds between its markers, and whether all of its scan data is there.

Pillow decodes a JPEG without a limit of scans, walks its segments in Python, refuses a file whose end marker is missing,
and silently paints data that is missing before an end marker grey. The walk here costs one pass of `re` over the file.
Markers and segments: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops

from careedit.images.reading import DamagedHeaderError, Header, RefusedHeaderError

MAX_SCANS = 100
"""Maximum number of scans in any file."""
USUAL_SCANS = 24
"""Number of scans that a picture of any size may have; encoders write about 10, optimisers up to 20."""
MAX_SCANNED = 2**27
"""Maximum of scans times pixels for a file with more scans than that: each scan visits every coefficient."""
MAX_SEGMENTS = 2000
"""Maximum number of segments and lone markers; a profile or preview in pieces of 64 KiB has a few hundred."""
MAX_TABLES = 2 + 4 * 129
"""Maximum length of a segment of quantisation tables: four of 64 16-bit values. Pillow reads them in Python."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_DECODED = (0xC0, 0xC1, 0xC2, 0xC3)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_KNOWN = frozenset({*range(0xC0, 0xC8), *range(0xC9, 0xDE), *range(0xE0, 0xF0), 0xFE, 0x01})
# Pillow reads no other metadata that careedit uses, and is slow with some of it (Photoshop's blocks).
_KEPT = (
    (0xE0, b""),
    (0xE1, b"Exif\0"),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
    (0xE2, b"ICC_PROFILE\0"),
    (0xEE, b""),
)
# Bits that no encoder would write next: the first bit is set, whereas the decoder pads with zeros.
_FILL = bytes((37 * i * i + 11 * i + 0xB5) % 255 for i in range(96))
_GREY = (127, 128)


@dataclass(frozen=True)
class _Walk:
    """The structure of a file up to its end marker, or to where that should be."""

    size: tuple[int, int]
    parts: list[tuple[int, int]]
    """Ranges of the file that the decoder needs, in order."""
    ended: bool
    """Whether an end marker follows them."""
    progressive: bool
    """Whether each scan refines the whole picture, so that a missing end has no visible place."""
    whole: bool
    """Whether the scans so far bring every coefficient of every component to its full precision."""
    restarts: bool
    """Whether scan data is cut into intervals."""
    last_scan: tuple[int, int]
    """Where the data of the last scan begins and ends."""


def read_header(data: bytes) -> Header:
    """Size of a JPEG. Raises `DamagedHeaderError`, and `RefusedHeaderError` for what costs too much to decode."""
    return Header(_walk(data).size)


def open_whole(data: bytes, reader: Callable[[bytes], Image.Image]) -> Image.Image:
    """The picture, decoded by `reader`; an absent end marker is added. Raises `DamagedHeaderError` if pixels are missing."""
    walk = _walk(data)
    head = b"".join(data[start:end] for start, end in walk.parts)

    def read(more: bytes) -> Image.Image:
        picture = reader(head + more + b"\xff\xd9")
        picture.load()
        return picture

    if not walk.whole:
        raise DamagedHeaderError("scans are missing")
    picture = read(b"")
    if not walk.ended or walk.progressive or _ends_grey(picture):
        # A complete picture does not depend on what follows it. What the decoder makes up for missing data does.
        head = head.rstrip(b"\xff")
        fills = [_FILL]
        if walk.restarts:  # behind a whole interval the decoder skips everything up to the next restart marker
            seen = sum(data.count(bytes((0xFF, 0xD0 + i)), *walk.last_scan) for i in range(8))
            fills.append(bytes((0xFF, 0xD0 + seen % 8)) + _FILL)
        for more in fills:
            if ImageChops.difference(picture, read(more)).getbbox() is not None:
                raise DamagedHeaderError("scan data is missing")
    return picture


def parts_of(data: bytes) -> list[bytes]:
    """The segments and scans that the decoder needs, in order, and the end marker if the file has one."""
    walk = _walk(data)
    parts = [data[start:end] for start, end in walk.parts]
    return [*parts, b"\xff\xd9"] if walk.ended else parts


def _ends_grey(picture: Image.Image) -> bool:
    """Whether the last pixel is the grey that the decoder paints where data is missing."""
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    return all(value in _GREY for value in (last if isinstance(last, tuple) else (last,)))


def _walk(data: bytes) -> _Walk:
    position = 2
    parts, described = [(0, 2)], set[bytes]()
    size: tuple[int, int] | None = None
    missing: dict[int, list[int]] = {}
    progressive, ended, restarts, scans, segments, last_scan = False, False, False, 0, 0, (0, 0)
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            break
        marker, start = data[found.end() - 1], found.start()
        position = found.end()
        if marker == 0xD9 or (scans and (marker == 0xD8 or marker not in _KNOWN)):
            ended = marker == 0xD9
            break
        segments += 1
        if segments > MAX_SEGMENTS:
            raise RefusedHeaderError(f"has more than {MAX_SEGMENTS:,} JPEG segments; save it again")
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + length]
        if length < 2 or len(body) < length - 2:
            if not scans:
                raise DamagedHeaderError("a segment is cut off")
            break  # bytes behind the picture that look like a marker, or missing bytes
        position += length
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            name = next((name for at, name in _KEPT if at == marker and body.startswith(name)), None)
            if name is None or (
                marker == 0xE1 and name in described
            ):  # Pillow joins blocks of EXIF, each time copying all
                continue
            described.add(name)
        elif marker == 0xDB and length > MAX_TABLES:
            raise DamagedHeaderError("more quantisation tables than there can be")
        elif marker == 0xDD:
            restarts = any(body)
        elif marker in _FRAMES:
            if marker not in _DECODED:
                kind = "arithmetic coding" if marker in (0xC9, 0xCA, 0xCB) else "hierarchical or differential coding"
                raise RefusedHeaderError(f"is a JPEG with {kind}, which is not read here; save it as an ordinary JPEG")
            precision, height, width, count = struct.unpack_from(">BHHB", body)
            if precision != 8 and marker != 0xC3:
                raise RefusedHeaderError(f"is a JPEG of {precision} bits per channel; save it with 8 bits")
            size, progressive = (width, height), marker == 0xC2
            missing = {body[6 + 3 * i]: [14] * 64 for i in range(count)}
        elif marker == 0xDA:
            if size is None:
                raise DamagedHeaderError("no frame header")
            scans += 1
            _check_scans(scans, size)
            _note_scan(body, missing, progressive)
            after = _AFTER_SCAN.search(data, position)
            stop = len(data) if after is None else after.start()
            last_scan, position = (position, stop), stop
        parts.append((start, position))  # without what fills the space between segments: Pillow reads it byte by byte
    if size is None or not scans:
        raise DamagedHeaderError("no scan")
    whole = all(not any(levels) for levels in missing.values())
    return _Walk(size, parts, ended, progressive, whole, restarts, last_scan)


def _check_scans(scans: int, size: tuple[int, int]) -> None:
    pixels = size[0] * size[1]
    if scans > MAX_SCANS or (scans > USUAL_SCANS and scans * pixels > MAX_SCANNED):
        allowed = max(USUAL_SCANS, min(MAX_SCANS, MAX_SCANNED // max(1, pixels)))
        raise RefusedHeaderError(
            f"is a JPEG of more than {allowed} scans; at its size it may have {allowed}, so save it again as an ordinary JPEG"
        )


def _note_scan(body: bytes, missing: dict[int, list[int]], progressive: bool) -> None:
    """Note in `missing`, per component and coefficient, how many low bits are still missing."""
    components = [body[1 + 2 * i] for i in range(body[0])]
    first, last, precision = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    if not progressive:
        first, last, precision = 0, 63, 0
    for component in components:
        levels = missing.get(component)
        if levels is None:
            raise DamagedHeaderError("a scan of no component")
        levels[first : last + 1] = [precision & 15] * (min(last, 63) + 1 - first)
