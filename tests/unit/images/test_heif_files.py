"""HEIC and AVIF files, which phones send: taken within the limits, turned once, and named rightly where they are refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from careedit.errors import ImageError
from careedit.images import Limits, decode_image, decode_mask, inspect_picture

UPRIGHT = Image.new("RGB", (64, 32), "white")
UPRIGHT.paste((255, 0, 0), (0, 0, 16, 16))
UNDO = [None, None, 0, 3, 1, 5, 2, 6, 4]
"""PIL's transposition that an orientation undoes."""


@pytest.fixture(scope="module", autouse=True)
def _heic_files():
    pillow_heif.register_heif_opener()


def encoded(image: Image.Image = UPRIGHT, kind: str = "HEIF", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(data: bytes, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    return str(caught.value)


def box(name: bytes, *content: bytes) -> bytes:
    inner = b"".join(content)
    return struct.pack(">I", 8 + len(inner)) + name + inner


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_phone_s_picture_is_turned_once_whatever_says_so(kind, value, tmp_path):
    stored = UPRIGHT if UNDO[value] is None else UPRIGHT.transpose(Image.Transpose(UNDO[value]))
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / "photo.jpg"  # as phones name them
    path.write_bytes(encoded(stored, kind, exif=exif.tobytes(), quality=95))
    seen = decode_image(path)
    assert seen.size == (64, 32)
    assert np.abs(np.asarray(seen).astype(int) - np.asarray(UPRIGHT)).max() < 110
    assert (seen.getpixel((4, 4))[1] < 60, seen.getpixel((60, 28))[1] > 200) == (True, True)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_alpha_is_composited_over_white_and_makes_a_mask(kind):
    rgba = Image.new("RGBA", (64, 32), (0, 0, 0, 255))
    rgba.paste((0, 0, 0, 0), (32, 0, 64, 32))
    data = encoded(rgba, kind)
    assert decode_image(data).getpixel((60, 9)) == (255, 255, 255)
    assert decode_mask(data, white_is_edit=False).getbbox() == (32, 0, 64, 32)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_grey_and_deep_pictures_become_eight_bit_rgb(kind):
    assert decode_image(encoded(UPRIGHT.convert("L"), kind)).mode == "RGB"
    values = np.linspace(0, 65535, 64 * 32 * 3).astype(np.uint16)
    deep, file = pillow_heif.from_bytes("RGB;16", (64, 32), values.tobytes()), io.BytesIO()
    deep.save(file, quality=-1)
    seen = np.asarray(decode_image(file.getvalue())).astype(int)
    assert np.abs(seen.ravel() - values / 257).max() < 12


def test_a_heic_file_of_several_pictures_is_read_as_its_primary_one():
    other = Image.new("RGB", (32, 48), (0, 0, 255))
    for primary, size in ((0, (64, 32)), (1, (32, 48))):
        data = encoded(save_all=True, append_images=[other], primary_index=primary)
        assert (inspect_picture(data)[1], decode_image(data).size) == (size, size)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize(
    "after",
    [
        b"\0" * 40,
        b"xyz",
        b"SEFH and the index of a film SEFT",
        b"\0\0\0\2ab",
        b"\0\0\0\x10mpvd" + b"\0" * 8 + b"SEFT" * 9,
    ],
)
def test_what_a_phone_appends_is_left_alone(kind, after):
    data = encoded(kind=kind)
    assert decode_image(data + after) == decode_image(data)


def test_an_animated_avif_is_refused():
    data = encoded(kind="AVIF", save_all=True, append_images=[UPRIGHT.rotate(180), UPRIGHT])
    assert "is animated (3 frames)" in refusal(data)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_limits_are_checked_on_the_header(kind):
    large = encoded(Image.new("RGB", (1024, 512)), kind)
    assert "is 1024x512 = 524,288 pixels; the limit is 1,000" in refusal(large, limits=Limits(max_pixels=1000))
    at = large.index(b"ispe") + 8
    claim = large[:at] + struct.pack(">II", 60_000, 60_000) + large[at + 8 :]
    assert "is 60000x60000" in refusal(claim)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_file_that_is_cut_or_changed_never_raises_anything_but_an_image_error(kind):
    data, rng = encoded(kind=kind), np.random.default_rng(3)
    for length in range(12, len(data), 7):
        assert "is damaged or cut off" in refusal(data[:length])
    for _ in range(150):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = rng.integers(0, 256)
        try:
            decode_image(bytes(changed))
        except ImageError as error:
            assert str(error).endswith(".")


@pytest.mark.parametrize(
    ("brands", "words"),
    [
        (b"heic", "HEIC data cannot be decoded"),
        (b"heim", "HEIC data cannot be decoded"),
        (b"heis", "HEIC data cannot be decoded"),
        (b"hevc", "HEIC data cannot be decoded"),
        (b"mif1\0\0\0\0mif1heic", "HEIC data cannot be decoded"),
        (b"mif1\0\0\0\0mif1avif", "AVIF data cannot be decoded"),
        (b"avis", "AVIF data cannot be decoded"),
        (b"mif1\0\0\0\0mif1avci", "is a HEIF file"),
        (b"isom\0\0\0\0isommp42", "is an MP4 file"),
        (b"qt  ", "is an MP4 file"),
        (b"M4V ", "is an MP4 file"),
    ],
)
def test_a_file_is_named_by_its_brands(brands, words):
    assert words in refusal(box(b"ftyp", brands))


def items(sizes: list[tuple[int, int]], links: bytes, references: bytes) -> bytes:
    """A HEIC file without pixels: item 1 is shown, `links` is the content of ipma, `references` that of iref."""
    properties = b"".join(box(b"ispe", b"\0\0\0\0", struct.pack(">II", *size)) for size in sizes)
    meta = box(
        b"meta",
        b"\0\0\0\0",
        box(b"pitm", b"\0\0\0\0", struct.pack(">H", 1)),
        box(b"iprp", box(b"ipco", properties), box(b"ipma", b"\0\0\0\0", links)),
        box(b"iref", b"\0\0\0\0", references),
    )
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + meta


def test_tiles_that_hold_far_more_than_the_picture_shows_are_refused():
    links = struct.pack(">I", 2) + b"\0\1\1\1" + b"\0\2\1\2"
    tiles = box(b"dimg", struct.pack(">HH", 1, 9), struct.pack(">9H", *[2] * 9))
    assert "made of tiles of 150,994,944 pixels" in refusal(items([(64, 64), (4096, 4096)], links, tiles))
    assert inspect_picture(items([(64, 64), (32, 32)], links, tiles))[1] == (64, 64)


def test_a_flood_of_boxes_and_links_is_refused():
    links = struct.pack(">I", 1) + b"\0\1\1\1"
    assert "boxes and links" in refusal(items([(64, 64)] * 21_000, links, b""))
    many = box(b"dimg", struct.pack(">HH", 1, 60_000), b"\0\1" * 60_000)
    assert "boxes and links" in refusal(items([(64, 64)], links, many))
