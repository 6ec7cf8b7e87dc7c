"""Decisions and what is told of them."""

from __future__ import annotations

import pytest

from careedit.records import RoutingDecision
from careedit_tiny.bench.quality.outcomes import Outcome
from careedit_tiny.bench.quality.routed import Decisions, decide_all, router_report
from careedit_tiny.bench.quality.rows import row_of
from careedit_tiny.world.samples import draw_samples

COMPETENCES = {name: name for name in ("erase", "compose", "style", "identity", "reference", "base")}


def decision(weights: dict[str, float], probabilities: dict[str, float] | None = None) -> RoutingDecision:
    return RoutingDecision(weights=weights, probabilities=probabilities or {}, router="some", reason="Because.")


def test_the_first_expert_is_the_one_of_most_weight() -> None:
    decided = Decisions("some", (decision({"style": 0.3, "erase": 0.7}),), 0.0)

    assert decided.first == ["erase"]
    assert decided.stated == [("erase", 0.7)]


def test_a_router_that_falls_back_to_the_base_is_calibrated_by_what_it_thought() -> None:
    fallen_back = decision({"base": 1.0}, {"erase": 0.4, "style": 0.3, "compose": 0.3})

    assert Decisions("some", (fallen_back,), 0.0).stated == [("erase", 0.4)]


def test_without_infeasible_scenes_nothing_is_said_of_recall() -> None:
    samples = list(draw_samples(48, "test"))
    decided = decide_all(samples, lambda sample: decision({sample.expert: 1.0}))
    row = row_of([Outcome(True, True, 0.0, 0.0, 0.0)] * 48)

    report = router_report(samples, decided, None, COMPETENCES, {"own": row, "best_single": row, "oracle": row})

    assert (report["infeasible_recall"], report["infeasible_false_alarm"]) == (None, 0.0)
    assert report["gap_recovered"] is None  # there is no gap
    assert report["mutual_information"]["p"] < 0.05
    assert report["ece"] == pytest.approx(0.0)


def test_phrasings_that_do_not_occur_have_no_accuracy() -> None:
    samples = [sample for sample in draw_samples(24, "test") if not sample.held_out_phrasing]
    decided = decide_all(samples, lambda sample: decision({sample.expert: 1.0}))
    row = row_of([Outcome(True, True, 0.0, 0.0, 0.0)] * len(samples))

    report = router_report(samples, decided, None, COMPETENCES, {"own": row, "best_single": row, "oracle": row})

    assert (report["accuracy_seen"], report["accuracy_held_out"], report["accuracy_held_out_count"]) == (1.0, None, 0)


def test_infeasible_is_what_lies_below_the_routers_own_threshold() -> None:
    samples = list(draw_samples(4, "test"))
    doubt = decision({"erase": 1.0}).model_copy(update={"feasible": 0.6})
    sure = decision({"erase": 1.0}).model_copy(update={"feasible": 0.8})
    row = row_of([Outcome(True, True, 0.0, 0.0, 0.0)] * 4)
    rows = {"own": row, "best_single": row, "oracle": row}

    def recall(threshold: float) -> tuple[float, float]:
        decided = decide_all(samples, lambda _: sure, threshold=threshold)
        doubted = decide_all(samples, lambda _: doubt, threshold=threshold)
        report = router_report(samples, decided, doubted, COMPETENCES, rows)
        return report["infeasible_recall"], report["infeasible_false_alarm"]

    assert (recall(0.5), recall(0.7), recall(0.9)) == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
