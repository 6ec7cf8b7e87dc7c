"""The boxes of HEIC and AVIF files: which of the two it is, its size, its tiles, and whether it is a sequence.

ISO/IEC 14496-12 (boxes, brands) and 23008-12 (items, properties). No decoder is involved: libheif and libavif are the largest
libraries that read foreign bytes here, so a server runs them in a separate process and needs the size before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from careedit.images.reading import DamagedHeaderError, Header, RefusedHeaderError

MAX_BOXES = 20_000
"""Maximum number of boxes and of links between them that are read; a phone's picture has about 300."""
SPARE_PIXELS = 2**22
"""Pixels that tiles may have in addition to four times the picture's own: edge tiles of a grid cross its border."""

_AVIF = (b"avif", b"avis", b"avio")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_HEIF = (b"mif1", b"mif2", b"msf1", b"miaf", b"1pic")
_SEQUENCES = (b"avis", b"hevc", b"hevx", b"hevm", b"hevs", b"msf1")

_Box = tuple[bytes, int, int]


def kind_of(data: bytes) -> str:
    """ "AVIF", "HEIC", "HEIF" (of another codec) or "MP4", for a file that starts with a `ftyp` box."""
    (length,) = struct.unpack_from(">I", data)
    listed = data[16 : min(max(length, 16), 1024)]
    brands = [data[8:12], *(listed[i : i + 4] for i in range(0, len(listed) - 3, 4))]
    if brands[0] not in (*_AVIF, *_HEIC, *_HEIF) and not any(brand in _HEIF for brand in brands):
        return "MP4"
    # A general brand first means that the codec's own is among the others.
    for brand in brands:
        if brand in _AVIF:
            return "AVIF"
        if brand in _HEIC:
            return "HEIC"
    return "HEIF"


def read_header(data: bytes) -> Header:
    """Size before any turn, and frames of a sequence. Raises `DamagedHeaderError`, `RefusedHeaderError` for needless tiles."""
    budget = _Budget()
    meta: _Box | None = None
    try:
        for box in _boxes(data, 0, len(data), budget):
            if box[0] == b"moov" and data[8:12] in _SEQUENCES and (frames := _frames(data, box)) > 1:
                return Header((1, 1), frames)
            if box[0] == b"meta" and meta is None:
                meta = box
    except DamagedHeaderError:
        if meta is None:
            raise
        # Phones append other data (a film, its index). The decoder checks whether the pixels are complete.
    if meta is None:
        raise DamagedHeaderError("no picture")
    items = _items(data, meta, budget)
    size = items.size(items.primary) if kind_of(data) == "AVIF" else items.shown(items.primary)  # libavif does not crop
    if size is None:
        raise DamagedHeaderError("no size")
    own, coded = size[0] * size[1], items.coded(items.primary)
    if coded > 4 * own + SPARE_PIXELS:
        raise RefusedHeaderError(
            f"is {size[0]}x{size[1]} but made of tiles of {coded:,} pixels together; save it again"
        )
    turn = items.find(items.primary, b"irot")
    return Header(size, turned=turn is not None and bool(data[turn] & 1))


