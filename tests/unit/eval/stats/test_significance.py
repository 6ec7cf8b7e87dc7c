"""Tests of differences, corrections, margins and power, against scipy and values computed by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from careedit.errors import InputError
from careedit_eval.stats import (
    Interval,
    detectable_difference,
    holm,
    mcnemar_p,
    non_inferiority,
    samples_needed,
    wilcoxon_p,
)


def test_wilcoxons_p_is_the_exact_share_of_signs_that_rank_as_high() -> None:
    # Six positive differences of different size: 2 of the 2^6 sign patterns are as extreme.
    assert wilcoxon_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)


def test_wilcoxons_p_knows_nothing_of_no_difference_at_all() -> None:
    assert wilcoxon_p([0.0, 0.0, 0.0]) is None


def test_wilcoxons_p_finds_a_shift_and_no_shift() -> None:
    noise = np.random.default_rng(1).normal(size=80)
    shifted, same = wilcoxon_p(noise + 1), wilcoxon_p(noise - noise.mean())
    assert shifted is not None and same is not None and shifted < 1e-6 and same > 0.3


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [
        (0, 0, None),
        (5, 0, 2 / 32),
        (6, 2, 2 * (1 + 8 + 28) / 256),
        (30, 10, float(stats.chi2.sf(19**2 / 40, 1))),
        (13, 13, float(stats.chi2.sf(0, 1))),
    ],
)
def test_mcnemars_p_is_exact_for_few_pairs_and_corrected_for_many(won: int, lost: int, p: float | None) -> None:
    assert mcnemar_p(won, lost) == (None if p is None else pytest.approx(p))


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
    assert detectable_difference(1.0, 100) == pytest.approx((1.959964 + 0.841621) / 10, abs=1e-5)
    assert samples_needed(1.0, 0.5) == math.ceil((1.959964 + 0.841621) ** 2 / 0.25) == 32
    assert detectable_difference(0.3, samples_needed(0.3, 0.05)) <= 0.05


@pytest.mark.parametrize("call", [lambda: detectable_difference(1.0, 1), lambda: samples_needed(1.0, 0.0)])
def test_power_refuses_what_has_no_answer(call) -> None:
    with pytest.raises(InputError):
        call()
