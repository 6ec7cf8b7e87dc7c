"""What is looked up in the tables of scenes: rows, the judge's figures, gains, shares of cost."""

from __future__ import annotations

import math

import pytest

from careedit.errors import CareEditError, InputError
from careedit_tiny.evaluation.filter import GOALS, FilterPlan, SceneTable, page
from careedit_tiny.evaluation.filter.rows import (
    gain_section,
    judge_section,
    row_of,
    rows_of,
    share_section,
    single_row,
)

PLAN = FilterPlan(steps=8, n=4, candidates=(1, 2, 6))
NOISES = 6


def table(i: int, right: list[int], judge: float = 1.0, **more) -> SceneTable:
    """A scene whose judge says `judge` of what is right and 1 - `judge` of what is wrong, at every look."""
    looks = [f"{schedule}@{after}" for schedule, found in PLAN.looks.items() for after in found]
    said = tuple(judge if yes else 1 - judge for yes in right)
    return SceneTable(
        sample=f"remove-{i}",
        kind="remove",
        rows=1,
        right=tuple(bool(yes) for yes in right),
        scores={"judge": dict.fromkeys(looks, said), "oracle": {"8@8": tuple(map(float, right))}},
        consistent=i != 0,
        denoise_seconds=0.5,
        judge_seconds={"judge": 0.25},
        **more,
    )


GOOD = [table(0, [0, 1, 0, 0, 0, 0]), table(1, [1] * 6), table(2, [0] * 6), table(3, [0, 0, 0, 0, 1, 1])]


def test_the_plan_measures_every_strategy_once_and_previews_only_what_is_judged():
    assert PLAN.lasts == (1, 2, 4) and PLAN.most == 6
    named = [(plan.strategy, plan.candidates, plan.preview_steps) for plan in PLAN.settings]
    assert len(set(named)) == len(named)
    assert ("continue", 2, 4) in named and ("halving", 2, 4) not in named, "halving two is continuing one"
    assert ("halving", 6, 4) in named and ("halving", 6, 1) not in named
    assert PLAN.looks == {8: (1, 2, 3, 4, 8), 1: (1,), 2: (2,), 4: (4,)}


@pytest.mark.parametrize(
    "fields", [{"n": 0}, {"seed": -1}, {"candidates": ()}, {"candidates": (17,)}, {"preview_steps": (8,)}, {"steps": 1}]
)
def test_what_cannot_be_measured_is_refused(fields):
    with pytest.raises(InputError):
        FilterPlan(**{"steps": 8, **fields})


def test_rows_are_what_the_strategies_would_have_chosen():
    plans = {(plan.strategy, plan.candidates, plan.preview_steps): plan for plan in PLAN.settings}
    single = single_row(GOOD, 8)
    assert (single.compliance, single.cost, single.seconds.mean()) == (0.25, 8, 4)

    best = row_of(GOOD, plans["halving", 6, 4], "judge")
    assert best.right.tolist() == [1, 1, 0, 1]
    assert best.cost == 6 * 2 + 3 + 2 + 4 and best.judged.tolist() == [11] * 4
    assert best.judge_seconds.tolist() == [11 / 4] * 4 and best.seconds.tolist() == [21 / 2 + 11 / 4] * 4
    assert row_of(GOOD, plans["restart", 6, 2], "judge").cost == 8 + 12
    assert row_of(GOOD, plans["continue", 2, 2], "oracle").right.tolist() == [1, 1, 0, 0]
    assert row_of(GOOD, plans["continue", 6, 2], "random").right.tolist() == [1 / 6, 1, 0, 1 / 3]


def test_a_judge_without_an_answer_leaves_the_first_noise():
    mute = [table(0, [0, 1, 0, 0, 0, 0])]
    silent = {"judge": {key: (None,) * NOISES for key in mute[0].scores["judge"]}, "oracle": mute[0].scores["oracle"]}
    mute = [SceneTable(**{name: getattr(mute[0], name) for name in SceneTable.__slots__} | {"scores": silent})]
    row = next(row for row in rows_of(mute, PLAN) if (row.strategy, row.candidates) == ("continue", 6))
    assert row.chooser == "random"
    plan = next(plan for plan in PLAN.settings if plan.strategy == "continue" and plan.candidates == 6)
    assert row_of(mute, plan, "judge").right.tolist() == [0]


