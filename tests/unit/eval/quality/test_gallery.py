"""The picture of edits: what is in it, what is framed, and text that fits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit_tiny.evaluation.quality.gallery import GAP, LINE, RIGHT, SIDE, draw_gallery
from careedit_tiny.evaluation.quality.page import GalleryPicture, GalleryRow


def scene(*, right: bool, instruction: str = "make it blue") -> GalleryRow:
    pictures = [
        GalleryPicture("source", Image.new("RGB", (64, 64), "red")),
        GalleryPicture("mask", Image.new("L", (64, 64), 255)),
        GalleryPicture("unified", Image.new("RGB", (64, 64), "yellow"), False),
        GalleryPicture("rules", Image.new("RGB", (64, 64), "blue"), right),
        GalleryPicture("truth", Image.new("RGB", (64, 64), "blue")),
    ]
    return GalleryRow("attribute", instruction, pictures)


def has(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == colour).all(axis=-1).any())


def test_source_rows_and_truth_are_shown_and_nothing_else() -> None:
    sheet = draw_gallery([scene(right=False)], ["rules", "learned_top1"])
    assert sheet.width == 2 * (GAP + 3 * (SIDE + GAP)) + GAP  # nothing learned was measured
    assert has(sheet, (255, 0, 0)) and has(sheet, (0, 0, 255))
    assert not has(sheet, (255, 255, 0))
    middle = (GAP + SIDE + GAP + SIDE // 2, GAP + 2 * LINE + SIDE // 2)
    assert sheet.getpixel(middle) == (0, 0, 255)


def test_right_edits_are_framed() -> None:
    frame = tuple(int(RIGHT[i : i + 2], 16) for i in (1, 3, 5))
    assert has(draw_gallery([scene(right=True)], ["rules"]), frame)
    assert not has(draw_gallery([scene(right=False)], ["rules"]), frame)


def test_two_scenes_share_a_line_and_a_long_instruction_is_cut() -> None:
    one, two, three = (
        draw_gallery([scene(right=False, instruction="x" * 90)] * n, ["rules"]).height for n in (1, 2, 3)
    )
    assert one == two < three
    plain = draw_gallery([scene(right=False, instruction="")], ["rules"])
    long = draw_gallery([scene(right=False, instruction="x" * 90)], ["rules"])
    beyond = (plain.width // 2, 0, plain.width, plain.height)
    assert long.crop(beyond).tobytes() == plain.crop(beyond).tobytes()


def test_no_scenes_are_refused() -> None:
    with pytest.raises(InputError, match="no scenes to draw"):
        draw_gallery([], ["rules"])
