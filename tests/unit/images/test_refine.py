"""Refinement fits coarse boxes to the object they cover, and leaves alone what it cannot separate."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from careedit.errors import MaskError
from careedit.images import boundary_error, mask_share, refine_mask

SIZE, SCALE = 64, 4
COLOURS = [(214, 40, 40), (34, 139, 230), (46, 160, 67), (245, 197, 24), (142, 68, 173), (20, 20, 20), (250, 250, 250)]
BACKGROUNDS = ["plain", "stripes", "dots", "gradient"]


def background(kind: str, first: tuple[int, ...], second: tuple[int, ...]) -> Image.Image:
    y, x = np.mgrid[0 : SIZE * SCALE, 0 : SIZE * SCALE] / (SIZE * SCALE)
    amount = {
        "plain": 0 * x,
        "stripes": np.floor((0.8 * x + 0.6 * y) * 10) % 2,
        "dots": (((x * 8 % 1 - 0.5) ** 2 + (y * 8 % 1 - 0.5) ** 2) < 0.06) * 1.0,
        "gradient": 0.7 * x + 0.3 * y,
    }[kind][..., None]
    drawn = np.array(first) * (1 - amount) + np.array(second) * amount
    return Image.fromarray(drawn.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BOX)


def outline(shape: str, x: float, y: float, radius: float) -> Image.Image:
    """The shape's silhouette, anti-aliased."""
    mask = Image.new("L", (SIZE * SCALE, SIZE * SCALE))
    corners = {"circle": 40, "star": 10, "square": 4, "triangle": 3}[shape]
    points = []
    for index in range(corners):
        reach = radius * (0.45 if shape == "star" and index % 2 else 1.0) * SCALE
        angle = 2 * math.pi * index / corners + 0.4
        points.append((x * SCALE + reach * math.cos(angle), y * SCALE + reach * math.sin(angle)))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask.resize((SIZE, SIZE), Image.Resampling.BOX)


def scene(kind: str, rng: Random) -> tuple[Image.Image, Image.Image]:
    """A picture of two objects, and the silhouette of the first."""
    colours = rng.sample(COLOURS, 4)
    picture = background(kind, colours[0], colours[1])
    x, y, radius = rng.uniform(16, 48), rng.uniform(14, 20), rng.uniform(8, 12)
    truth = outline(rng.choice(["circle", "star", "square", "triangle"]), x, y, radius)
    picture.paste(colours[2], mask=truth)
    picture.paste(colours[3], mask=outline("circle", rng.uniform(10, 54), 52, 8))
    return picture, truth.point(lambda value: 255 if value >= 128 else 0)


