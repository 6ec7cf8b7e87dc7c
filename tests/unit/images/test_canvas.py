"""Canvases: panels side by side, the last one to be filled in."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError, MaskError
from careedit.images import canvas_mask, compose_canvas, crop_target

PANELS = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_panels_stand_side_by_side_and_the_last_is_the_target(count: int) -> None:
    canvas = compose_canvas(PANELS[:count])
    assert canvas.size == (6 * count, 4)
    for index in range(count):
        assert canvas.crop((6 * index, 0, 6 * index + 6, 4)).tobytes() == PANELS[index].tobytes()
    assert crop_target(canvas, count).tobytes() == PANELS[count - 1].tobytes()


@pytest.mark.parametrize("count", [2, 3])
def test_without_a_mask_the_whole_last_panel_is_free(count: int) -> None:
    marked = np.asarray(canvas_mask(count, (6, 4)))
    assert marked.shape == (4, 6 * count)
    assert (marked[:, : 6 * count - 6] == 0).all() and (marked[:, 6 * count - 6 :] == 255).all()


def test_with_a_mask_only_its_region_of_the_last_panel_is_free() -> None:
    mask = Image.new("L", (6, 4))
    mask.paste(255, (1, 1, 3, 2))
    marked = canvas_mask(3, (6, 4), mask)
    assert marked.getbbox() == (13, 1, 15, 2)
    assert crop_target(marked, 3).tobytes() == mask.tobytes()


def test_parts_of_other_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="must have one size, not 6x4, 5x4"):
        compose_canvas([PANELS[0], Image.new("RGB", (5, 4))])
    with pytest.raises(InputError, match="not none at all"):
        compose_canvas([])
    with pytest.raises(MaskError, match="The mask is 5x4 but a panel is 6x4"):
        canvas_mask(2, (6, 4), Image.new("L", (5, 4)))
    with pytest.raises(InputError, match="cannot hold 5 panels"):
        crop_target(Image.new("RGB", (12, 4)), 5)
