"""The chunks of a PNG file: their count and checksums, and the file without what careedit does not use.

Pillow checks no checksum of image data, refuses a file for a damaged comment, and unpacks texts that careedit does not use.
Chunks: PNG specification, third edition, section 5.
"""

from __future__ import annotations

import struct
import zlib

from careedit.images.reading import DamagedHeaderError, Header, RefusedHeaderError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 12_000
"""Maximum number of chunks in a file: 32 MiB in chunks of 4 KiB, with room for metadata."""

_USED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf"})
_XMP = b"XML:com.adobe.xmp\0"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 2**20
_PORTION = 2**16
_SPARE = 2**16


def read_header(data: bytes) -> Header:
    """Size and frame count. Raises `DamagedHeaderError`, and `RefusedHeaderError` for a file of too many chunks."""
    frames = 1
    for name, start, end in _chunks(data):
        if name == b"acTL":
            (frames,) = struct.unpack_from(">I", data, start)
            if frames == 0 or end - start != 8:
                raise DamagedHeaderError("bad acTL")
        if name == b"IDAT":
            break
    width, height = struct.unpack_from(">II", data, 16)
    return Header((width, height), frames)


def checked(data: bytes) -> bytes:
    """The file as its decoder gets it: checksums of what is used are right, what is not used is left out.

    A chunk that a decoder may ignore is left out where its checksum is wrong. Raises `DamagedHeaderError` for a wrong
    checksum of any other chunk, and of the unpacked image data.
    """
    chunks = used_chunks(data)
    _check_pixels(data, [whole[8:-4] for name, whole in chunks if name == b"IDAT"])
    return b"".join((SIGNATURE, *(whole for _, whole in chunks)))


def used_chunks(data: bytes) -> list[tuple[bytes, memoryview]]:
    """Name and whole content of the chunks of `checked`. Raises `DamagedHeaderError` for a wrong checksum of a chunk."""
    view, found = memoryview(data), []
    for name, start, end in _chunks(data):
        optional = bool(name[0] & 0x20)
        used = name in _USED or (name == b"iTXt" and data.startswith(_XMP, start))
        if optional and not used:
            continue
        (stated,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(view[start - 4 : end]) != stated:
            if optional:
                continue
            raise DamagedHeaderError(f"{name!r} has a wrong checksum")
        if not used:
            raise DamagedHeaderError(f"{name!r} is not known")
        found.append((name, view[start - 8 : end + 4]))
    if found[-1][0] != b"IEND":
        raise DamagedHeaderError("no IEND")
    return found


def chunk(name: bytes, content: bytes) -> bytes:
    """A whole chunk, with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Name, start and end of each chunk's content, up to IEND."""
    if data[12:16] != b"IHDR":
        raise DamagedHeaderError("no IHDR")
    found = []
    position, whole = 8, struct.Struct(">I4s")
    while True:
        length, name = whole.unpack_from(data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise DamagedHeaderError("cut off")
        found.append((name, position + 8, end))
        if name == b"IEND":
            return found
        if len(found) > MAX_CHUNKS:
            raise RefusedHeaderError(f"has more than {MAX_CHUNKS:,} PNG chunks; save it again")
        position = end + 4


def _check_pixels(data: bytes, pixels: list[memoryview]) -> None:
    """Unpack the image data once, for the checksum at its end, which Pillow never reads."""
    limit = _unpacked(data) + _SPARE
    stream, seen = zlib.decompressobj(), 0
    # Small portions, because zlib copies the unused rest of each.
    portions = (part[i : i + _PORTION] for part in pixels for i in range(0, len(part), _PORTION))
    for portion in (*portions, b""):
        rest = bytes(portion)
        while not stream.eof:
            got = len(stream.decompress(rest, _PIECE))
            rest = stream.unconsumed_tail
            seen += got
            if seen > limit:
                raise DamagedHeaderError("more image data than pixels")
            if not rest and got < _PIECE:
                break
    if not stream.eof or seen < _unpacked(data):
        raise DamagedHeaderError("image data is cut off")


def _unpacked(data: bytes) -> int:
    """Bytes of the image data before compression: a filter byte and the packed pixels per row and pass."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS.get(colour, 4)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total
