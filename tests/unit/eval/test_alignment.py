"""How a source lies on its target's canvas is read off the pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from careedit.errors import MaskError
from careedit.files import png_bytes
from careedit_eval.alignment import find_alignment, load_pictures, place_on_canvas, read_mask
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef
from careedit_eval.records import Sample

EDITED = (70, 60, 110, 100)


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture with something to see in every part of it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def edited(canvas: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The canvas after an edit, and the mask of it."""
    target, mask = canvas.copy(), Image.new("L", canvas.size, 0)
    target.paste((255, 0, 0), EDITED)
    mask.paste(255, EDITED)
    return target, mask


@pytest.mark.parametrize("way", ["resize", "cover", "contain"])
@pytest.mark.parametrize("size", [(300, 200), (180, 240), (150, 100)])
def test_each_way_is_told_from_the_others(way, size):
    source = noise(size)
    target, mask = edited(place_on_canvas(source, (160, 160), way))
    assert find_alignment(source, target, mask) == way
    assert find_alignment(source, target, None) == way


def test_a_source_of_the_targets_size_or_shape_needs_no_guess():
    source = noise((200, 200))
    assert find_alignment(source, noise((200, 200), 1), None) == "same"
    assert find_alignment(source, noise((100, 100), 1), None) == "resize"


def test_pictures_that_have_nothing_to_do_with_each_other_are_not_laid_on_each_other():
    assert find_alignment(noise((300, 200)), noise((160, 160), 1), None) == "unknown"


def test_a_mask_over_everything_leaves_nothing_to_tell_by():
    source = noise((300, 200))
    mask = Image.new("L", (160, 160), 255)
    assert find_alignment(source, place_on_canvas(source, (160, 160), "cover"), mask) == "unknown"


def test_a_sample_of_unknown_alignment_keeps_its_source_and_loses_its_mask():
    mask = Image.new("L", (160, 160), 0)
    mask.paste(255, EDITED)
    pictures = load_pictures(row(noise((300, 200)), noise((160, 160), 1), mask))
    assert (pictures.alignment, pictures.mask, pictures.source.size) == ("unknown", None, (300, 200))


def test_a_canvas_without_a_target_is_refused():
    with pytest.raises(BenchmarkError, match="it has no target"):
        load_pictures(row(noise((8, 8)), None, None))


def test_a_mask_of_another_size_than_its_source_is_refused_where_it_is_used():
    sample = row(noise((64, 64)), noise((64, 64)), Image.new("L", (32, 32), 255)).model_copy(update={"align": "none"})
    pictures = load_pictures(sample)
    assert pictures.source.size == (64, 64)
    with pytest.raises(MaskError, match="32x32"):
        _ = pictures.mask
    with pytest.raises(MaskError, match="32x32"):
        load_pictures(sample.model_copy(update={"mask_given": True}))


def row(source: Image.Image, target: Image.Image | None, mask: Image.Image | None) -> Sample:
    given = {name: PictureRef.of(png_bytes(p)) for name, p in (("target", target), ("mask", mask)) if p is not None}
    return Sample(
        id="a", kind="Add", instruction="x", source=PictureRef.of(png_bytes(source)), group="g", align="canvas", **given
    )


def test_black_pixels_are_no_mask_where_something_is_transparent():
    canvas = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    canvas.paste((0, 0, 0, 0), (10, 10, 20, 20))
    assert read_mask(png_bytes(canvas)).getbbox() == (10, 10, 20, 20)


def test_without_transparency_white_is_the_mask():
    canvas = Image.new("RGB", (64, 64))
    canvas.paste((255, 255, 255), (10, 10, 20, 20))
    assert read_mask(png_bytes(canvas)).getbbox() == (10, 10, 20, 20)


def test_a_photograph_is_no_mask():
    with pytest.raises(MaskError, match="picture without transparency"):
        read_mask(png_bytes(noise((64, 64))))
