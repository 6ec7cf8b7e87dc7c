"""A whole run without a model, where every figure can be computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from careedit_tiny import KINDS
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.quality import GOALS, Outcome, Plan, QualityReport
from careedit_tiny.evaluation.quality.page import gallery_rows, write_quality_page

Run = Callable[..., tuple[QualityReport, list[int]]]
PLAN = Plan(n=24, validation_n=12, infeasible_n=4, chains_n=2)
EXPERTS = ("erase", "compose", "style", "identity", "reference")
ROWS = ["identity", "base", *(f"expert:{name}" for name in EXPERTS)]
ROWS += ["best_single", "unified", "random", "rules", "learned_top1", "learned_top2", "oracle"]


@pytest.fixture(scope="module")
def document(report: QualityReport) -> dict[str, Any]:
    return json.loads(json.dumps(report.document, allow_nan=False))


def test_the_document_has_the_promised_keys(document: dict[str, Any]) -> None:
    assert list(document["rows"]) == ROWS
    for row in document["rows"].values():
        assert {"compliance", "ci", "by_kind", "preservation_error", "l1", "nfe", "seconds"} <= set(row)
        assert list(row["by_kind"]) == list(KINDS)
        assert all({"compliance", "ci", "count"} == set(kind) for kind in row["by_kind"].values())
    promised = {"accuracy_seen", "accuracy_held_out", "ece", "gap_recovered", "infeasible_recall"}
    assert promised | {"infeasible_false_alarm"} <= set(document["router"])
    assert set(document["learned_minus_unified"]) == {"points", "ci"}
    assert set(document["goals"]) == set(GOALS)
    assert document["missing"] == {}


def test_every_row_is_what_its_choice_comes_to(document: dict[str, Any]) -> None:
    needed = np.array([sample.expert for sample in PLAN.test])
    seen = np.array([not sample.held_out_phrasing for sample in PLAN.test])
    rows = {name: row["compliance"] for name, row in document["rows"].items()}

    assert (rows["identity"], rows["base"], rows["oracle"], rows["unified"]) == (0.0, 0.0, 1.0, 0.5)
    for name in EXPERTS:
        assert rows[f"expert:{name}"] == pytest.approx((needed == name).mean())
    assert document["rows"]["best_single"]["expert"] == "compose"
    assert rows["best_single"] == rows["expert:compose"]
    assert rows["random"] == pytest.approx(1 / len(EXPERTS))
    learned = seen | (needed == "erase")
    assert rows["learned_top1"] == pytest.approx(learned.mean())
    assert rows["learned_top2"] == pytest.approx((learned | (~seen & (needed == "style"))).mean())
    half = np.arange(len(seen)) % 2 == 0
    assert document["learned_minus_unified"]["points"] == pytest.approx(100 * (learned.mean() - half.mean()))
    gap = (learned.mean() - rows["best_single"]) / (1 - rows["best_single"])
    assert document["router"]["gap_recovered"] == pytest.approx(gap)


def test_evaluations_and_seconds_are_each_rows_own(document: dict[str, Any]) -> None:
    rows = document["rows"]

    assert [rows[name]["nfe"] for name in ("identity", "base", "learned_top1", "learned_top2")] == [0, 8, 8, 16]
    assert rows["base"]["seconds"] == pytest.approx(1.0)  # the fake's batch of b takes b seconds, routing not counted
    assert rows["learned_top1"]["seconds"] >= rows["base"]["seconds"]


def test_the_router_is_reported_on_seen_and_on_held_out_phrasings(document: dict[str, Any]) -> None:
    router, test = document["router"], PLAN.test
    held_out = [sample for sample in test if sample.held_out_phrasing]

    assert (router["router"], router["accuracy_seen"]) == ("transformer", 1.0)
    assert router["accuracy_held_out"] == pytest.approx(
        sum(sample.expert == "erase" for sample in held_out) / len(held_out)
    )
    right = sum(sample.expert == "erase" or not sample.held_out_phrasing for sample in test) / len(test)
    assert router["ece"] == pytest.approx(abs(0.75 - right))  # it always states 0.75
    assert (router["infeasible_recall"], router["infeasible_false_alarm"], router["infeasible_auc"]) == (1.0, 0.0, 1.0)
    assert sum(router["utilisation"].values()) == pytest.approx(1.0)
    assert {kind: sum(row.values()) for kind, row in router["confusion"].items()} == dict.fromkeys(KINDS, 2)
    assert document["rules_router"]["router"] == "rules"


def test_the_sections_after_the_table(document: dict[str, Any]) -> None:
    reference = [sample for sample in PLAN.test if sample.kind == "reference"]
    seen = sum(not sample.held_out_phrasing for sample in reference) / len(reference)

    assert document["reference"]["right_attribute"] == document["reference"]["rows"]["learned_top1"]["right_attribute"]
    assert document["reference"]["right_attribute"] == pytest.approx(seen)
    assert document["identity_edits"]["rows"]["base"]["drifted"] == 0.0  # the source keeps the object as it is
    assert document["infeasible"]["rows"]["unified"]["left_alone"] == 1.0
    assert document["codec"] == {
        **document["codec"],
        "compliance": 1.0,
        "preservation_error": 0.0,
        "l1": 0.0,
    }
    right = [all(not turn.held_out_phrasing or turn.expert == "erase" for turn in chain) for chain in PLAN.chains]
    assert document["chains"]["all_turns_right"] == pytest.approx(np.mean(right))
    assert document["chains"]["by"] == "learned_top1"


def test_each_verdict_follows_from_value_and_bound(document: dict[str, Any]) -> None:
    for name, goal in document["goals"].items():
        if goal["value"] is None:
            assert goal["met"] is None, name
            assert goal["reason"]
            continue
        kept = {
            "at most": goal["value"] <= goal["bound"],
            "at least": goal["value"] >= goal["bound"],
            "above": goal["value"] > goal["bound"],
        }
        assert goal["met"] is kept[GOALS[name].goal.kind], name
    assert document["goals"]["router_accuracy_seen"]["met"] is True


def test_what_a_set_lacks_is_missing_by_name_and_never_made_up(lacking: QualityReport) -> None:
    document = lacking.document

    assert {name for name, row in document["rows"].items() if row is None} == {
        "unified",
        "learned_top1",
        "learned_top2",
    }
    assert list(document["rows"]) == ROWS
    assert set(document["missing"]) == {"unified", "learned_top1", "learned_top2", "router"}
    assert (document["router"], document["learned_minus_unified"]) == (None, None)
    for name in ("compliance", "learned_minus_unified", "router_ece"):
        assert document["goals"][name]["value"] is None
        assert document["goals"][name]["reason"] == "There is no learned router."
    assert document["chains"]["by"] == "rules"


def test_progress_reaches_what_was_planned_and_a_second_run_edits_nothing(run: Run, recorded: Any) -> None:
    second, again = run(cache=Cache(Outcome, recorded.cache))

    assert sum(recorded.progress) == PLAN.edits(len(EXPERTS), unified=True, learned=True)
    assert recorded.batches and again == []
    assert max(recorded.batches) <= 8
    for name, row in recorded.report.document["rows"].items():
        assert {**row, "seconds": 0} == {**second.document["rows"][name], "seconds": 0}


def test_the_page_shows_every_row_goal_and_picture(report: QualityReport, tmp_path: Path) -> None:
    write_quality_page(tmp_path / "page.html", report.document, gallery_rows(report))

    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<article>") == len(KINDS)
    assert page.count('class="card"') == len(GOALS)
    for text in ("learned router, top-1", "unified LoRA", "oracle routing", "By kind", "truth", "mask", "reference"):
        assert text in page
    assert page.count('<svg class="bar') == len(ROWS)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_page_of_a_set_without_learned_router_says_what_is_missing(lacking: QualityReport, tmp_path: Path) -> None:
    write_quality_page(tmp_path / "page.html", lacking.document, gallery_rows(lacking))

    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Missing: unified LoRA." in page
    assert "Missing: learned router, top-1, learned router, top-2, router." in page
    assert "There is no learned router." in page
