"""The first screen of the page: sentence, advice, forest plots, six random and six worst samples; the tables below it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from careedit_eval.compare import summarise
from careedit_eval.compare.words import numbers
from careedit_eval.gate import Check, Verdict, advice_of
from careedit_eval.report import analyse, write_report
from careedit_eval.report.analysis import document
from careedit_eval.report.decision import WIDTH, decision_of
from careedit_eval.report.routing import choices_of, switches_of, usage_of
from careedit_eval.report.tables import means_table
from careedit_eval.results import Table
from careedit_eval.runs import Run
from careedit_eval.suite import Gate
from scripted_eval import arm, finished, suite


def decided(run: Run):
    return decision_of(run, analyse(run))


def compared(folder: Path, *, better: str = "higher", by: int = 55, n: int = 64, **fields) -> Run:
    gate = Gate(margins={"bright": 0.01, "bright/Add": 0.02})
    wanted = suite(
        arm("a"), arm("b", by=by), n=n, metric={"better": better}, compare=({"a": "a", "b": "b"},),
        **{"gate": gate, **fields},
    )  # fmt: skip
    return finished(wanted, folder)


def test_a_forest_plot_has_all_kinds_the_kinds_and_the_margin_on_one_scale(tmp_path: Path) -> None:
    found = decided(compared(tmp_path))
    assert found.sentence.startswith("PASS: b may replace a: bright on drawn +0.0") and "margin -0.01" in found.sentence
    whole, of_kind = found.forests
    assert [line.label for line in whole.whiskers] == [
        "all",
        *sorted(("Add", "Remove"), key=[line.label for line in whole.whiskers].index),
    ]
    assert [line.label for line in of_kind.whiskers] == ["Add"] and of_kind.margin[1] == "margin −0.02"
    assert whole.whiskers[0].outcome == "pass" and whole.whiskers[0].images == 32
    low, middle, high = whole.whiskers[0].ends
    assert 0 < whole.margin[0] < WIDTH / 2 < low < middle < high < WIDTH, "better is right, the margin left of 0"


def test_right_is_better_also_where_lower_numbers_are(tmp_path: Path) -> None:
    (whole, _) = decided(compared(tmp_path, better="lower", by=70)).forests
    low, middle, high = whole.whiskers[0].ends
    assert low < middle < high < WIDTH / 2 and whole.margin[0] < WIDTH / 2 and whole.margin[1] == "margin +0.01"
    assert whole.whiskers[0].outcome == "worse" and whole.whiskers[0].said.startswith("+0.0")


def test_too_few_pictures_say_how_many_are_needed_and_what_to_do(tmp_path: Path) -> None:
    found = decided(compared(tmp_path, n=12))
    assert found.outcome == "inconclusive" and "needs about 30 pictures (power 80%), has 6" in found.sentence
    assert found.advice == "Give the suite 30 pictures or more."


def check(outcome: str, **fields) -> Check:
    return Check(fields.pop("name", "margin"), "drawn", "bright", "all", None, 0.1, outcome, "", **fields)


@pytest.mark.parametrize(
    ("checks", "narrowed", "said"),
    [
        ([check("pass")], None, "`careedit eval promote` makes b the champion."),
        ([check("pass")], "it was made with --limit 4", "Run the whole suite first (it was made with --limit 4)."),
        ([check("worse")], None, "Keep a. The worst"),
        ([check("inconclusive", images=40, needed=30)], None, "b may be worse by more than its margin."),
        ([check("inconclusive", images=4, needed=1200)], "it was made with --limit 4", "Then give the suite 1,200 pictures"),
        ([check("inconclusive", name="slowdown")], None, "Raise timing.samples"),
    ],
)  # fmt: skip
def test_every_outcome_says_what_to_do_next(checks, narrowed, said) -> None:
    assert said in advice_of(Verdict("b", "a", tuple(checks)), narrowed)


def test_sets_that_tie_still_have_six_random_and_six_worst_samples(tmp_path: Path) -> None:
    wanted = suite(arm("a", spread=0), arm("b", spread=0), n=40, compare=({"a": "a", "b": "b"},))
    found, again = (decided(finished(wanted, tmp_path, name)) for name in ("one", "two"))
    assert len(found.random) == len(set(found.random)) == 6 and len(found.worst) == 6
    assert found.random == again.random, "the seed chooses the same ones every night"
    assert found.outcome is None and found.sentence.startswith("b against a: bright on drawn 0.0000")


def test_the_worst_samples_are_failures_then_the_largest_losses(tmp_path: Path) -> None:
    wanted = suite(arm("a", by=60), arm("b", by=50, spread=40, fail="s004"), n=12, compare=({"a": "a", "b": "b"},))
    worst = decided(finished(wanted, tmp_path)).worst
    assert worst[0].sample_id == "s004" and worst[0].b is None
    assert [flip.gain for flip in worst[1:]] == sorted(flip.gain for flip in worst[1:])


def test_a_run_that_compares_nothing_says_so(tmp_path: Path) -> None:
    found = decided(finished(suite(arm("a")), tmp_path))
    assert found.sentence == "Nothing is compared: the run has no second set next to a." and len(found.worst) == 6


def test_numbers_of_a_row_have_the_digits_that_tell_them_apart() -> None:
    assert numbers([0.01912, 0.01934, None]) == ["0.0191", "0.0193", "–"]
    assert numbers([0.5, 0.50001]) == ["0.50000", "0.50001"]
    assert numbers([1 / 3, 1 / 3 + 1e-9]) == ["0.333", "0.333"], "rounding is not a difference"
    assert numbers([8, 8.0]) == ["8", "8"] and numbers([-1e-9, 0.5]) == ["0.000", "0.500"]


def test_tables_have_sets_as_columns_with_micro_and_macro_means(tmp_path: Path) -> None:
    run = compared(tmp_path, n=7, rows=("truth", "identity"))
    table = means_table(run, summarise(run.table, run.record.outputs), "drawn")
    assert [name for name, _ in table.sets] == ["a", "b", "identity", "truth"] and table.owned == [0, 1]
    (bright,) = table.numbers
    assert [row.label for row in bright.whole] == ["micro", "macro, 2 kinds"] and bright.whole[0].n == 7
    assert [row.label for row in bright.kinds] == ["Add", "Remove"]
    micro, macro = ([cell.mean for cell in row.cells] for row in bright.whole)
    assert len({*micro}) == 4 and micro != macro


def test_routing_shows_who_chose_whom_and_where_the_sets_differ(tmp_path: Path) -> None:
    run = compared(tmp_path, n=8)
    choices = {"a": ["erase 1.00"] * 8, "b": ["style 0.30, erase 0.70"] * 5 + ["style 1.00"] * 2 + [""]}
    edits = [
        replace(line, experts=choices[line.arm][int(line.sample_id[1:])])
        for line in run.table.edits
        if line.arm in choices
    ]
    routed = Run(run.folder, run.record, Table(edits, run.table.scores))
    usage = usage_of(routed.table, "drawn", "b")
    assert usage.experts == ("erase", "style") and usage.rows[0] == ("all", (5, 2))
    assert dict(usage.rows[1:]) == {"Add": (3, 1), "Remove": (2, 1)}
    (found,) = switches_of(routed, "a", "b")
    assert (found.same, found.edits) == (5, 7)
    (switch,) = found.found
    assert (switch.a, switch.b, switch.edits, switch.kinds) == ("erase", "style", 2, "Add 1, Remove 1")
    assert switch.before < switch.after and switch.samples == ("s005", "s006")


def test_a_choice_is_worth_what_it_says_about_the_kind_and_how_near_it_comes_to_the_oracle(tmp_path: Path) -> None:
    run = compared(tmp_path, n=40)
    edits = [
        replace(line, experts=f"{'erase' if line.kind == 'Remove' or line.arm == 'a' else 'compose'} 1.00")
        for line in run.table.edits
    ]
    # B has 0.4 of the way from the best single expert to the oracle.
    own = [line for line in run.table.scores if line.arm == "b"]
    rows = {"best_single": -0.02, "oracle": 0.03}
    further = [replace(line, arm=row, value=line.value + by) for row, by in rows.items() for line in own]
    routed = Run(run.folder, run.record, Table(edits, [*run.table.scores, *further]))
    a, b = choices_of(routed)
    assert (a.arm, b.arm, b.samples) == ("a", "b", 40)
    assert a.information.value == 0 and a.information.p == 1
    assert b.information.value == pytest.approx(math.log(2)) and b.information.p < 0.01 < b.information.null_high < 0.3
    assert (b.regret, b.recovered) == (pytest.approx(0.03), pytest.approx(0.4))
    assert b.regret_interval is not None and 0.02 < b.regret_interval.low < 0.03 < b.regret_interval.high
    assert [one.regret for one in choices_of(run)] == [], "without experts nothing was chosen"
    assert document(analyse(routed))["routing"][1]["recovered"] == pytest.approx(0.4)
    marked = run.record.model_copy(
        update={"metrics": tuple(spec.model_copy(update={"weights": "unknown"}) for spec in run.record.metrics)}
    )
    shown = Run(run.folder, marked, routed.table)
    page = write_report(shown, analyse(shown), tmp_path / "page.html").read_text("utf-8")
    assert '<td>b</td><td class="number">40</td><td class="number">0.693</td>' in page and "0.400</td></tr>" in page
    assert "Weights that are not known as those that the protocol names: bright." in page
