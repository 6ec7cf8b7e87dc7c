"""Ratios, percentiles and shares by hand."""

from __future__ import annotations

import pytest

from careedit.bench.timing import differences, ratios
from careedit.errors import InputError
from careedit_deployments.bench.trace import attainment


def test_a_ratio_is_taken_round_by_round_and_its_median_told() -> None:
    figure = ratios([2.0, 6.0, 100.0], [1.0, 2.0, 4.0])

    assert figure.values == (2.0, 3.0, 25.0)
    assert (figure.value, figure.spread) == (3.0, (2.0, 25.0))


def test_a_difference_is_taken_round_by_round() -> None:
    assert differences([5.0, 1.0], [2.0, 2.0]).values == (3.0, -1.0)


def test_sides_with_different_numbers_of_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_the_share_in_time_counts_failures_and_the_exact_limit() -> None:
    assert attainment([1.0, 2.0, 2.1, None], [2.0, 2.0, 2.0, 2.0]) == 0.5


def test_no_requests_have_no_share_in_time() -> None:
    with pytest.raises(InputError, match="No request was sent"):
        attainment([], [])
