"""What decoding did to a picture is said where it matters: a turn by EXIF, transparency that was composited over white."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from careedit import EditRequest
from careedit.errors import InputError, MaskError
from careedit.finetune.data.rows import BadRowError, _aligned
from careedit.images import composite, decode_image, decode_mask, decoding_notes, inspect_picture
from careedit.scoring import ScoreRequest
from careedit_eval.alignment import load_pictures
from careedit_eval.pictures import PictureRef
from careedit_eval.records import Sample
from pictures import encoded


def turned(value: int = 6, size: tuple[int, int] = (80, 40), mode: str = "RGB") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(Image.new(mode, size, "red" if mode == "RGB" else 255), "JPEG", exif=exif.tobytes())


MASK = encoded(Image.new("L", (80, 40), 255))


@pytest.mark.parametrize("value", [5, 6, 7, 8])
def test_a_mask_in_the_sensor_s_frame_is_refused_with_the_turn_and_the_size_that_it_must_have(value):
    with pytest.raises(MaskError) as caught:
        EditRequest(image=turned(value), instruction="x", mask=MASK)
    assert str(caught.value) == (
        "The mask is 80x40 but the image is 40x80 (its file stores 80x40 pixels, which its EXIF orientation turns upright); "
        "give a mask of the image's size, 40x80, drawn on the upright picture."
    )


def test_a_mask_that_its_own_orientation_turns_is_named():
    with pytest.raises(MaskError, match=r"The mask is 40x80 \(its file stores 80x40 pixels.* but the image is 80x40;"):
        EditRequest(image=Image.new("RGB", (80, 40)), instruction="x", mask=turned(mode="L"))


def test_a_mask_of_another_size_without_any_turn_has_a_short_sentence():
    with pytest.raises(MaskError, match=r"is 80x40 but the image is 9x9; give a mask of the image's size, 9x9\.$"):
        EditRequest(image=Image.new("RGB", (9, 9)), instruction="x", mask=MASK)


def test_the_judge_evaluation_and_training_data_name_the_turn_too():
    with pytest.raises(InputError, match="EXIF"):
        ScoreRequest(source=turned(), edited=Image.new("RGB", (80, 40)), instruction="x")
    with pytest.raises(BadRowError, match="EXIF"):
        _aligned(decode_image(turned()), Image.new("RGB", (40, 80)), decode_mask(MASK), "refuse", "a.png")
    with pytest.raises(BadRowError, match="EXIF"):
        _aligned(decode_image(turned()), Image.new("RGB", (80, 40)), None, "refuse", "a.png")
    pictures = {"source": PictureRef.of(turned()), "mask": PictureRef.of(MASK)}
    with pytest.raises(MaskError, match=r"but its source is 40x80 .its file stores 80x40 pixels, which its EXIF"):
        _ = load_pictures(Sample(id="1", kind="Add", instruction="x", group="1", **pictures)).mask


def see_through(mode: str = "RGBA") -> Image.Image:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 255))
    image.putpixel((3, 3), (0, 0, 0, 40))
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "pil"])
def test_transparency_that_is_composited_over_white_is_noted(kind):
    picture = decode_image(see_through() if kind == "pil" else encoded(see_through(), kind))
    plain = Image.new("RGB", (8, 8))
    said = "transparent pixels were composited over white"
    assert decoding_notes([picture]) == (f"image: {said}",)
    assert decoding_notes([plain, picture]) == (f"reference: {said}",)
    request = pickle.loads(pickle.dumps(EditRequest(image=picture, instruction="x")))  # as Ray carries it
    assert decoding_notes((request.image, *request.references)) == (f"image: {said}",)


def test_a_palette_s_transparent_entry_is_noted():
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 40, 50, 60])
    image.putdata([0, 1])
    assert decoding_notes([decode_image(encoded(image, transparency=1))])


def test_alpha_that_is_opaque_everywhere_loses_nothing():
    picture = decode_image(encoded(Image.new("RGBA", (8, 8), (1, 2, 3, 255))))
    assert decoding_notes([picture]) == () and picture.info == {}


def test_what_was_made_of_a_picture_has_none_of_its_notes():
    source = decode_image(see_through())
    made = composite(source, Image.new("RGB", (8, 8)), Image.new("L", (8, 8), 255))
    assert made.info == {}
    assert decoding_notes([decode_image(decode_image(source))]) == decoding_notes([source]) != ()


def test_inspecting_reads_the_header_alone():
    data = encoded(Image.fromarray(np.zeros((30, 20, 3), np.uint8)))
    assert inspect_picture(data[:60] + b"\0" * (len(data) - 72) + data[-12:]) == ("PNG", (20, 30))
