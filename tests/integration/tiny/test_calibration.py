"""The oracle on hundreds of pictures of each sort: the table of docs/tiny-world.md, recomputed."""

import pytest

from careedit_tiny.oracle.calibration import calibrate
from careedit_tiny.oracle.corruptions import FAULTS, FLAWS

EACH = 100

pytestmark = pytest.mark.timeout(1200)  # two thousand pictures: half a minute on an idle core


@pytest.fixture(scope="module")
def rows():
    return {row.picture: row for row in calibrate(EACH)}


def test_the_truth_passes(rows):
    assert rows["truth"].n == EACH
    assert rows["truth"].right >= 0.995


@pytest.mark.parametrize("picture", FLAWS)
def test_a_right_edit_with_a_harmless_flaw_passes(rows, picture):
    assert rows[picture].right >= 0.97


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_edit_is_rejected(rows, fault):
    assert rows[fault].right >= 0.98


def test_nothing_done_is_never_taken_for_an_edit(rows):
    assert rows["source (nothing done)"].right == 1
