"""Masks: OpenAI's alpha rule, white = edit otherwise, two values only."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from careedit.errors import MaskError
from careedit.images import decode_mask
from pictures import encoded


def values(mask: Image.Image) -> list[list[int]]:
    assert mask.mode == "L"
    return np.asarray(mask).tolist()


def test_white_is_edit_with_the_threshold_at_128():
    grey = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8))
    assert values(decode_mask(encoded(grey))) == [[0, 0, 255, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_a_black_and_white_mask_of_any_mode_reads_alike(mode):
    grey = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    assert values(decode_mask(encoded(grey.convert("RGB").convert(mode)))) == [[0, 255], [255, 0]]


def test_transparent_is_edit_whatever_the_colours_are():
    rgba = Image.new("RGBA", (4, 1))
    rgba.putdata([(255, 255, 255, 255), (255, 255, 255, 0), (0, 0, 0, 0), (0, 0, 0, 255)])
    assert values(decode_mask(encoded(rgba))) == [[0, 255, 255, 0]]


def test_half_transparent_pixels_are_split_at_128():
    rgba = Image.new("RGBA", (2, 1))
    rgba.putdata([(0, 0, 0, 127), (0, 0, 0, 128)])
    assert values(decode_mask(rgba)) == [[255, 0]]


def test_a_transparent_palette_entry_is_edit():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 40, 50, 60])
    image.putdata([0, 1])
    assert values(decode_mask(encoded(image, transparency=1))) == [[0, 255]]


@pytest.mark.parametrize("picture", ["grey", "rgba"])
def test_its_own_output_comes_back_the_same(picture):
    noise = np.random.default_rng(1).integers(0, 256, (9, 7, 4), np.uint8)
    once = decode_mask(Image.fromarray(noise if picture == "rgba" else noise[..., 0]))
    assert values(decode_mask(once)) == values(once)
    assert once.info == {}


def test_an_opaque_mask_is_refused_where_only_transparency_counts():
    for opaque in (Image.new("L", (2, 2), 255), Image.new("RGBA", (2, 2), (9, 9, 9, 255))):
        with pytest.raises(MaskError, match="has no transparent pixel"):
            decode_mask(encoded(opaque), white_is_edit=False)
    assert values(decode_mask(Image.new("RGBA", (1, 1)), white_is_edit=False)) == [[255]]


def test_exif_orientation_turns_a_mask_as_it_turns_its_picture():
    grey = Image.fromarray(np.array([[255, 0, 0]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert values(decode_mask(encoded(grey, exif=exif.tobytes()))) == [[255], [0], [0]]


def test_a_sixteen_bit_mask_is_scaled_before_the_threshold():
    assert values(decode_mask(Image.fromarray(np.array([[300, 32000, 40000]], np.uint16)))) == [[0, 0, 255]]


def test_a_jpeg_mask_has_two_values_only():
    grey = Image.new("L", (32, 32))
    grey.paste(255, (8, 8, 24, 24))
    mask = decode_mask(encoded(grey, "JPEG", quality=40))
    assert set(np.unique(np.asarray(mask))) == {0, 255}
    assert mask.getbbox() == (8, 8, 24, 24)
