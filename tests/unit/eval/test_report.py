"""The page of a run: what it says, that nothing of the data becomes markup, and that it needs nothing else."""

import json
import re
from pathlib import Path

from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.suite import Gate
from scripted_eval import arm, finished, suite


def page_of(run) -> str:
    analysis = analyse(run)
    write_analysis(run, analysis)
    return write_report(run, analysis).read_text("utf-8")


def test_a_page_shows_verdict_tables_flips_and_errors(tmp_path: Path) -> None:
    wanted = suite(
        arm("a", by=60), arm("b", by=50, fail="s004", spread=40), n=12, rows=("identity", "truth"),
        compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.001}),
    )  # fmt: skip
    text = page_of(finished(wanted, tmp_path))
    assert "FAIL: b against a" in text
    assert "identity (no edit)" in text and "truth (the target itself)" in text
    assert "ValueError: the painter has no paint" in text
    assert text.index('id="b-drawn-s004-0"') < text.index('data-kind="Remove"'), "a failure is the worst loss"
    assert text.count("<article") == text.count("</article>") > 3
    assert (tmp_path / "runs/run/grid.png").is_file()
    gate = json.loads((tmp_path / "runs/run/gate.json").read_text())
    assert gate["passed"] is False and gate["checks"][0]["output"] == "bright"


def test_a_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = page_of(finished(suite(compare=({"a": "a", "b": "b"},)), tmp_path))
    assert re.findall(r'(?:src|href)="(?!data:image/png|#)[^"]*"', text) == []
    assert "http" not in text.replace("http-equiv", "")


def test_words_of_the_data_are_words_on_the_page(tmp_path: Path, monkeypatch) -> None:
    import scripted_eval

    rows = scripted_eval.Drawn.rows

    def nasty(self):
        for sample in rows(self):
            yield sample.model_copy(update={"instruction": "<script>alert(1)</script>", "kind": '"><b>'})

    monkeypatch.setattr(scripted_eval.Drawn, "rows", nasty)
    text = page_of(finished(suite(compare=({"a": "a", "b": "b"},)), tmp_path))
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text and '"><b>' not in text


def test_three_sets_are_ranked_by_their_verdicts(tmp_path: Path) -> None:
    arms = [arm(name, by=50, spread=30 + i, log=None) for i, name in enumerate("abc")]
    run = finished(suite(*arms, n=60, pairwise=({"name": "scripted_eval:sharper"},)), tmp_path)
    analysis = analyse(run)
    (found,) = analysis.strengths.values()
    assert {one.name for one in found} == {"a", "b", "c"} and {one.games for one in found} == {120}
    assert "Ranking by won" in page_of(run)
