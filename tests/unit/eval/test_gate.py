"""The gate: what passes, what fails and why, and what cannot be compared."""

from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit_eval.gate import freeze, judge_run, load_baseline
from careedit_eval.suite import Gate
from scripted_eval import arm, finished, suite


def gated(*arms, gate: dict, **fields):
    arms = arms or (arm("a"), arm("b", by=52))
    return suite(*arms, n=20, compare=({"a": "a", "b": "b"},), gate=Gate(**gate), **fields)


def test_a_set_that_is_not_worse_passes(tmp_path: Path) -> None:
    verdict = judge_run(finished(gated(gate={"margins": {"bright": 0.01, "bright/Add": 0.02}}), tmp_path))
    assert verdict.passed and verdict.line.startswith("PASS: b is not worse than a (4 checks)")


def test_a_set_that_is_worse_by_more_than_the_margin_fails_with_the_number(tmp_path: Path) -> None:
    run = finished(gated(arm("a"), arm("b", by=40), gate={"margins": {"bright": 0.01}}), tmp_path)
    verdict = judge_run(run)
    (check,) = [check for check in verdict.checks if not check.passed]
    assert (check.name, check.output, check.kind, check.bound) == ("margin", "bright", "all", 0.01)
    assert check.value == pytest.approx(-10 / 255, abs=0.005)
    assert verdict.line.startswith("FAIL: b against a: bright on drawn differs by -0.0392")
    assert verdict.document()["passed"] is False


def test_the_same_loss_within_a_wider_margin_passes(tmp_path: Path) -> None:
    assert judge_run(finished(gated(arm("a"), arm("b", by=40), gate={"margins": {"bright": 0.05}}), tmp_path)).passed


def test_too_few_rows_prove_nothing_and_fail(tmp_path: Path) -> None:
    run = finished(gated(arm("a"), arm("b", by=52), gate={"margins": {"bright": 0.01}}, bench={"n": 2}), tmp_path)
    verdict = judge_run(run)
    assert not verdict.passed and "too few to judge" in verdict.line


def test_failed_edits_fail_the_gate_twice_over(tmp_path: Path) -> None:
    run = finished(gated(arm("a"), arm("b", by=60, fail="s003"), gate={"margins": {"bright": 0.01}}), tmp_path)
    failed = {check.name: check.value for check in judge_run(run).checks if not check.passed}
    assert failed == {"coverage": 0.95, "errors": 0.05}


def test_a_frozen_baseline_is_read_back_and_held_against(tmp_path: Path) -> None:
    old = finished(gated(gate={"margins": {"bright": 0.01}}), tmp_path, "old")
    frozen = freeze(old, "a", ["bright"])
    frozen.write(tmp_path / "frozen.json")
    assert load_baseline(tmp_path / "frozen.json") == frozen
    today = suite(arm("b", by=30), n=20, gate=Gate(baseline="frozen.json", set="b", margins={"bright": 0.01}))
    verdict = judge_run(finished(today, tmp_path, "new"))
    assert (verdict.passed, verdict.baseline, verdict.candidate) == (False, "a", "b")


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"metric": {"version": 2}}, "measured in another way"), ({"bench": {"n": 18}}, "other rows")],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, changed: dict, words: str) -> None:
    freeze(finished(gated(gate={"margins": {"bright": 0.01}}), tmp_path, "old"), "a", ["bright"]).write(
        tmp_path / "frozen.json"
    )
    today = gated(gate={"baseline": "frozen.json", "margins": {"bright": 0.01}}, **changed)
    with pytest.raises(InputError, match=words):
        judge_run(finished(today, tmp_path, "new"))


def test_a_suite_without_a_gate_or_a_baseline_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no gate"):
        judge_run(finished(suite(), tmp_path, "one"))
    with pytest.raises(InputError, match="neither a baseline nor a comparison"):
        judge_run(finished(suite(gate=Gate(margins={"bright": 0.1})), tmp_path, "two"))
