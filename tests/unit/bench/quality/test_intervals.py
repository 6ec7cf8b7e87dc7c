"""The benchmark's statistics: known answers, and what must hold for any figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careedit.errors import InputError
from careedit_tiny.bench.quality.intervals import (
    area_under_roc,
    bootstrap_means,
    mean_interval,
    mutual_information,
    permuted_information,
    ratio_interval,
    recall_at,
)

VALUES = st.lists(st.floats(-5, 5), min_size=1, max_size=40)
LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


def test_the_interval_of_a_share_is_near_the_binomials() -> None:
    values = np.repeat([1.0, 0.0], [300, 100])

    low, high = mean_interval(values)

    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.005)
    assert high == pytest.approx(0.75 + half, abs=0.005)


def test_equal_values_leave_nothing_to_doubt() -> None:
    assert mean_interval([0.5] * 30) == (0.5, 0.5)


def test_rows_of_one_length_are_resampled_together() -> None:
    first, second = np.random.default_rng(0).random((2, 50))

    apart = bootstrap_means(first - second)

    np.testing.assert_allclose(bootstrap_means(first) - bootstrap_means(second), apart, atol=1e-6)


def test_nothing_has_no_interval() -> None:
    with pytest.raises(InputError, match="one or more values"):
        mean_interval([])


@settings(max_examples=25, deadline=None)
@given(VALUES)
def test_an_interval_holds_its_mean_and_lies_within_the_values(values: list[float]) -> None:
    low, high = mean_interval(values, resamples=200)

    assert min(values) - 1e-5 <= low <= high <= max(values) + 1e-5
    assert (low, high) == mean_interval(values, resamples=200)


def test_the_ratio_of_a_thing_to_itself_is_one() -> None:
    assert ratio_interval([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) == pytest.approx((1.0, 1.0))


def test_a_ratio_over_what_may_be_nothing_has_no_interval() -> None:
    assert ratio_interval([0.1, 0.2], [0.0, 0.0]) is None


def test_information_of_a_perfect_router_is_the_entropy_and_of_a_constant_one_nothing() -> None:
    kinds = ["add", "remove", "style", "add", "remove", "style"]

    assert mutual_information(kinds, kinds) == pytest.approx(math.log(3))
    assert mutual_information(["compose"] * 6, kinds) == 0.0
    assert mutual_information(["a", "a", "b", "b"], ["x", "y", "x", "y"]) == pytest.approx(0.0)


def test_a_perfect_router_beats_every_permutation_and_a_constant_one_none() -> None:
    kinds = ["add", "remove", "style", "move"] * 10

    perfect, constant = permuted_information(kinds, kinds), permuted_information(["one"] * 40, kinds)

    assert (perfect.p, perfect.value) == (pytest.approx(1 / 2001), pytest.approx(math.log(4)))
    assert 0 < perfect.null_mean < perfect.null_high < perfect.value
    assert (constant.value, constant.p) == (0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(LABELS, st.randoms(use_true_random=False))
def test_information_is_symmetric_and_no_more_than_an_entropy(first: list[str], random: object) -> None:
    second = list(first)
    random.shuffle(second)  # type: ignore[attr-defined]

    value = mutual_information(first, second)

    assert value == pytest.approx(mutual_information(second, first))
    assert -1e-9 <= value <= mutual_information(first, first) + 1e-9


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert area_under_roc([0.1, 0.2], [0.3, 0.4]) == 1.0
    assert area_under_roc([0.5, 0.5], [0.5]) == 0.5
    assert area_under_roc([0.9], [0.1]) == 0.0


def test_recall_keeps_to_the_allowed_false_alarms() -> None:
    doubts = [*([0.1] * 98), 0.9, 0.95]

    assert recall_at(doubts, [0.5, 0.5, 0.05], 0.02) == pytest.approx(2 / 3)
    assert recall_at(doubts, [0.92, 0.5, 0.99], 0.01) == pytest.approx(2 / 3)
    assert recall_at(doubts, [0.92, 0.5, 0.99], 0.0) == pytest.approx(1 / 3)
