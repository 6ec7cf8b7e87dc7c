"""Pairs are timed in turn, figures come from the laps, and verdicts from the figures."""

from __future__ import annotations

import json

import pytest
import torch

from careedit.bench import GOALS, Comparison, Goal, Lap, Report, compare

CPU = torch.device("cpu")


def comparison(seconds: list[float], over: list[float]) -> Comparison:
    laps, over_laps = ([Lap(value, 2 * value) for value in values] for values in (seconds, over))
    return Comparison("a", "b", tuple(laps), tuple(over_laps))


def report(**ratios: float) -> Report:
    return Report(
        environment={"threads": 1},
        comparisons={name: comparison([ratio], [1.0]) for name, ratio in ratios.items()},
        shares={"flux": 0.01, "subject": 0.08, "subject_rank_32": 0.16},
    )


def test_the_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians():
    made = comparison([2.0, 4.0, 90.0], [1.0, 4.0, 30.0])

    assert made.ratios == (2.0, 1.0, 3.0)
    assert made.ratio == 2.0  # the medians' own ratio would be 1
    assert made.spread == (1.0, 3.0)
    assert made.cpu_ratio == 2.0


def test_both_sides_warm_up_and_then_take_turns_in_alternating_order():
    calls: list[str] = []
    ticks: list[int] = []

    made = compare(
        "a",
        lambda: calls.append("a"),
        "b",
        lambda: calls.append("b"),
        repeats=3,
        device=CPU,
        done=lambda: ticks.append(1),
    )

    assert calls[2:] == ["a", "b", "b", "a", "a", "b"]
    assert sorted(calls[:2]) == ["a", "b"]
    assert (len(made.laps), len(made.over_laps), len(ticks)) == (3, 3, 6)
    assert all(lap.seconds > 0 for lap in (*made.laps, *made.over_laps))


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("at most", 1.05), 1.05, True),
        (Goal("at most", 1.05), 1.0501, False),
        (Goal("at least", 2.0), 2.0, True),
        (Goal("at least", 2.0), 1.99, False),
    ],
)
def test_a_bound_itself_meets_its_goal_and_a_worse_value_does_not(goal, value, met):
    assert goal.met_by(value) is met


def met(one: Report) -> dict[str, bool]:
    return {name: goal["met"] for name, goal in one.document()["goals"].items()}


def test_verdicts_follow_the_figures():
    good = report(switch_ratio_shared=1.0, mixed_batch_speedup=2.5, loop_over_pipeline=0.9)
    bad = report(switch_ratio_shared=1.2, mixed_batch_speedup=1.5, loop_over_pipeline=1.1)

    assert met(good) == dict.fromkeys(GOALS, True)
    assert met(bad) == {
        "switch_ratio_shared": False,
        "mixed_batch_speedup": False,
        "loop_over_pipeline": False,
        "memory_share_per_expert": True,
    }


def test_a_figure_without_a_goal_has_no_verdict():
    made = report(shared_step_ratio=1.3)

    assert made.figures["shared_step_ratio"] == 1.3
    assert "shared_step_ratio" not in made.document()["goals"]


def test_the_document_holds_the_figures_at_its_top_and_what_they_came_from_below():
    document = json.loads(json.dumps(report(mixed_batch_speedup=2.5).document(), allow_nan=False))

    assert document["version"] == 1
    assert document["mixed_batch_speedup"] == 2.5
    assert document["goals"]["mixed_batch_speedup"] == {"goal": "at least 2", "bound": 2.0, "value": 2.5, "met": True}
    assert document["details"]["mixed_batch_speedup"] == {
        "what": "a",
        "over": "b",
        "seconds": [2.5],
        "over_seconds": [1.0],
        "ratios": [2.5],
        "spread": {"low": 2.5, "high": 2.5},
        "cpu_ratio": 2.5,
        "cpu_seconds": [5.0],
        "over_cpu_seconds": [2.0],
    }
