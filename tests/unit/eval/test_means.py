"""Means over samples and over kinds, and replies of judges that cannot be read, in every table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from careedit.cli.main import main
from careedit_eval.compare import summarise
from careedit_eval.records import UNREAD, Measurement, MetricSpec, Output
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.results import EditLine, ScoreLine, Table
from scripted_eval import arm, finished, suite

MARK = Output(name="mark", better="higher")


def table(*rows):
    """A table of one set from rows (kind, value or error or None)."""
    edits, scores = [], []
    for number, (kind, found) in enumerate(rows):
        where = ("bench", "a", f"s{number}", 0, kind, f"g{number}")
        edits.append(EditLine(*where, "do it", "k", "p.png", None, None, "", "none", None))
        value, error = (None, found) if isinstance(found, str) else (found, None)
        scores.append(ScoreLine(*where, "mark", None, value, error, ""))
    return Table(edits, scores)


def test_micro_is_over_samples_and_macro_over_kinds():
    whole, *kinds = summarise(table(("add", 1.0), ("add", 2.0), ("add", 3.0), ("tone", 8.0)), {"mark": MARK})
    assert (whole.mean, whole.macro, whole.kinds) == (3.5, 5.0, 2)
    assert [(one.kind, one.mean, one.macro) for one in kinds] == [("add", 2.0, None), ("tone", 8.0, None)]


def test_a_kind_with_only_errors_leaves_no_macro_mean_and_one_without_the_number_is_left_out():
    whole, *_ = summarise(table(("add", 1.0), ("tone", f"{UNREAD}'hm' holds no mark.")), {"mark": MARK})
    assert (whole.mean, whole.macro, whole.errors, whole.unread) == (1.0, None, 1, 1)
    whole, *_ = summarise(
        table(("add", 1.0), ("tone", None), ("text", 3.0), ("text", "The judge is gone.")), {"mark": MARK}
    )
    assert (whole.macro, whole.kinds, whole.errors, whole.unread) == (2.0, 2, 1, 0)


def test_gedits_published_mean_is_the_macro_mean_of_its_types():
    """As calculate_statistics.py: the mean of sqrt(SC x PQ) per type, then of the types, whatever their numbers of rows."""
    rows = {"background_change": (6.0, 7.0), "text_change": (2.0,), "tone_transfer": (4.0, 5.0, 6.0)}
    (whole, *_) = summarise(
        table(*((kind, value) for kind, values in rows.items() for value in values)), {"mark": MARK}
    )
    assert whole.macro == pytest.approx(sum(sum(values) / len(values) for values in rows.values()) / len(rows))
    assert whole.mean == 5.0


def test_a_comparison_shows_the_means_over_kinds_of_the_same_pairs(tmp_path):
    wanted = suite(arm("a"), arm("b", by=60), n=6, metric={"fail": "s001"}, compare=({"a": "a", "b": "b"},))
    run = finished(wanted, tmp_path)
    analysis = analyse(run)
    whole, *kinds = analysis.compared[0].differences
    assert [one.pairs for one in kinds] == [3, 2]
    assert whole.macro_b - whole.macro_a == pytest.approx(sum(one.difference for one in kinds) / 2)
    assert whole.macro_a == pytest.approx(sum(one.mean_a for one in kinds) / 2) and kinds[0].macro_a is None
    assert write_report(run, analysis).read_text("utf-8").count("<small>macro ") == 2


def test_the_page_the_command_and_the_json_show_both_means_and_count_unread_replies(tmp_path, monkeypatch, capsys):
    error = f"{UNREAD}'four' holds no mark from 1 to 5; use a judge that keeps to JSON."
    run = finished(suite(arm("a"), n=6, metric={"fail": "s002", "error": error}), tmp_path)
    analysis = analyse(run)
    write_analysis(run, analysis)
    page = write_report(run, analysis).read_text("utf-8")
    assert "macro, 2 kinds" in page and "1 of them replies that cannot be read" in page
    means = json.loads((run.folder / "comparison.json").read_text())["means"]
    (whole,) = [one for one in means if one["kind"] == "all"]
    by_kind = [one["mean"] for one in means if one["kind"] != "all"]
    assert whole["macro"] == pytest.approx(sum(by_kind) / 2) and whole["unread"] == 1 and whole["n"] == 5
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(json.dumps(json.loads(run.record.suite.model_dump_json())))
    assert main(["eval", "run", "s.yaml"]) == 0
    shown = capsys.readouterr()
    assert ", macro 0." in shown.out and "because the judge's reply cannot be read: 1" in shown.err


class Partly:
    """Two numbers, of which Remove has only one."""

    needs = frozenset()
    spec = MetricSpec(name="partly", outputs=(MARK, Output(name="extra", better="higher")), protocol="test")

    def score(self, batch):
        return [
            Measurement(values={"mark": 1.0}, absent={"extra": "was not asked for"})
            if item.sample.kind == "Remove"
            else Measurement(values={"mark": 1.0, "extra": 2.0})
            for item in batch
        ]


def partly():
    return Partly()


def test_a_number_that_was_not_asked_for_does_not_apply_and_is_no_error(tmp_path):
    run = finished(suite(arm("a"), metrics=({"name": f"{__name__}:partly"},), primary="mark"), tmp_path)
    lines = run.table.column("drawn", "a", "extra").values()
    assert {(line.kind, line.value, line.error) for line in lines} == {("Add", 2.0, None), ("Remove", None, None)}
    analysis = analyse(run)
    (extra,) = [one for one in analysis.means if (one.output, one.kind) == ("extra", "all")]
    assert (extra.n, extra.errors, extra.macro, extra.kinds) == (3, 0, 2.0, 1)
    assert [one.what for one in analysis.not_applicable] == ["extra was not asked for"] and not analysis.errors
    again = finished(suite(arm("a"), metrics=({"name": f"{__name__}:partly"},), primary="mark"), tmp_path, "again")
    assert again.record.measured == 0 and again.table.scores == run.table.scores
