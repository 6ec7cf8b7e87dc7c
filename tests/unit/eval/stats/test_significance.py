"""Tests of differences, corrections, margins and power, against scipy and values computed by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from careedit.errors import InputError
from careedit_eval.stats import (
    Interval,
    assumed_spread,
    detectable_difference,
    holm,
    images_needed,
    non_inferiority,
    sign_flip_p,
)
from careedit_eval.stats.intervals import flips_interval


def test_p_is_the_exact_share_of_signs_whose_sum_is_as_large() -> None:
    # Six sums of one sign: 2 of the 2^6 assignments are as extreme.
    assert sign_flip_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    # 3 - 1 - 1 = 1 of the sums 3, 1, 1, -1, -1: every assignment reaches it.
    assert sign_flip_p([3, -1, -1]) == 1.0


def test_p_of_many_images_is_scipys_permutation_test_up_to_the_draws() -> None:
    values = np.random.default_rng(4).exponential(size=60) - 0.8
    theirs = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(5)
    ).pvalue
    ours = sign_flip_p(values)
    assert ours == pytest.approx(theirs, abs=0.015) and ours == sign_flip_p(values)


@pytest.mark.parametrize(("won", "lost"), [(5, 0), (6, 2), (9, 4)])
def test_p_of_flips_is_mcnemars_exact_one(won: int, lost: int) -> None:
    assert sign_flip_p([1.0] * won + [-1.0] * lost + [0.0] * 50) == pytest.approx(
        stats.binomtest(won, won + lost).pvalue
    )


def test_p_knows_nothing_of_no_difference_at_all_and_much_of_a_shift() -> None:
    assert sign_flip_p([0.0, 0.0, 0.0]) is None
    noise = np.random.default_rng(1).normal(size=80)
    shifted, same = sign_flip_p(noise + 1), sign_flip_p(noise - noise.mean())
    assert shifted == pytest.approx(1 / 10_001) and same is not None and same > 0.9


def test_holm_multiplies_by_the_tests_that_are_left_and_never_falls() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert adjusted == {"a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06), "d": None}


def test_holm_never_goes_above_one() -> None:
    assert set(holm({i: 0.6 for i in range(5)}).values()) == {1.0}


@pytest.mark.parametrize(
    ("interval", "margin", "higher", "outcome"),
    [
        (Interval(-0.02, 0.05), 0.03, True, "pass"),
        (Interval(-0.04, 0.05), 0.03, True, "inconclusive"),
        (Interval(-0.08, -0.04), 0.03, True, "worse"),
        (Interval(-0.05, 0.02), 0.03, False, "pass"),
        (Interval(-0.05, 0.04), 0.03, False, "inconclusive"),
        (Interval(0.04, 0.08), 0.03, False, "worse"),
        (
            Interval(-0.2, 0.2),
            0.03,
            True,
            "inconclusive",
        ),  # too few rows: no difference is shown, and nothing is proven
        (Interval(-0.03, -0.03), 0.03, True, "pass"),  # "by more than the margin"
    ],
)
def test_an_outcome_needs_the_whole_interval_on_one_side_of_the_margin(
    interval, margin: float, higher: bool, outcome: str
) -> None:
    assert non_inferiority(interval, margin, higher_is_better=higher) == outcome


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(InputError, match="0 or more"):
        non_inferiority(Interval(0, 0), -0.1)


def test_power_is_the_textbooks() -> None:
    spread = assumed_spread(deviation=1.0)
    assert detectable_difference(spread, 100) == pytest.approx((1.984217 + 0.845274) / 10, abs=1e-4)
    assert images_needed(spread, 0.5) == math.ceil((1.959964 + 0.841621) ** 2 / 0.25) == 32
    assert detectable_difference(spread, 100, alpha=0.05 / 40) > 1.3 * detectable_difference(spread, 100)


def test_equal_numbers_need_as_many_pictures_as_the_rule_of_three_says_and_more_with_flips() -> None:
    needed = [images_needed(assumed_spread(flips=share), 0.03) for share in (0.0, 0.05, 0.12)]
    assert needed == [math.ceil(1.959964**2 * 0.97 / 0.03), 512, 1080]
    low, _ = flips_interval(0, 0, 125, 1.959964)
    assert low >= -0.03 > flips_interval(0, 0, 124, 1.959964)[0]
    assert images_needed(assumed_spread(flips=0.1), 0.0) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: detectable_difference(assumed_spread(flips=0.1), 1),
        lambda: images_needed(assumed_spread(flips=0.1), -0.1),
        lambda: assumed_spread(),
        lambda: assumed_spread(flips=0.1, deviation=0.1),
        lambda: assumed_spread(flips=1.1),
        lambda: assumed_spread(deviation=0.0),
    ],
)
def test_power_refuses_what_has_no_answer(call) -> None:
    with pytest.raises(InputError):
        call()
