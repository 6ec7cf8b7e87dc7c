"""PNG files: checksums, the count of chunks, and chunks that are not used."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from careedit.errors import ImageError
from careedit.images import decode_image

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))


def encoded(image: Image.Image = NOISE, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


PNG = encoded()


def chunk(name: bytes, content: bytes = b"", *, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(name + content) ^ wrong
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def before_pixels(extra: bytes, data: bytes = PNG) -> bytes:
    at = data.index(b"IDAT") - 4
    return data[:at] + extra + data[at:]


def with_pixels(packed: bytes, data: bytes = PNG) -> bytes:
    return data[: data.index(b"IDAT") - 4] + chunk(b"IDAT", packed) + chunk(b"IEND")


def packed(data: bytes = PNG) -> bytes:
    at = data.index(b"IDAT")
    return data[at + 4 : at + 4 + struct.unpack_from(">I", data, at - 4)[0]]


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    return str(caught.value)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"IDAT", b"IEND"])
def test_a_wrong_checksum_of_what_makes_the_picture_is_refused(name):
    data = bytearray(encoded(NOISE.convert("P")))
    at = data.index(name)
    data[at + 4 + struct.unpack_from(">I", data, at - 4)[0]] ^= 1
    assert "its PNG data cannot be decoded" in refusal(bytes(data))


def test_a_wrong_checksum_of_the_unpacked_image_data_is_refused():
    content = packed()
    assert decode_image(with_pixels(content)) == NOISE
    assert "its PNG data cannot be decoded" in refusal(with_pixels(content[:-1] + bytes((content[-1] ^ 1,))))
    assert "its PNG data cannot be decoded" in refusal(with_pixels(content[:-3]))


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"gAMA", b"pHYs", b"iCCP", b"eXIf", b"prVt"])
def test_a_wrong_checksum_of_a_comment_is_accepted(name):
    content = b"XML:com.adobe.xmp\0\0\0\0\0<x/>" if name == b"iTXt" else b"Comment\0hello"
    assert decode_image(before_pixels(chunk(name, content, wrong=True))) == NOISE


def test_a_chunk_that_must_be_understood_and_is_not_known_is_refused():
    assert "its PNG data cannot be decoded" in refusal(before_pixels(chunk(b"NEWX")))


@pytest.mark.parametrize("rows", [1, 7])
def test_image_data_that_ends_before_the_last_row_is_refused(rows):
    raw = zlib.decompress(packed())
    assert "its PNG data cannot be decoded" in refusal(with_pixels(zlib.compress(raw[: -rows * 61])))


def test_a_second_header_cannot_make_the_picture_larger_than_the_first_one():
    def head(side: int) -> bytes:
        return chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))

    rest = chunk(b"IDAT", zlib.compress(b"\0" * 4097)) + chunk(b"IEND")  # one row of the second
    assert decode_image(PNG[:8] + head(1) + rest).size == (1, 1)
    assert "its PNG data cannot be decoded" in refusal(PNG[:8] + head(1) + head(4096) + rest)


def test_a_text_that_unpacks_to_a_lot_is_not_unpacked():
    bomb = zlib.compress(b"\0" * 20_000_000, 1)
    data = before_pixels(chunk(b"zTXt", b"a\0\0" + bomb) + chunk(b"iTXt", b"b\0\1\0\0\0" + bomb))
    started = time.process_time()
    assert decode_image(data) == NOISE
    assert time.process_time() - started < 0.1


def test_image_data_that_unpacks_to_more_than_the_pixels_is_refused():
    raw = zlib.decompress(packed())
    assert decode_image(with_pixels(zlib.compress(raw + b"\0" * 1000))) == NOISE
    bomb = zlib.compress(raw + b"\0" * 20_000_000, 1)
    started = time.process_time()
    assert "its PNG data cannot be decoded" in refusal(with_pixels(bomb))
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("name", [b"teSt", b"tEXt", b"IDAT"])
def test_more_than_a_million_empty_chunks_cost_no_time(name):
    data = before_pixels(chunk(name) * 1_200_000)
    started = time.process_time()
    text = refusal(data)
    assert time.process_time() - started < 0.2
    assert "has more than 12,000 PNG chunks" in text


def test_image_data_in_many_chunks_and_data_after_the_end_are_accepted():
    content = packed()
    pieces = b"".join(chunk(b"IDAT", content[i : i + 1]) for i in range(len(content)))
    head = PNG[: PNG.index(b"IDAT") - 4]
    assert decode_image(head + pieces + chunk(b"IEND") + b"and a zip file behind it") == NOISE


@pytest.mark.parametrize("colour", [0, 2, 6])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_every_depth_and_order_of_rows_passes_the_checks(colour, depth, interlaced):
    width, height, size = 9, 5, {0: 1, 2: 3, 6: 4}[colour] * depth // 8
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, across, down in passes if interlaced else ((0, 0, 1, 1),):
        columns = len(range(left, width, across))
        rows += (b"\0" + b"\x80" * (columns * size)) * len(range(top, height, down)) if columns else b""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    data = PNG[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    assert decode_image(data).size == (width, height)
    assert "is damaged" in refusal(data.replace(zlib.compress(rows)[-4:], b"abcd"))


def test_an_animated_file_is_refused_by_its_header_however_many_frames_it_names():
    text = refusal(before_pixels(chunk(b"acTL", struct.pack(">II", 7, 0))))
    assert "is animated (7 frames)" in text
