"""Statistics of a router's decisions: known answers, and what holds for any labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careedit.records import RoutingDecision
from careedit_eval.stats.information import mutual_information, permuted_information
from careedit_eval.stats.routing import (
    Compliance,
    Decisions,
    decide_all,
    recall_at,
    routing_report,
)
from careedit_tiny.world.samples import Sample, draw_samples

COMPETENCES = {name: name for name in ("erase", "compose", "style", "identity", "reference", "base")}


def decision(weights: dict[str, float], probabilities: dict[str, float] | None = None) -> RoutingDecision:
    return RoutingDecision(weights=weights, probabilities=probabilities or {}, router="some", reason="Because.")


def report_of(samples: list[Sample], decided: Decisions, infeasible: Decisions | None) -> dict[str, Any]:
    """The report of a router whose edits are all right, as are those of every other way of routing."""
    return routing_report(
        decided,
        infeasible,
        Compliance(*[np.ones(len(samples))] * 3),
        kinds=[sample.kind for sample in samples],
        needed=[sample.expert for sample in samples],
        held_out=[sample.held_out_phrasing for sample in samples],
        competences=COMPETENCES,
    )


def test_the_first_expert_is_the_one_of_most_weight() -> None:
    decided = Decisions("some", (decision({"style": 0.3, "erase": 0.7}),), 0.0)

    assert decided.first == ["erase"]
    assert decided.stated == [("erase", 0.7)]


def test_a_router_that_falls_back_to_the_base_is_calibrated_by_what_it_thought() -> None:
    fallen_back = decision({"base": 1.0}, {"erase": 0.4, "style": 0.3, "compose": 0.3})

    assert Decisions("some", (fallen_back,), 0.0).stated == [("erase", 0.4)]


def test_without_infeasible_scenes_there_is_no_recall() -> None:
    samples = list(draw_samples(48, "test"))
    decided = decide_all(samples, lambda sample: decision({sample.expert: 1.0}))

    report = report_of(samples, decided, None)

    assert (report["infeasible_recall"], report["infeasible_false_alarm"]) == (None, 0.0)
    assert report["gap_recovered"] is None  # there is no gap
    assert report["mutual_information"]["p"] < 0.05
    assert report["ece"] == pytest.approx(0.0)


def test_phrasings_that_do_not_occur_have_no_accuracy() -> None:
    samples = [sample for sample in draw_samples(24, "test") if not sample.held_out_phrasing]
    decided = decide_all(samples, lambda sample: decision({sample.expert: 1.0}))

    report = report_of(samples, decided, None)

    assert (report["accuracy_seen"], report["accuracy_held_out"], report["accuracy_held_out_count"]) == (1.0, None, 0)


def test_infeasible_is_what_is_below_the_routers_own_threshold() -> None:
    samples = list(draw_samples(4, "test"))
    doubt = decision({"erase": 1.0}).model_copy(update={"feasible": 0.6})
    sure = decision({"erase": 1.0}).model_copy(update={"feasible": 0.8})

    def recall(threshold: float) -> tuple[float, float]:
        decided = decide_all(samples, lambda _: sure, threshold=threshold)
        doubted = decide_all(samples, lambda _: doubt, threshold=threshold)
        report = report_of(samples, decided, doubted)
        return report["infeasible_recall"], report["infeasible_false_alarm"]

    assert (recall(0.5), recall(0.7), recall(0.9)) == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))


def test_the_recovered_gap_is_a_share_of_what_routing_can_gain() -> None:
    single, oracle = np.repeat([1.0, 1.0, 0.0, 0.0], 20), np.repeat([1.0, 1.0, 1.0, 0.0], 20)

    assert Compliance(oracle, single, oracle).gap_recovered == 1.0
    assert Compliance(single, single, oracle).gap_recovered == 0.0
    assert Compliance(np.zeros(80), single, oracle).gap_recovered == pytest.approx(-2.0)
    assert Compliance(single, oracle, oracle).gap_recovered is None


def test_a_share_of_a_gap_that_may_be_zero_is_not_reported() -> None:
    single, oracle = np.zeros(100), np.zeros(100)
    single[99:], oracle[98:] = 1, 1

    assert Compliance(oracle, single, oracle).gap_recovered is None


LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


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


def test_recall_keeps_to_the_allowed_false_alarms() -> None:
    doubts = [*([0.1] * 98), 0.9, 0.95]

    assert recall_at(doubts, [0.5, 0.5, 0.05], 0.02) == pytest.approx(2 / 3)
    assert recall_at(doubts, [0.92, 0.5, 0.99], 0.01) == pytest.approx(2 / 3)
    assert recall_at(doubts, [0.92, 0.5, 0.99], 0.0) == pytest.approx(1 / 3)