def box(edges: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = (round(min(max(edge, 0), SIZE)) for edge in edges)
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(255, (left, top, right, bottom))
    return mask


def coarse(truth: Image.Image, fault: str, rng: Random) -> Image.Image:
    left, top, right, bottom = truth.getbbox() or (0, 0, SIZE, SIZE)
    width, height = right - left, bottom - top
    if fault == "shifted":
        angle = rng.uniform(0, 2 * math.pi)
        across, down = 0.3 * width * math.cos(angle), 0.3 * height * math.sin(angle)
        return box((left + across, top + down, right + across, bottom + down))
    share = rng.uniform(0.2, 0.4) if fault == "too large" else -rng.uniform(0.12, 0.22)
    return box((left - share * width, top - share * height, right + share * width, bottom + share * height))


@pytest.mark.parametrize(("fault", "gain"), [("too large", 5), ("too small", 3), ("shifted", 5)])
@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_refinement_brings_coarse_boxes_to_the_object_s_boundary(kind, fault, gain):
    rng, before, after, worse = Random(7), [], [], 0
    for _ in range(8):
        picture, truth = scene(kind, rng)
        mask = coarse(truth, fault, rng)
        before.append(boundary_error(mask, truth))
        after.append(boundary_error(refine_mask(picture, mask), truth))
        worse += after[-1] > before[-1] + 0.5
    assert np.mean(after) < np.mean(before) / gain
    assert np.median(after) < 0.6
    assert worse == 0


def test_refinement_grows_and_shrinks():
    rng = Random(3)
    picture, truth = scene("plain", rng)
    small, large = coarse(truth, "too small", rng), coarse(truth, "too large", rng)
    assert mask_share(refine_mask(picture, small)) > mask_share(small)
    assert mask_share(refine_mask(picture, large)) < mask_share(large)


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_mask_over_bare_background_comes_back_unchanged(kind):
    picture = background(kind, COLOURS[0], COLOURS[1])
    rng = Random(5)
    for _ in range(10):
        left, top = rng.uniform(4, 36), rng.uniform(4, 36)
        mask = box((left, top, left + rng.uniform(10, 24), top + rng.uniform(10, 24)))
        assert refine_mask(picture, mask).tobytes() == mask.tobytes()


def test_full_and_empty_masks_come_back_unchanged():
    picture, _ = scene("stripes", Random(1))
    for value in (0, 255):
        assert refine_mask(picture, Image.new("L", (SIZE, SIZE), value)).getextrema() == (value, value)


def test_a_large_picture_is_refined_at_its_own_size():
    picture, truth = scene("plain", Random(9))
    mask = coarse(truth, "too large", Random(2))
    large = [image.resize((640, 480), Image.Resampling.NEAREST) for image in (picture, mask, truth)]
    refined = refine_mask(large[0], large[1])
    assert refined.size == (640, 480)
    assert {value for _, value in refined.getcolors()} == {0, 255}
    assert boundary_error(refined, large[2]) < boundary_error(large[1], large[2]) / 5


def test_a_ring_keeps_its_hole_and_speckles_are_filled():
    picture = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((12, 12, 52, 52), fill="red")
    draw.ellipse((22, 22, 42, 42), fill="white")
    draw.rectangle((16, 30, 18, 32), fill="white")
    refined = np.asarray(refine_mask(picture, box((8, 8, 56, 56))))
    assert refined[32, 32] == 0
    assert refined[31, 17] == 255


def test_refinement_is_the_same_every_time():
    picture, truth = scene("dots", Random(11))
    mask = coarse(truth, "shifted", Random(4))
    assert refine_mask(picture, mask).tobytes() == refine_mask(picture, mask).tobytes()


@pytest.mark.parametrize("seed", range(12))
def test_any_picture_and_mask_give_a_two_valued_mask_of_the_same_size(seed):
    rng = np.random.default_rng(seed)
    width, height = rng.integers(1, 40, 2).tolist()
    picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    mask = Image.fromarray(np.where(rng.random((height, width)) < rng.random(), 255, 0).astype(np.uint8))
    refined = refine_mask(picture, mask)
    assert (refined.mode, refined.size) == ("L", mask.size)
    assert set(np.unique(np.asarray(refined))) <= {0, 255}


def test_boundary_error_has_the_known_answers():
    square, shifted, larger = box((20, 20, 40, 40)), box((23, 20, 43, 40)), box((18, 18, 42, 42))
    assert boundary_error(square, square) == 0
    assert boundary_error(square, shifted) == boundary_error(shifted, square)
    # Each side of the inner square is 2 away; outside, only the corners are farther than 2 (up to 2 * sqrt 2).
    assert boundary_error(square, larger) == pytest.approx(2, abs=0.1)
    one, other = box((10, 10, 11, 11)), box((13, 14, 14, 15))
    assert boundary_error(one, other) == pytest.approx(5)


def test_masks_that_cannot_be_compared_are_refused():
    mask = box((10, 10, 20, 20))
    with pytest.raises(MaskError, match="marks nothing"):
        boundary_error(mask, Image.new("L", (SIZE, SIZE)))
    with pytest.raises(MaskError, match="cannot be compared"):
        boundary_error(mask, Image.new("L", (3, 3)))
    with pytest.raises(MaskError, match="The mask is 3x3 but the image is 64x64"):
        refine_mask(Image.new("RGB", (SIZE, SIZE)), Image.new("L", (3, 3)))
