"""Every format and mode becomes the right 8-bit sRGB pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from careedit.images import decode_image, image_sha256
from pictures import encoded

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]], [[255, 255, 255], [0, 0, 0]]], np.uint8)


def pixels(image: Image.Image) -> list[list[list[int]]]:
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_a_lossless_rgb_file_decodes_to_its_own_pixels(kind, options):
    assert pixels(decode_image(encoded(Image.fromarray(COLOURS), kind, **options))) == COLOURS.tolist()


def test_a_jpeg_decodes_to_nearly_its_own_pixels():
    flat = Image.new("RGB", (16, 8), (200, 100, 50))
    seen = np.asarray(decode_image(encoded(flat, "JPEG", quality=95))).astype(int)
    assert np.abs(seen - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("form", [str, Path, "bytes", "pil"])
def test_a_path_bytes_and_a_pil_image_decode_alike(form, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(Image.fromarray(COLOURS)))
    source = (
        {"bytes": path.read_bytes(), "pil": Image.fromarray(COLOURS)}.get(form) if isinstance(form, str) else form(path)
    )
    assert pixels(decode_image(source)) == COLOURS.tolist()


def test_a_decoded_picture_comes_back_as_it_is():
    once = decode_image(encoded(Image.fromarray(COLOURS)))
    assert decode_image(once) is once


def test_grey_becomes_three_equal_channels():
    grey = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert pixels(decode_image(encoded(grey))) == [[[0] * 3, [100] * 3, [255] * 3]]


def test_one_bit_becomes_black_and_white():
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert pixels(decode_image(encoded(bits))) == [[[0] * 3, [255] * 3]]


def test_alpha_is_composited_over_white():
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(255, 0, 0, 255), (0, 0, 255, 0), (0, 0, 0, 128)])
    assert pixels(decode_image(encoded(rgba))) == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_grey_with_alpha_is_composited_over_white():
    grey = Image.new("LA", (2, 1))
    grey.putdata([(50, 255), (0, 0)])
    assert pixels(decode_image(encoded(grey))) == [[[50] * 3, [255] * 3]]


def test_premultiplied_alpha_is_undone_first():
    rgba = Image.new("RGBA", (1, 1), (200, 100, 0, 128))
    straight, premultiplied = (np.asarray(decode_image(image)).astype(int) for image in (rgba, rgba.convert("RGBa")))
    assert np.abs(straight - premultiplied).max() <= 1


def test_a_palette_is_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 40, 50, 60])
    image.putdata([1, 0])
    assert pixels(decode_image(encoded(image))) == [[[40, 50, 60], [1, 2, 3]]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_a_transparent_palette_entry_becomes_white(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 40, 50, 60])
    image.putdata([0, 1])
    assert pixels(decode_image(encoded(image, transparency=transparency))) == [[[1, 2, 3], [255, 255, 255]]]


def test_a_transparent_colour_key_becomes_white():
    data = encoded(Image.fromarray(COLOURS), transparency=(10, 20, 30))
    assert pixels(decode_image(data))[1] == [[0, 0, 255], [255, 255, 255]]


def test_cmyk_jpeg_has_the_right_polarity():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    seen = np.asarray(decode_image(encoded(cmyk, "JPEG", quality=95))).astype(int)
    assert np.abs(seen - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(mode):
    values = [0, 257, 25700, 32768, 65535]
    image = Image.new(mode, (5, 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    assert [pixel[0] for pixel in pixels(decode_image(image))[0]] == [0, 1, 100, 128, 255]


def test_a_sixteen_bit_grey_png_is_scaled():
    data = encoded(Image.fromarray(np.array([[0, 25700, 65535]], np.uint16)))
    assert [pixel[0] for pixel in pixels(decode_image(data))[0]] == [0, 100, 255]


def test_a_sixteen_bit_grey_png_with_a_transparent_value_shows_white_there():
    data = encoded(Image.fromarray(np.array([[0, 25700]], np.uint16)))
    key = b"tRNS" + struct.pack(">H", 25700)
    chunk = struct.pack(">I", 2) + key + struct.pack(">I", zlib.crc32(key))
    at = data.index(b"IDAT") - 4
    assert [pixel[0] for pixel in pixels(decode_image(data[:at] + chunk + data[at:]))[0]] == [0, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied(kind, value):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste((255, 0, 0), (0, 0, 8, 8))  # a red corner, top left
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][value]  # PIL's transposition that a camera's orientation undoes
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = value
    options = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}[kind]
    seen = decode_image(encoded(stored, kind, exif=exif.tobytes(), **options))
    assert seen.size == (32, 16)
    assert np.abs(np.asarray(seen).astype(int) - np.asarray(upright)).max() <= 8


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", b"Exif\x00\x00garbage", b"MM\x00*\x00"]
)
def test_damaged_exif_counts_as_upright(exif):
    image = Image.fromarray(COLOURS)
    image.info["exif"] = exif
    assert pixels(decode_image(image)) == COLOURS.tolist()


def test_orientation_in_xmp_is_applied():
    image = Image.fromarray(COLOURS)
    image.info["xmp"] = b'<x tiff:Orientation="3"/>'
    assert pixels(decode_image(image)) == COLOURS[::-1, ::-1].tolist()


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with its red and green primaries exchanged."""
    data = srgb_profile()
    return data.replace(b"rXYZ", b"tmp_", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmp_", b"gXYZ", 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_icc_profile_is_converted_to_srgb(kind):
    data = encoded(
        Image.fromarray(COLOURS), kind, icc_profile=swapped_profile(), **({"lossless": True} if kind == "WEBP" else {})
    )
    seen = np.asarray(decode_image(data)).astype(int)
    assert np.abs(seen - COLOURS[..., [1, 0, 2]]).max() <= 2


def test_alpha_survives_colour_management():
    rgba = Image.new("RGBA", (2, 1))
    rgba.putdata([(255, 0, 0, 255), (255, 0, 0, 0)])
    seen = np.asarray(decode_image(encoded(rgba, icc_profile=swapped_profile()))).astype(int)
    assert np.abs(seen - [[[0, 255, 0], [255, 255, 255]]]).max() <= 2


@pytest.mark.parametrize(
    "profile", [srgb_profile(), b"not a profile", srgb_profile()[:200]], ids=["sRGB", "text", "cut"]
)
def test_an_srgb_or_a_broken_profile_changes_no_pixel(profile):
    image = Image.fromarray(COLOURS)
    image.info["icc_profile"] = profile
    assert pixels(decode_image(image)) == COLOURS.tolist()


def test_a_profile_of_another_colour_space_is_ignored():
    cmyk = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    cmyk.info["icc_profile"] = srgb_profile()
    assert pixels(decode_image(cmyk)) == [[[255, 0, 0]]]


def test_metadata_is_dropped():
    exif = Image.Exif()
    exif[0x010E] = "my street"
    data = encoded(Image.fromarray(COLOURS), exif=exif.tobytes(), icc_profile=srgb_profile(), dpi=(72, 72))
    assert decode_image(data).info == {}


def test_the_caller_s_own_picture_is_left_alone():
    image = Image.fromarray(COLOURS)
    image.info["comment"] = "mine"
    assert decode_image(image).info == {}
    assert image.info == {"comment": "mine"}


def test_a_multi_picture_jpeg_is_read_as_its_first_picture():
    first, second = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert decode_image(data).getpixel((3, 3))[0] >= 250
    assert decode_image(Image.open(io.BytesIO(data))).getpixel((3, 3))[0] >= 250


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "PA", "RGBX", "La"])
def test_any_other_eight_bit_mode_of_a_pil_image_is_converted(mode):
    seen = decode_image(Image.new(mode, (2, 2)))
    assert (seen.mode, seen.size) == ("RGB", (2, 2))


def test_the_hash_depends_on_pixels_size_and_mode_only():
    image = Image.fromarray(COLOURS)
    assert image_sha256(image) == image_sha256(decode_image(encoded(image)))
    others = [image.transpose(Image.Transpose.ROTATE_90), image.convert("L"), Image.new("RGB", (2, 3))]
    flat = Image.frombytes("RGB", (3, 2), image.tobytes())
    hashes = {image_sha256(other) for other in [image, flat, *others]}
    assert len(hashes) == 5
    assert len(image_sha256(image)) == 64
