"""Verdicts and figures of claims on made-up measurements."""

from __future__ import annotations

import numpy as np
import pytest

from careedit.bench.report import Goal
from careedit.records import RoutingDecision
from careedit_tiny.evaluation.claims import CLAIMS, Condition, Figure, Finding, NotMeasuredError, decide
from careedit_tiny.evaluation.claims.activation import mixture_of
from careedit_tiny.evaluation.claims.figures import points, ratio, repeats, share, steps_ratio, steps_until

ABOVE = Condition("gain", Goal("above", 0.0))
AT_MOST = Condition("cost", Goal("at most", 2.0))


def found(low: float | None, high: float | None, cost: tuple[float, float] = (1.0, 1.5)) -> Finding:
    gain = Figure(1.0, low, high, n=10, unit="points")
    return Finding({"gain": gain, "cost": Figure(1.2, *cost, n=10, unit="ratio")})


@pytest.mark.parametrize(
    ("finding", "outcome"),
    [
        (found(0.5, 2.0), "holds"),
        (found(-0.5, 2.0), "undecided"),
        (found(-2.0, -0.5), "does not hold here"),
        (found(-2.0, 0.0), "does not hold here"),  # the bound itself is not above the bound
        (found(None, None), "undecided"),
        (found(0.5, 2.0, cost=(1.0, 2.0)), "holds"),
        (found(0.5, 2.0, cost=(1.9, 2.1)), "undecided"),
        (found(0.5, 2.0, cost=(2.1, 3.0)), "does not hold here"),
        (found(-0.5, 2.0, cost=(2.1, 3.0)), "does not hold here"),  # one missed bound is enough
    ],
)
def test_the_whole_interval_of_every_figure_decides(finding: Finding, outcome: str) -> None:
    assert decide((ABOVE, AT_MOST), finding).outcome == outcome


def test_a_verdict_gives_the_figure_its_interval_and_the_bound() -> None:
    reason = decide((ABOVE, AT_MOST), found(-2.0, -0.5)).reason
    assert "gain: +1.0 points (-2.0 points to -0.5 points), above +0.0 points" in reason
    assert "cost" not in reason


def test_a_figure_that_does_not_exist_leaves_the_claim_not_measured() -> None:
    verdict = decide((ABOVE,), Finding({}, unmeasured="The oracle gains nothing."))
    assert (verdict.outcome, verdict.reason) == ("not measured", "The oracle gains nothing.")


def test_claims_are_9_to_17_and_each_has_a_condition() -> None:
    assert sorted(CLAIMS) == list(range(9, 18))
    for claim in CLAIMS.values():
        assert claim.conditions
    assert {claim.id for claim in CLAIMS.values() if claim.trains} == {9, 10, 11}
    assert len({claim.digest for claim in CLAIMS.values()}) == len(CLAIMS)


def test_shares_have_an_interval_even_where_all_scenes_agree() -> None:
    figure = share([0.0] * 20)
    assert (figure.value, figure.low, figure.n) == (0.0, 0.0, 20)
    assert figure.high is not None and 0.1 < figure.high < 0.2
    assert share([1.0]).low is None


def test_differences_are_paired_by_scene() -> None:
    before = np.array([0, 1] * 20, float)
    better = points(before, np.ones(40))
    assert better.value == 50.0
    assert better.low is not None and 25 < better.low < 50
    same = points(before, before)
    assert same.low is not None and same.high is not None and same.low < 0 < same.high


def test_ratios_divide_means_and_refuse_a_mean_of_zero() -> None:
    assert ratio([1, 1, 1, 0], [1, 1, 1, 1]).value == 0.75
    with pytest.raises(NotMeasuredError, match="0 in every scene"):
        ratio([1, 1], [0, 0])


def test_a_ratio_of_times_has_its_smallest_and_largest_repeat_as_ends() -> None:
    figure = repeats([1.5, 1.1, 1.3])
    assert (figure.value, figure.low, figure.high, str(figure)) == (1.3, 1.1, 1.5, "1.30x (1.10x to 1.50x; n = 3)")


def test_a_mixture_has_as_many_active_experts_as_wanted_however_sure_the_router_is() -> None:
    sure = RoutingDecision(
        weights={"a": 1.0}, probabilities={"a": 0.98, "b": 0.02, "c": 0.0}, router="x", reason="Because."
    )
    assert mixture_of(sure, ("a", "b", "c"), 2) == pytest.approx({"a": 0.98, "b": 0.02})
    assert mixture_of(sure, ("a", "b", "c"), 3) == pytest.approx({"a": 0.98 / 1.01, "b": 0.02 / 1.01, "c": 0.01 / 1.01})


def test_steps_until_a_quality_are_read_off_straight_lines() -> None:
    assert steps_until([10, 20], [0.4, 0.8], 0.6) == pytest.approx(15)
    assert steps_until([10, 20], [0.4, 0.8], 0.2) == pytest.approx(5)
    assert steps_until([10, 20], [0.4, 0.8], 0.9) == 20
    assert steps_until([10, 20], [-0.5, 0.5], 0.0) == pytest.approx(15)


def test_the_ratio_of_steps_compares_each_with_its_own_final_quality() -> None:
    untouched = np.linspace(0.9, 1.1, 12)
    fast = ([10, 20], np.stack([0.5 * untouched, 0.5 * untouched]))  # 90 % of its final 0.5 after 9 steps
    slow = ([60, 120], np.stack([0.8 * untouched, 0.6 * untouched]))  # 0.36 of 0.4 after 108 steps
    figure = steps_ratio(slow, fast, untouched)
    assert figure.value == pytest.approx(108 / 9)
    assert figure.low == pytest.approx(12.0) and figure.high == pytest.approx(12.0)
    with pytest.raises(NotMeasuredError, match="removes no error"):
        steps_ratio(slow, ([10, 20], np.stack([untouched, untouched])), untouched)
