"""The oracle on pictures of each sort. `careedit scenes calibrate` makes the table of docs/tiny-world.md, on more of them."""

import pytest

from careedit_tiny.oracle.calibration import calibrate
from careedit_tiny.oracle.corruptions import FAULTS, FLAWS

EACH = 40


@pytest.fixture(scope="module")
def rows():
    return {row.picture: row for row in calibrate(EACH)}


def test_the_truth_passes(rows):
    assert rows["truth"].n == EACH
    assert rows["truth"].right == 1


@pytest.mark.parametrize("picture", FLAWS)
def test_a_right_edit_with_a_harmless_flaw_passes(rows, picture):
    assert rows[picture].right >= 1 - 1 / EACH


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_edit_is_rejected(rows, fault):
    assert rows[fault].right >= 1 - 1 / EACH


def test_nothing_done_is_never_taken_for_an_edit(rows):
    assert rows["source (nothing done)"].right == 1
