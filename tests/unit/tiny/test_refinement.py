"""What mask refinement is worth on drawn scenes."""

from random import Random

import numpy as np
import pytest

from careedit_tiny.oracle.refinement import BOXES, ablate_masks, coarse_box
from careedit_tiny.world.draw import silhouette
from careedit_tiny.world.scene import Thing


@pytest.fixture(scope="module")
def rows():
    return {(row.box, row.backdrop): row for row in ablate_masks(12)}


@pytest.mark.parametrize("box", BOXES)
def test_refinement_brings_every_sort_of_box_nearer_to_the_object(rows, box):
    row = rows[box, "all"]
    assert row.n == 12 and row.improved >= 0.9
    assert row.after < 0.5 < row.before


def test_a_box_that_is_too_large_needs_refinement_that_can_shrink(rows):
    assert rows["too large", "all"].grow_only >= 0.9 * rows["too large", "all"].before


def test_rows_add_up(rows):
    per_backdrop = [row for (box, backdrop), row in rows.items() if box == "shifted" and backdrop != "all"]
    assert sum(row.n for row in per_backdrop) == 12 and rows["all", "all"].n == 36
    mean = sum(row.before * row.n for row in per_backdrop) / 12
    assert rows["shifted", "all"].before == pytest.approx(mean)


def test_an_ablation_is_repeatable():
    assert ablate_masks(2) == ablate_masks(2)


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_wrong_in_the_way_they_say(seed):
    truth = silhouette(Thing("square", "red", 4, "large")).point(lambda value: 255 if value >= 128 else 0)
    inside = np.asarray(truth) > 0
    large, small, shifted = (np.asarray(coarse_box(truth, box, Random(seed))) > 0 for box in BOXES)
    assert large[inside].all() and large.sum() > 1.5 * inside.sum()
    assert inside[small].all() and small.sum() < 0.8 * inside.sum()
    assert 0.6 < (shifted & inside).sum() / inside.sum() < 0.85 and shifted.sum() == inside.sum()
