"""What is refused, and that each refusal is one clear sentence."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from careedit.errors import ImageError
from careedit.images import Limits, decode_image, decode_mask
from pictures import encoded

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))


FILES = {
    "PNG": encoded(NOISE),
    "JPEG": encoded(NOISE, "JPEG"),
    "progressive JPEG": encoded(NOISE, "JPEG", progressive=True),
    "WebP": encoded(NOISE, "WEBP"),
    "lossless WebP": encoded(NOISE, "WEBP", lossless=True),
    "WebP with alpha": encoded(NOISE.convert("RGBA"), "WEBP", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"),
}


def sentence(source: object, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(source, **options)
    text = str(caught.value)
    assert text.startswith("The image") and text.endswith(".") and "\n" not in text
    return text


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + FILES["PNG"][33:]


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused_or_complete(name):
    data = FILES[name]
    whole = decode_image(data).tobytes()
    for length in range(1, len(data)):
        try:
            seen = decode_image(data[:length])
        except ImageError:
            continue
        assert seen.tobytes() == whole, f"{length} of {len(data)} bytes gave other pixels"
        assert length > len(data) - 8


@pytest.mark.parametrize("name", FILES)
def test_half_a_file_is_called_damaged(name):
    assert "is damaged or cut off" in sentence(FILES[name][: len(FILES[name]) // 2])


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_but_an_image_error(name, data):
    damaged = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for decode in (decode_image, decode_mask):
        try:
            assert decode(bytes(damaged)).size[0] > 0
        except ImageError as error:
            assert str(error).endswith(".")


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBPVP8X"]),
    st.binary(max_size=200),
)
def test_random_bytes_never_raise_anything_but_an_image_error(head, tail):
    with pytest.raises(ImageError):
        decode_image(head + tail)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animated_file_is_refused(kind):
    frames = [Image.new("RGB", (8, 8), (step * 80, 0, 0)) for step in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert "is animated (3 frames)" in sentence(data)


def test_an_animated_pil_image_is_refused():
    frames = [Image.new("L", (8, 8), step * 80) for step in range(3)]
    gif = Image.open(io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    assert "is animated (3 frames)" in sentence(gif)


def test_a_png_of_one_frame_with_animation_chunks_is_accepted():
    data = encoded(NOISE, "PNG", save_all=True, default_image=False, append_images=[])
    assert decode_image(data).size == NOISE.size


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("BMP", "a BMP file"),
        ("GIF", "a GIF file"),
        ("TIFF", "a TIFF file"),
        ("ICO", "an ICO file"),
    ],
)
def test_another_picture_format_is_named(kind, words):
    text = sentence(encoded(NOISE, kind))
    assert words in text and "give PNG, JPEG or WebP" in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello, I am no picture at all", "is not a picture that is recognised"),
        (b"%PDF-1.7 and more", "is a PDF file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG file"),
        (b"<!DOCTYPE html><html></html>", "is an HTML file"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42", "is an MP4 file"),
        (b"PK\x03\x04rest", "is a ZIP file"),
        (b"", "is empty (0 bytes)"),
    ],
)
def test_a_file_that_is_not_a_picture_is_refused_whatever_its_name(data, words, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    text = sentence(path)
    assert words in text and "picture.png" in text
    assert words in sentence(data)


@pytest.mark.parametrize("size", [(60_000, 60_000), (8000, 7000), (16_385, 2000)])
def test_a_bomb_is_refused_before_its_pixels_are_decoded(size):
    assert f"is {size[0]}x{size[1]}" in sentence(claiming(*size))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_file_of_a_picture_without_pixels_is_refused(size):
    assert f"has no pixels ({size[0]}x{size[1]})" in sentence(claiming(*size))


def test_a_pil_image_without_pixels_is_refused():
    assert "has no pixels (0x7)" in sentence(Image.new("RGB", (0, 7)))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_bytes=100), "is larger than"),
        (Limits(max_pixels=479), "20x24 = 480 pixels; the limit is 479"),
        (Limits(max_side=23), "a side may have at most 23"),
        (Limits(max_aspect=1.1), "at most 1.1 times the shorter"),
    ],
)
def test_each_limit_is_enforced_for_files_and_pil_images(limits, words):
    assert words in sentence(FILES["PNG"], limits=limits)
    if limits.max_bytes > 100:
        assert words in sentence(NOISE, limits=limits)


def test_what_just_meets_the_limits_is_accepted():
    exact = Limits(max_bytes=len(FILES["PNG"]), max_pixels=480, max_side=24, max_aspect=1.2)
    assert decode_image(FILES["PNG"], limits=exact).size == (20, 24)


def test_the_stated_default_limits_hold():
    assert Limits() == Limits(max_bytes=32 * 2**20, max_pixels=50_000_000, max_side=16_384, max_aspect=16)


def test_a_file_over_the_byte_limit_is_refused_without_reading_it_all(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(FILES["PNG"])
        file.truncate(40 * 2**20)
    assert "is larger than 32 MiB" in sentence(path)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "does not exist" in sentence(tmp_path / "nothing.png")
    assert "is a folder" in sentence(tmp_path)
    assert "is not an ordinary file" in sentence(tmp_path / "pipe.png")


@pytest.mark.parametrize("path", ["a\x00b.png", "x" * 5000 + ".png"])
def test_an_impossible_path_is_refused_in_a_short_sentence(path):
    assert len(sentence(path)) < 300


@pytest.mark.parametrize("source", [None, 3, np.zeros((2, 2, 3), np.uint8), ["a.png"]])
def test_anything_else_is_refused_by_the_name_of_its_type(source):
    assert f"is a {type(source).__name__}; give a path" in sentence(source)


def test_floating_point_pixels_are_refused():
    assert "floating-point pixels" in sentence(Image.new("F", (2, 2)))


def test_a_lazily_opened_truncated_pil_image_is_refused():
    assert "is damaged or cut off" in sentence(Image.open(io.BytesIO(FILES["JPEG"][:700])))


def test_a_png_with_a_bad_animation_chunk_is_refused_without_a_warning():
    body = b"acTL" + struct.pack(">II", 0, 0)
    chunk = struct.pack(">I", 8) + body + struct.pack(">I", zlib.crc32(body))
    assert "is damaged" in sentence(FILES["PNG"][:33] + chunk + FILES["PNG"][33:])


def test_a_refused_mask_is_called_a_mask(tmp_path):
    with pytest.raises(ImageError, match=r"^The mask '.*gone.png' does not exist"):
        decode_mask(tmp_path / "gone.png")
