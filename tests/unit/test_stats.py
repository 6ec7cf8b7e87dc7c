"""The shared statistics: known answers, what must hold for any numbers, and agreement with scipy's own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from careedit.errors import InputError
from careedit.stats import area_under_roc, bootstrap_mean, bootstrap_ratio, normal_quantile, percentile, wilson

VALUES = st.lists(st.floats(-5, 5), min_size=1, max_size=40)


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (1, 10), (10, 10), (37, 1200), (1, 1)])
def test_wilsons_interval_is_that_of_scipy(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "wilson")

    assert wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilsons_interval_ends_exactly_at_the_bounds_and_takes_fractions():
    assert wilson(0, 10).low == 0.0 and wilson(10, 10).high == 1.0
    assert wilson(2.5, 5).low == pytest.approx(1 - wilson(2.5, 5).high)
    assert wilson(5, 10, quantile=3).low < wilson(5, 10, quantile=normal_quantile()).low == wilson(5, 10).low


def test_a_bootstrap_draws_the_resamples_that_published_figures_were_made_with():
    values = np.random.default_rng(0).random(50)
    rng = np.random.default_rng([20_240_229, 50])
    means = [values[rng.integers(50, size=50)].mean() for _ in range(10_000)]

    assert bootstrap_mean(values) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)


def test_the_interval_of_a_share_is_near_the_binomials():
    values = np.repeat([1.0, 0.0], [300, 100])

    low, high = bootstrap_mean(values)

    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.005)
    assert high == pytest.approx(0.75 + half, abs=0.005)


def test_equal_values_leave_nothing_to_doubt():
    assert bootstrap_mean([0.5] * 30) == (0.5, 0.5)


def test_nothing_has_no_interval():
    with pytest.raises(InputError, match="one or more values"):
        bootstrap_mean([])


@settings(max_examples=25, deadline=None)
@given(VALUES)
def test_an_interval_holds_its_mean_and_lies_within_the_values(values):
    low, high = bootstrap_mean(values, resamples=200)

    assert min(values) - 1e-5 <= low <= high <= max(values) + 1e-5
    assert (low, high) == bootstrap_mean(values, resamples=200)


def test_the_ratio_of_a_thing_to_itself_is_one():
    assert bootstrap_ratio([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) == pytest.approx((1.0, 1.0))


def test_a_ratio_over_what_may_be_nothing_has_no_interval():
    assert bootstrap_ratio([0.1, 0.2], [0.0, 0.0]) is None
    assert bootstrap_ratio([0.1] * 9, [1.0] * 8 + [0.0]) is not None
    assert bootstrap_ratio([0.1] * 4, [1.0] + [0.0] * 3) is None


def test_the_area_under_the_curve_counts_ties_half():
    assert area_under_roc([0.1, 0.2], [0.3, 0.4]) == 1.0
    assert area_under_roc([0.5, 0.5], [0.5]) == 0.5
    assert area_under_roc([0.9], [0.1]) == 0.0


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 10.0), (20, 10.0), (21, 20.0), (50, 30.0), (95, 50.0), (100, 50.0)]
)
def test_a_percentile_is_one_of_the_values(percent, expected):
    assert percentile([50.0, 10.0, 40.0, 20.0, 30.0], percent) == expected


def test_the_95th_percentile_of_twenty_values_is_the_nineteenth():
    assert percentile([float(i) for i in range(1, 21)], 95) == 19.0


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_a_percentile_that_there_is_not_is_refused(values, percent):
    with pytest.raises(InputError, match="have no percentile"):
        percentile(values, percent)