@dataclass
class _Budget:
    left: int = MAX_BOXES

    def take(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise RefusedHeaderError(f"has more than {MAX_BOXES:,} boxes and links; save it again")


@dataclass
class _Items:
    """The items of a `meta` box and their properties."""

    data: bytes
    """The bytes of the whole file."""
    primary: int = 0
    """Id of the item that is shown."""
    properties: list[tuple[bytes, int]] = field(default_factory=list)
    """Name of each property in order, with the offset of its content in `data`."""
    links: dict[int, list[int]] = field(default_factory=dict)
    """Per item id, the numbers of its properties, counted from 1."""
    parts: dict[int, list[int]] = field(default_factory=dict)
    """Per item id, the items that it is composed of."""
    helpers: dict[int, list[int]] = field(default_factory=dict)
    """Per item id, the auxiliary items (alpha, depth) that belong to it."""

    def find(self, item: int, kind: bytes) -> int | None:
        """Where the content of an item's property begins."""
        known = (self.properties[i - 1] for i in self.links.get(item, ()) if 0 < i <= len(self.properties))
        return next((start for name, start in known if name == kind), None)

    def size(self, item: int) -> tuple[int, int] | None:
        """Coded width and height."""
        at = self.find(item, b"ispe")
        return None if at is None else struct.unpack_from(">II", self.data, at + 4)

    def shown(self, item: int) -> tuple[int, int] | None:
        """Width and height after cropping (encoders pad to whole blocks and crop that away), before any turn."""
        size, at = self.size(item), self.find(item, b"clap")
        if size is None or at is None:
            return size
        across, across_of, down, down_of = struct.unpack_from(">4I", self.data, at)
        if not across_of or not down_of:
            raise DamagedHeaderError("a crop of no size")
        return min(size[0], across // across_of), min(size[1], down // down_of)

    def coded(self, item: int) -> int:
        """Pixels that are decoded for `item`, those of its helpers included."""
        whole = [item, *self.helpers.get(item, ())]
        pieces = [piece for one in whole for piece in self.parts.get(one, (one,))]
        return sum(width * height for width, height in (self.size(piece) or (0, 0) for piece in pieces))


def _items(data: bytes, meta: _Box, budget: _Budget) -> _Items:
    found = _Items(data)
    for name, start, end in _boxes(data, meta[1] + 4, meta[2], budget):
        version = data[start]
        if name == b"pitm":
            (found.primary,) = struct.unpack_from(">I" if version else ">H", data, start + 4)
        elif name == b"iref":
            _read_links(data, start, end, found, budget)
        elif name == b"iprp":
            for inner in _boxes(data, start, end, budget):
                if inner[0] == b"ipco":
                    found.properties += [(kind, at) for kind, at, _ in _boxes(data, inner[1], inner[2], budget)]
                elif inner[0] == b"ipma":
                    _read_properties(data, inner[1], found, budget)
    return found


def _read_links(data: bytes, start: int, end: int, found: _Items, budget: _Budget) -> None:
    wide = 4 if data[start] else 2
    letter = "I" if data[start] else "H"
    for kind, at, _ in _boxes(data, start + 4, end, budget):
        origin, count = struct.unpack_from(f">{letter}H", data, at)
        budget.take(count)
        targets = struct.unpack_from(f">{count}{letter}", data, at + wide + 2)
        if kind == b"dimg":
            found.parts.setdefault(origin, []).extend(targets)
        elif kind == b"auxl":
            for target in targets:
                found.helpers.setdefault(target, []).append(origin)


def _read_properties(data: bytes, start: int, found: _Items, budget: _Budget) -> None:
    version, wide = data[start], data[start + 3] & 1
    (entries,) = struct.unpack_from(">I", data, start + 4)
    budget.take(entries)
    position = start + 8
    for _ in range(entries):
        item, count = struct.unpack_from(">IB" if version else ">HB", data, position)
        position += 5 if version else 3
        budget.take(count)
        values = struct.unpack_from(f">{count}{'H' if wide else 'B'}", data, position)
        position += count * (2 if wide else 1)
        found.links[item] = [value & (0x7FFF if wide else 0x7F) for value in values]


def _frames(data: bytes, moov: _Box) -> int:
    """Samples of a sequence's first track, 2 if the file does not state them."""
    at = data.find(b"stsz", moov[1], moov[2])
    return int(struct.unpack_from(">I", data, at + 12)[0]) if at >= 0 else 2


def _boxes(data: bytes, position: int, end: int, budget: _Budget) -> Iterator[_Box]:
    """Name, start and end of each box's content."""
    while position + 8 <= end:
        budget.take()
        length, name = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        elif length == 0:
            length = end - position
        if length < head:
            raise DamagedHeaderError("a box without length")
        if position + length > end and name != b"mdat":
            raise DamagedHeaderError("a box is cut off")
        yield name, position + head, min(position + length, end)
        position += length
