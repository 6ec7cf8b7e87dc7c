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
    assert '<p class="verdict worse" id="verdict">WORSE: b must not replace a' in text
    assert text.index('class="margin"') < text.index('class="shot"') < text.index('id="gate"'), "reasons come first"
    assert (
        text.count('class="shot"') == 12
        and "6 at random" in text
        and "The 6 worst for b" in text.replace("for B", "for b")
    )
    assert text.index('<span class="missing">failed') < text.index("The gate"), (
        "the failure is the worst sample in sight"
    )
    assert 'id="errors-by-sample"' in text and "b: ValueError: the painter has no paint" in text
    assert not re.search(r"[-+]0\.0+\b", text)
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


def test_three_sets_are_ranked_by_their_wins_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("careedit_eval.stats.davidson.DRAWS", 40)
    arms = [arm(name, by=50, spread=30 + i, log=None) for i, name in enumerate("abc")]
    run = finished(suite(*arms, n=60, pairwise=({"name": "scripted_eval:sharper"},)), tmp_path)
    analysis = analyse(run)
    assert set(analysis.rankings) == {"won"}, "agreement of the orders is no win"
    (found,) = analysis.rankings.values()
    assert {one.name for one in found.strengths} == {"a", "b", "c"} and {one.games for one in found.strengths} == {120}
    (anchor, *_), others = ([one for one in found.strengths if (one.name == "a") is first] for first in (True, False))
    assert anchor.interval is None and all(one.interval.low < one.strength < one.interval.high for one in others)
    text = write_report(run, analysis).read_text("utf-8")
    assert "Ranking by won" in text and "Ranking by agreed" not in text
    assert [(one.a, one.b) for one in analysis.preferences] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_two_sets_have_their_preference_on_the_page_and_in_the_files(tmp_path: Path, capsys) -> None:
    wanted = suite(
        arm("a", by=50), arm("b", by=49, spread=12), n=80, pairwise=({"name": "scripted_eval:sharper"},),
        compare=({"a": "a", "b": "b"},),
    )  # fmt: skip
    run = finished(wanted, tmp_path)
    text = page_of(run)
    written = json.loads((run.folder / "comparison.json").read_text())
    (found,) = written["comparisons"][0]["preferences"]
    column = [line.value for line in run.table.column("drawn", "b", "won", "a").values()]
    assert found["share"] == sum(column) / 80 and found["interval"][0] < found["share"] < found["interval"][1]
    assert (found["wins"], found["ties"]) == (column.count(1.0), column.count(0.5)) and found["images"] == 40
    assert found["consistency"] == 0.25 and "one answer in both orders in only 25.0%" in found["warning"]
    assert f"b preferred to a: {found['share']:.1%}" in text and "order consistency 25.0%" in text
