"""Errors: whose they are, on which samples, and what a metric says where it can say nothing."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from careedit.cli.main import main
from careedit.errors import CareEditError
from careedit_eval.gate import freeze, judge_run
from careedit_eval.gate.check import distinct_percentages
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, one_by_one
from careedit_eval.records import Measurement, MetricSpec, Output
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.suite import Gate, Part
from scripted_eval import arm, finished, sharper, suite


class Picky:
    """Says nothing of some samples, and fails on others; with `arms`, only for those sets."""

    needs = frozenset()

    def __init__(self, silent: Sequence[str] = (), fail: Sequence[str] = (), arms: Sequence[str] = ("a", "b")) -> None:
        self._silent, self._fail, self._arms = silent, fail, arms
        self.spec = MetricSpec(name="picky", outputs=(Output(name="picky", better="higher"),), protocol="test")

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        return one_by_one(batch, self._one)

    def _one(self, item: ScoreItem) -> Measurement:
        if item.sample.id in self._silent:
            raise NotApplicableError("Both captions say the same.")
        if item.sample.id in self._fail and item.edit.arm in self._arms:
            raise CareEditError("The target 'x.png' is damaged.")
        return Measurement(values={"picky": 1.0})


class Undecided:
    """A pairwise judge that cannot be read."""

    needs, spec = frozenset({"rival"}), sharper().spec

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        return [Measurement(error="The judge mumbles.") for _ in batch]


def picky(**options) -> Picky:
    return Picky(**options)


def undecided() -> Undecided:
    return Undecided()


def judged(folder: Path, name: str = "run", *arms, gate: dict | None = None, n: int = 20, **options):
    metrics = (
        {"name": "scripted_eval:brightness"},
        {"name": f"{__name__}:picky", "options": {k: list(v) for k, v in options.items()}},
    )
    wanted = suite(
        *(arms or (arm("a"), arm("b", by=52))), n=n, metrics=metrics, compare=({"a": "a", "b": "b"},),
        gate=Gate(margins={"bright": 0.05}, **(gate or {})),
    )  # fmt: skip
    return finished(wanted, folder, name)


def check_of(run, name: str = "errors"):
    return next(check for check in judge_run(run).checks if check.name == name)


def test_what_fails_for_the_baseline_too_is_not_the_candidates_fault(tmp_path: Path) -> None:
    both = check_of(judged(tmp_path, "both", fail=("s001", "s002")))
    assert (both.value, both.outcome) == (0.0, "pass")
    own = check_of(judged(tmp_path, "own", fail=("s001", "s002"), arms=("b",)))
    assert (own.value, own.outcome) == (2 / 60, "worse")
    assert "2 of 60" in own.sentence and own.sentence.endswith("samples s001, s002")


def test_an_edit_that_both_lack_costs_neither_errors_nor_coverage(tmp_path: Path) -> None:
    broken = {"arms": (), "fail": ()}
    both = judged(tmp_path, "both", arm("a", fail="s003"), arm("b", by=52, fail="s003"), fail=())
    assert {check_of(both, name).outcome for name in ("errors", "coverage")} == {"pass"}
    one = judged(tmp_path, "one", arm("a", fail="s004"), arm("b", by=52, fail="s003"), **broken)
    assert {check_of(one, name).outcome for name in ("errors", "coverage")} == {"worse"}


def test_a_frozen_baseline_remembers_what_failed_beside_its_gated_numbers(tmp_path: Path) -> None:
    old = judged(tmp_path, "old", fail=("s001",))
    frozen = freeze(old, "a", ["bright"])
    frozen.write(tmp_path / "frozen.json")
    assert [row.sample_id for row in frozen.benchmarks[0].rows if row.failed] == ["s001"]
    today = judged(tmp_path, "today", gate={"baseline": "frozen.json", "set": "b"}, fail=("s001",))
    assert check_of(today).outcome == "pass"
    document = json.loads((tmp_path / "frozen.json").read_text())
    for row in document["benchmarks"][0]["rows"]:
        del row["failed"], row["edit_failed"]
    (tmp_path / "frozen.json").write_text(json.dumps(document))  # a file from before these fields
    assert check_of(today).outcome == "worse"


def test_a_judge_of_pairs_that_cannot_be_read_is_no_fault_of_one_side(tmp_path: Path) -> None:
    wanted = suite(
        n=20, pairwise=(Part(name=f"{__name__}:undecided"),), compare=({"a": "a", "b": "b"},),
        gate=Gate(margins={"bright": 0.1}),
    )  # fmt: skip
    assert check_of(finished(wanted, tmp_path)).outcome == "pass"


def test_a_metric_that_says_nothing_of_a_sample_is_neither_a_number_nor_an_error(tmp_path: Path) -> None:
    run = judged(tmp_path, silent=("s001", "s002"))
    analysis = analyse(run)
    column = run.table.column("drawn", "b", "picky")
    assert [(line.value, line.error) for line in column.values()].count((None, None)) == 2
    mean = next(one for one in analysis.means if (one.arm, one.output, one.kind) == ("b", "picky", "all"))
    assert (mean.n, mean.errors) == (18, 0) and not analysis.errors
    (told,) = analysis.not_applicable
    assert (told.what, told.times) == ("picky Both captions say the same.", 4)
    assert told.where == "sets a, b; samples s001, s002"
    write_analysis(run, analysis)
    assert "picky Both captions say the same." in write_report(run, analysis).read_text("utf-8")
    assert json.loads((run.folder / "comparison.json").read_text())["not_applicable"] == {told.what: 4}
    frozen = freeze(run, "a", ["picky"])
    assert sum("picky" in row.values for row in frozen.benchmarks[0].rows) == 18
    again = judged(tmp_path, "again", silent=("s001", "s002"))
    assert again.record.measured == 0, "it is known, and not asked again"


def test_a_primary_number_that_does_not_apply_is_no_flip(tmp_path: Path) -> None:
    metrics = ({"name": f"{__name__}:picky", "options": {"silent": ["s001"]}},)
    run = finished(suite(metrics=metrics, primary="picky", compare=({"a": "a", "b": "b"},)), tmp_path)
    flips = analyse(run).compared[0].flips
    assert (flips.losses, flips.wins) == ((), ())


def test_the_page_and_the_command_name_samples_beside_errors(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = judged(tmp_path, fail=[f"s{i:03}" for i in range(8)], arms=("b",))
    where = "set b; samples s000, s001, s002, s003, s004 and 3 more"
    assert main(["eval", "report", str(run.folder)]) == 0
    page = (run.folder / "report.html").read_text("utf-8")
    assert where in page and "damaged" in page
    known = json.loads((run.folder / "comparison.json").read_text())
    assert known["errors"] == {"The target 'x.png' is damaged.": 8}
    assert known["error_samples"] == {"The target 'x.png' is damaged.": [f"s{i:03}" for i in range(5)]}
    from careedit_eval.cli.app import _show

    _show(run, analyse(run), as_json=False)
    said = capsys.readouterr()
    assert f"8 x error: The target 'x.png' is damaged. ({where})" in said.err
    assert "(n=12)" in said.out and "(n=20)" in said.out, "means of unequal rows show it"


@pytest.mark.parametrize(
    ("value", "bound", "shown"),
    [(0.0104, 0.01, ("1.04%", "1.00%")), (0.5, 0.01, ("50.0%", "1.0%")), (0.01, 0.01, ("1.0%", "1.0%")),
     (0.99996, 1.0, ("99.996%", "100.000%"))],
)  # fmt: skip
def test_shares_have_the_digits_that_show_which_is_larger(value: float, bound: float, shown: tuple[str, str]) -> None:
    assert distinct_percentages(value, bound) == shown
