"""The gate: what passes, what fails and why, and what cannot be compared."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit_eval.gate import Verdict, freeze, judge_run, load_baseline
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.runs import Run
from careedit_eval.suite import Gate, Part
from scripted_eval import arm, finished, suite


def gated(*arms, gate: dict, **fields):
    arms = arms or (arm("a"), arm("b", by=52))
    return suite(*arms, n=80, compare=({"a": "a", "b": "b"},), gate=Gate(**gate), **fields)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Verdict]:
    """`judged(by, margins)`: the verdict on a set that brightens by `by`, over one that brightens by 50."""

    @cache
    def run_of(by: int) -> Run:
        return finished(
            gated(arm("a"), arm("b", by=by), gate={"margins": {"bright": 1}}), tmp_path_factory.mktemp("runs")
        )

    def judge(by: int, margins: dict[str, float]) -> Verdict:
        run = run_of(by)
        suite = run.record.suite.model_copy(update={"gate": Gate(margins=margins)})
        return judge_run(replace(run, record=run.record.model_copy(update={"suite": suite})))

    return judge


def test_a_set_that_is_not_worse_passes(judged) -> None:
    verdict = judged(52, {"bright": 0.01, "bright/Add": 0.02})
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert verdict.line.startswith(
        "PASS: b may replace a: bright on drawn +0.0070 (+0.0040 to +0.0078), margin -0.01, 40 pictures; "
    )


def test_a_set_that_is_shown_worse_than_the_margin_fails_with_the_number(judged) -> None:
    verdict = judged(40, {"bright": 0.01})
    (check,) = [check for check in verdict.checks if not check.passed]
    assert (check.name, check.output, check.kind, check.bound) == ("margin", "bright", "all", 0.01)
    assert check.value < check.estimate < -0.03 and check.value == check.interval.low
    assert verdict.line.startswith("WORSE: b must not replace a: bright on drawn -0.0355 (")
    document = verdict.document()
    assert (document["schema_version"], document["outcome"], document["passed"]) == (2, "worse", False)
    assert verdict.exit_code == 1 and document["checks"][0]["outcome"] == "worse"
    assert judged(40, {"bright": 0.05}).passed, "the same loss is within a wider margin"


@pytest.mark.parametrize(("by", "n"), [(52, 2), (52, 4), (50, 40), (20, 40)], ids=["one", "two", "equal", "worse"])
def test_too_few_pictures_are_inconclusive_whatever_they_show(tmp_path: Path, by: int, n: int) -> None:
    run = finished(gated(arm("a"), arm("b", by=by), gate={"margins": {"bright": 0.3}}, bench={"n": n}), tmp_path)
    verdict = judge_run(run)
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 3)
    assert f"has {n // 2}" in verdict.line and "needs" in verdict.line


def test_no_difference_passes_only_a_margin_that_a_rare_loss_could_not_exceed(judged) -> None:
    zero, narrow, wide = (judged(50, {"bright": margin}) for margin in (0, 0.02, 0.2))
    assert [verdict.outcome for verdict in (zero, narrow, wide)] == ["inconclusive", "inconclusive", "pass"]
    assert "margin 0: a set that is as good cannot" in zero.line
    (check,) = [check for check in narrow.checks if check.name == "margin"]
    assert check.needed is not None and check.needed > 40
    assert f"needs about {check.needed} pictures (power 80%), has 40" in check.sentence


def test_failed_edits_fail_the_gate_twice_over(tmp_path: Path) -> None:
    run = finished(gated(arm("a"), arm("b", by=60, fail="s003"), gate={"margins": {"bright": 0.01}}), tmp_path)
    verdict = judge_run(run)
    failed = {check.name: check.value for check in verdict.checks if not check.passed}
    assert failed == {"coverage": 79 / 80, "errors": 2 / 160} and verdict.outcome == "worse"


def test_a_frozen_baseline_is_read_back_and_held_against(tmp_path: Path) -> None:
    old = finished(gated(gate={"margins": {"bright": 0.01}}), tmp_path, "old")
    frozen = freeze(old, "a", ["bright"])
    frozen.write(tmp_path / "frozen.json")
    assert load_baseline(tmp_path / "frozen.json") == frozen
    today = suite(arm("b", by=30), n=80, gate=Gate(baseline="frozen.json", set="b", margins={"bright": 0.01}))
    verdict = judge_run(finished(today, tmp_path, "new"))
    assert (verdict.outcome, verdict.baseline, verdict.candidate) == ("worse", "a", "b")


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


TWO = tuple(
    Part(name="scripted_eval:drawn", options={"n": 80, "name": name, "kinds": kinds})
    for name, kinds in (("drawn", ["Add", "Remove"]), ("mixed", ["Move"]))
)


def test_a_margin_of_a_kind_is_judged_where_rows_are_of_that_kind(tmp_path: Path) -> None:
    gate = {"margins": {"bright": 0.1, "bright/Move": 0.1, "bright/Add": 0.1}}
    verdict = judge_run(finished(gated(gate=gate, benchmarks=TWO), tmp_path))
    judged = [(check.benchmark, check.kind) for check in verdict.checks if check.name == "margin"]
    assert judged == [("drawn", "all"), ("drawn", "Add"), ("mixed", "all"), ("mixed", "Move")]
    assert verdict.outcome == "pass"


@pytest.mark.parametrize(
    ("margins", "says"),
    [({}, "no margins"), ({"bright/Ad": 0.1}, "'bright/Ad' is for a kind of edit that no row has; the kinds are Add, Remove")],
)  # fmt: skip
def test_a_gate_that_judges_nothing_is_refused_before_the_first_edit(margins: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_plan(gated(gate={"margins": margins}))


def test_a_gate_without_margins_passes_nothing(judged) -> None:
    with pytest.raises(InputError, match="no margins"):
        judged(52, {})
