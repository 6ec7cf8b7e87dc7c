"""Probabilities beside what came true."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careedit.routing.transformer import calibration_bins, calibration_error


def test_the_calibration_error_of_a_known_case() -> None:
    """Eight decisions at 0.9 of which six are right, two at 0.5 of which one is: 0.8 * 0.15 + 0.2 * 0."""
    stated, right = [0.9] * 8 + [0.5] * 2, [1] * 6 + [0] * 2 + [1, 0]

    assert [(one.count, one.accuracy) for one in calibration_bins(stated, right)] == [(2, 0.5), (8, 0.75)]
    assert calibration_error(stated, right) == pytest.approx(0.12)


def test_certainty_falls_into_the_last_bin() -> None:
    (only,) = calibration_bins([1.0, 1.0], [1, 1])

    assert (only.confidence, only.accuracy, only.count) == (1.0, 1.0, 2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_bins_hold_every_decision_and_the_error_is_a_share(decisions: list[tuple[float, bool]]) -> None:
    stated, right = zip(*decisions, strict=True)

    bins = calibration_bins(stated, right)

    assert sum(one.count for one in bins) == len(decisions)
    assert sum(one.count * one.accuracy for one in bins) == pytest.approx(sum(right))
    assert 0 <= calibration_error(stated, right) <= 1
