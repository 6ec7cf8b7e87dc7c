"""Ratios, percentiles and shares by hand."""

from __future__ import annotations

import pytest

from careedit.errors import InputError
from careedit_deployments.bench.figures import attainment, differences, percentile, ratios


def test_a_ratio_is_taken_round_by_round_and_its_median_told() -> None:
    figure = ratios([2.0, 6.0, 100.0], [1.0, 2.0, 4.0])

    assert figure.values == (2.0, 3.0, 25.0)
    assert (figure.value, figure.spread) == (3.0, (2.0, 25.0))


def test_a_difference_is_taken_round_by_round() -> None:
    assert differences([5.0, 1.0], [2.0, 2.0]).values == (3.0, -1.0)


def test_sides_with_different_numbers_of_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 10.0), (20, 10.0), (21, 20.0), (50, 30.0), (95, 50.0), (100, 50.0)]
)
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert percentile([50.0, 10.0, 40.0, 20.0, 30.0], percent) == expected


def test_the_95th_percentile_of_twenty_values_is_the_nineteenth() -> None:
    assert percentile([float(i) for i in range(1, 21)], 95) == 19.0


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_a_percentile_that_there_is_not_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(InputError, match="have no percentile"):
        percentile(values, percent)


def test_the_share_in_time_counts_failures_and_the_exact_limit() -> None:
    assert attainment([1.0, 2.0, 2.1, None], [2.0, 2.0, 2.0, 2.0]) == 0.5


def test_no_requests_have_no_share_in_time() -> None:
    with pytest.raises(InputError, match="No request was sent"):
        attainment([], [])
