"""Feathering and compositing: what is not marked is never touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from careedit.errors import InputError, MaskError
from careedit.images import composite, default_feather, feather, grow, mask_share

RADII = st.sampled_from([None, 0, 0.5, 1, 2.5, 40])


def square(size: int, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (size, size))
    mask.paste(255, box)
    return mask


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1), RADII)
def test_unmarked_pixels_are_the_source_s_own_bit_for_bit(width, height, share, seed, radius):
    rng = np.random.default_rng(seed)
    source, edited = (Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(2))
    marked = rng.random((height, width)) < share
    seen = composite(source, edited, Image.fromarray(np.where(marked, 255, 0).astype(np.uint8)), radius)
    assert np.array_equal(np.asarray(seen)[~marked], np.asarray(source)[~marked])


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32 - 1), st.floats(0, 30))
def test_feathering_goes_inwards_only(share, seed, radius):
    marked = np.random.default_rng(seed).random((20, 24)) < share
    weights = np.asarray(feather(Image.fromarray(np.where(marked, 255, 0).astype(np.uint8)), radius))
    assert (weights[~marked] == 0).all()
    assert (weights[marked] > 0).all()


def test_a_feather_rises_from_the_edge_to_full_weight():
    row = np.asarray(feather(square(41, (10, 10, 31, 31)), 3))[20]
    assert row[:10].tolist() == [0] * 10
    assert row[10:14].tolist() == [64, 128, 192, 255]
    assert (row[14:27] == 255).all()
    assert row.tolist() == row[::-1].tolist()


def test_radius_0_is_a_hard_edge():
    mask = square(20, (5, 5, 15, 15))
    assert feather(mask, 0).tobytes() == mask.tobytes()


def test_a_thin_line_still_reaches_full_weight():
    weights = np.asarray(feather(square(30, (0, 10, 30, 11)), 8))
    assert (weights[10] == 255).all()


def test_a_thin_line_is_not_dimmed_by_a_large_region_elsewhere():
    mask = square(60, (0, 0, 40, 40))
    mask.paste(255, (0, 50, 60, 52))
    assert np.asarray(feather(mask, 8))[50:52].max() == 255


def test_the_pictures_border_does_not_count_as_an_edge():
    assert np.asarray(feather(square(20, (0, 0, 10, 20)), 3))[0, 0] == 255
    assert feather(Image.new("L", (5, 5), 255), 3).getextrema() == (255, 255)
    assert feather(Image.new("L", (5, 5), 0), 3).getextrema() == (0, 0)


def test_the_middle_of_the_mask_is_the_edit_and_the_seam_lies_between():
    source, edited = Image.new("RGB", (41, 41), (0, 0, 0)), Image.new("RGB", (41, 41), (200, 100, 50))
    row = np.asarray(composite(source, edited, square(41, (10, 10, 31, 31)), 3))[20, :, 0]
    assert row[20] == 200
    assert 0 < row[10] < row[11] < row[12] < 200


def test_the_default_feather_grows_with_the_picture():
    assert [default_feather(size) for size in [(64, 64), (256, 300), (2000, 1024)]] == [0, 1, 4]


def test_growing_adds_a_disc_around_each_marked_pixel():
    dot = square(21, (10, 10, 11, 11))
    assert mask_share(grow(dot, 3)) * 441 == pytest.approx(29)  # the lattice points within distance 3
    assert grow(dot, 3).getbbox() == (7, 7, 14, 14)
    assert grow(dot, 0) is dot
    assert mask_share(grow(Image.new("L", (5, 5)), 3)) == 0


def test_the_share_counts_marked_pixels():
    assert mask_share(square(10, (0, 0, 5, 5))) == pytest.approx(0.25)


def test_other_sizes_and_negative_radii_are_refused():
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(MaskError, match="must have one size, not 4x4, 4x4, 5x4"):
        composite(picture, picture, Image.new("L", (5, 4)))
    with pytest.raises(InputError, match="feather radius is -1"):
        feather(Image.new("L", (4, 4)), -1)