def test_the_judge_is_measured_against_the_oracle():
    said = judge_section(GOOD, PLAN)
    assert said["auc_final"] == said["auc_preview"] == said["auc_preview_within"] == 1.0
    assert said["order_consistency"] == 0.75 and said["pairs"] == 4
    assert said["ece"] == 0 and said["scored"] == 24 and said["unreadable"] == 0
    worst = judge_section([table(i, list(one.right), judge=0.0) for i, one in enumerate(GOOD)], PLAN)
    assert worst["auc_final"] == 0 and worst["ece"] == 1
    assert judge_section(GOOD, PLAN, "clip")["auc_final"] is None


def test_a_perfect_judge_recovers_the_whole_gap_and_a_perverse_one_none():
    gain = gain_section(GOOD, PLAN)
    assert gain["gap_recovered"] == 1.0 and gain["lift_over_single"]["points"] > 0
    assert len(gain["lift_over_single"]["settings"]) == 2
    perverse = [table(i, list(one.right), judge=0.0) for i, one in enumerate(GOOD)]
    assert gain_section(perverse, PLAN)["lift_over_single"]["points"] <= 0
    assert gain_section(GOOD, PLAN, "clip") == {"lift_over_single": None, "gap_recovered": None}


def test_the_cheapest_setting_as_good_as_the_best_restart_of_six_is_found():
    share = share_section(GOOD, PLAN)
    # A perfect judge needs one step: continue with six noises costs 6 + 7, its restart 6 + 8.
    assert share["nfe_share_at_equal_compliance"] == pytest.approx(13 / 14)
    assert share["equal_compliance"]["setting"] == {"strategy": "continue", "candidates": 6, "preview_steps": 1}
    assert share["equal_compliance"]["points"] == 0


def document():
    return {
        "rows": [row.document() for row in rows_of(GOOD, PLAN)],
        "judge": judge_section(GOOD, PLAN),
        **gain_section(GOOD, PLAN),
        **share_section(GOOD, PLAN),
        "clip": {name: judge_section(GOOD, PLAN, name) for name in ("clip", "clip_caption")},
        "missing": {"clip": "No CLIP was given."},
        "goals": {"gap_recovered": {"goal": "at least 0.6", "bound": 0.6, "value": 1.0, "met": True}},
        "environment": {
            **dict.fromkeys(("expert_set", "expert_set_version", "router", "device", "dtype", "torch"), "x"),
            "expert_set_sha256": "0" * 64,
            "judge": {"model": "m"},
            "n": 4,
            "seed": 0,
            "steps": 8,
            "noises": 6,
            "threads": 1,
            "interval": 0.95,
        },
    }


def test_the_page_holds_the_plot_the_table_and_the_findings(tmp_path):
    page.write_filter_page(tmp_path / "page.html", document())
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "data:image/png;base64," in text and "No CLIP was given." in text
    assert text.count("<td>halving</td>") == sum(plan.strategy == "halving" for plan in PLAN.settings)
    assert "100 % of what the oracle could" in text and "93 % of its NFE" in text


def test_without_matplotlib_the_plot_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(CareEditError, match="needs matplotlib; install it with"):
        page.check_plot()


def test_every_goal_can_be_read_where_nothing_was_measured():
    nothing = {
        "judge": judge_section(GOOD, PLAN, "clip"),
        **gain_section(GOOD, PLAN, "clip"),
        **share_section(GOOD, PLAN, "clip"),
    }
    assert all(aim.read(nothing) is None for aim in GOALS.values())
    full = document()
    assert all(math.isfinite(aim.read(full)) for aim in GOALS.values())
