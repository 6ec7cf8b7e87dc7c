"""Fitting onto a panel and back, and canvases: panels in a row, the last one to be filled in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from careedit.errors import InputError, MaskError
from careedit.images import Fit, canvas_mask, compose_canvas, crop_target, fit_panel

SIDES = st.integers(1, 220)
RULES = st.sampled_from(["letterbox", "resize"])


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, RULES)
def test_every_size_goes_to_its_panel_and_comes_back_at_its_own(width, height, rule):
    fit = fit_panel((width, height), 64, rule, 16)
    panel = fit.to_panel(noise(width, height))
    assert panel.size == fit.panel
    assert all(side % 16 == 0 and side >= 16 for side in fit.panel)
    assert fit.from_panel(panel).size == (width, height)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, RULES)
def test_a_panel_s_own_size_passes_bit_for_bit_both_ways(width, height, rule):
    size = fit_panel((width, height), 64, rule, 16).panel
    fit = fit_panel(size, 64, rule, 16)
    picture = noise(*size)
    assert fit.panel == size
    assert fit.to_panel(picture).tobytes() == picture.tobytes() == fit.from_panel(picture).tobytes()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64))
def test_a_letterbox_that_needs_no_scaling_comes_back_bit_for_bit(height):
    fit, picture = fit_panel((64, height), 64, "letterbox", 16), noise(64, height)
    assert fit.from_panel(fit.to_panel(picture)).tobytes() == picture.tobytes()


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, RULES, st.tuples(*[st.integers(0, 255)] * 3))
def test_a_plain_picture_stays_plain_on_its_panel_and_back(width, height, rule, colour):
    fit = fit_panel((width, height), 64, rule, 16)
    panel = fit.to_panel(Image.new("RGB", (width, height), colour))
    assert panel.getcolors() == [(panel.width * panel.height, colour)]
    assert fit.from_panel(panel).getcolors() == [(width * height, colour)]


def test_a_smooth_picture_survives_the_way_there_and_back():
    x, y = np.meshgrid(np.linspace(0, 255, 150), np.linspace(0, 255, 100))
    picture = Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))
    for rule in ("letterbox", "resize"):
        fit = fit_panel(picture.size, 64, rule, 16)
        seen = fit.from_panel(fit.to_panel(picture))
        assert np.abs(np.asarray(seen).astype(int) - np.asarray(picture)).mean() < 2


@pytest.mark.parametrize(
    ("size", "panel", "expected"),
    [
        ((512, 512), 512, (512, 512)),
        ((1024, 1024), 512, (512, 512)),
        ((768, 512), 512, (624, 416)),
        ((1920, 1080), 512, (688, 384)),
        ((64, 64), 512, (512, 512)),
        ((1600, 100), 64, (256, 16)),
    ],
)
def test_resize_keeps_area_and_aspect(size, panel, expected):
    assert fit_panel(size, panel, "resize", 16).panel == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(64, 4000), st.floats(1 / 16, 16))
def test_resize_stays_within_one_multiple_of_the_exact_panel(width, aspect):
    height = max(1, round(width * aspect))
    fit = fit_panel((width, height), 512, "resize", 16)
    scale = 512 / math.sqrt(width * height)
    exact = (width * scale, height * scale)
    if fit.panel != (width, height):
        assert all(abs(side - goal) <= 8 + 1e-6 for side, goal in zip(fit.panel, exact, strict=True))


def test_letterbox_centres_and_repeats_the_edge():
    picture = Image.new("RGB", (64, 32), (10, 20, 30))
    picture.paste((200, 0, 0), (0, 0, 64, 1))
    panel = fit_panel((64, 32), 64, "letterbox", 16).to_panel(picture)
    assert fit_panel((64, 32), 64, "letterbox", 16) == Fit((64, 32), (64, 64), (0, 16, 64, 48))
    assert panel.crop((0, 16, 64, 48)).tobytes() == picture.tobytes()
    assert panel.crop((0, 0, 64, 16)).getcolors() == [(64 * 16, (200, 0, 0))]
    assert panel.crop((0, 48, 64, 64)).getcolors() == [(64 * 16, (10, 20, 30))]


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, RULES, st.data())
def test_a_single_marked_pixel_survives_on_the_panel(width, height, rule, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    mask = Image.new("L", (width, height))
    mask.putpixel((x, y), 255)
    fit = fit_panel((width, height), 64, rule, 16)
    panel = np.asarray(fit.to_panel_mask(mask))
    left, top, right, bottom = fit.box
    at = (top + int((y + 0.5) * (bottom - top) / height), left + int((x + 0.5) * (right - left) / width))
    assert panel[at] == 255
    assert set(np.unique(panel)) <= {0, 255}


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, RULES)
def test_full_and_empty_masks_stay_full_and_empty(width, height, rule):
    fit = fit_panel((width, height), 64, rule, 16)
    for value in (0, 255):
        panel = fit.to_panel(Image.new("L", (width, height), value))
        assert panel.getextrema() == (value, value)
        assert fit.from_panel(panel).getextrema() == (value, value)


def test_a_thin_line_survives_strong_shrinking():
    mask = Image.new("L", (4000, 3000))
    mask.paste(255, (0, 1700, 4000, 1701))
    panel = np.asarray(fit_panel(mask.size, 64, "letterbox", 16).to_panel_mask(mask))
    assert (panel == 255).any(axis=0).all()
    assert (panel == 255).any(axis=1).sum() == 1


def test_a_mask_comes_back_with_two_values():
    fit = fit_panel((150, 90), 64, "resize", 16)
    mask = Image.new("L", fit.panel)
    mask.paste(255, (10, 10, 30, 20))
    assert {value for _, value in fit.from_panel(mask).getcolors()} == {0, 255}


def test_what_does_not_fit_is_refused():
    fit = fit_panel((30, 20), 64, "letterbox", 16)
    with pytest.raises(InputError, match="The source is 20x30 but this fit was made for 30x20"):
        fit.to_panel(noise(20, 30))
    with pytest.raises(InputError, match="The panel is 30x20 but this fit was made for 64x64"):
        fit.from_panel(noise(30, 20))
    with pytest.raises(InputError, match="has no pixels"):
        fit_panel((0, 4), 64, "resize", 16)
    with pytest.raises(InputError, match="must be a positive multiple of 16"):
        fit_panel((4, 4), 100, "letterbox", 16)
    with pytest.raises(InputError, match="The panel rule 'stretch' does not exist"):
        fit_panel((4, 4), 64, "stretch", 16)  # type: ignore[arg-type]


PANELS = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_panels_form_a_row_and_the_last_is_the_target(count):
    canvas = compose_canvas(PANELS[:count])
    assert canvas.size == (6 * count, 4)
    for index in range(count):
        assert canvas.crop((6 * index, 0, 6 * index + 6, 4)).tobytes() == PANELS[index].tobytes()
    assert crop_target(canvas, count).tobytes() == PANELS[count - 1].tobytes()


@pytest.mark.parametrize("count", [2, 3])
def test_without_a_mask_the_whole_last_panel_is_free(count):
    marked = np.asarray(canvas_mask(count, (6, 4)))
    assert marked.shape == (4, 6 * count)
    assert (marked[:, : 6 * count - 6] == 0).all() and (marked[:, 6 * count - 6 :] == 255).all()


def test_with_a_mask_only_its_region_of_the_last_panel_is_free():
    mask = Image.new("L", (6, 4))
    mask.paste(255, (1, 1, 3, 2))
    marked = canvas_mask(3, (6, 4), mask)
    assert marked.getbbox() == (13, 1, 15, 2)
    assert crop_target(marked, 3).tobytes() == mask.tobytes()


def test_parts_of_other_sizes_are_refused():
    with pytest.raises(InputError, match="must have one size, not 6x4, 5x4"):
        compose_canvas([PANELS[0], Image.new("RGB", (5, 4))])
    with pytest.raises(InputError, match="not none at all"):
        compose_canvas([])
    with pytest.raises(MaskError, match="The mask is 5x4 but a panel is 6x4"):
        canvas_mask(2, (6, 4), Image.new("L", (5, 4)))
    with pytest.raises(InputError, match="cannot hold 5 panels"):
        crop_target(Image.new("RGB", (12, 4)), 5)
