"""Evaluations in a loop: what is made, what is found again, and what a bad row costs."""

import json
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from careedit.errors import InputError
from careedit_eval.pipeline import Evaluation, LocalRunner, Stage, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.results import EDITS_FILE, SCORES_FILE, Table
from careedit_eval.suite import Arm, Part
from scripted_eval import arm, file_of, suite


def run(wanted, folder: Path, **options) -> Evaluation:
    return evaluate(make_plan(wanted), Store(folder), LocalRunner(), **options)


def test_every_wanted_edit_has_its_picture_and_its_numbers(tmp_path: Path) -> None:
    wanted = suite(rows=("identity", "truth"), seeds=(1, 2))
    found = run(wanted, tmp_path)
    assert found.table.arms("drawn") == ("a", "b", "identity", "truth")
    assert len(found.table.edits) == 4 * 6 * 2 and found.edited == 48
    values = {name: [line.value for line in found.table.column("drawn", name, "bright").values()] for name in "ab"}
    assert all(value is not None for column in values.values() for value in column)
    truth = found.table.column("drawn", "truth", "bright").values()
    assert [line.value for line in truth] == [pytest.approx(200 / 255)] * 12
    for line in found.table.edits:
        assert line.picture is not None and (tmp_path / line.picture).is_file()


class Dying(LocalRunner):
    """Runs stages that follow each other; the worker that stores dies once, after it stored and before it passed on."""

    def fits(self, *stages: Stage) -> bool:
        return True

    def run(self, stage: Stage, items: Sequence[Any]) -> Iterator[list[Any]]:
        works, lost = [one.make() for one in stage.chain], False
        for first in range(0, len(items), stage.batch):
            batch: Any = items[first : first + stage.batch]
            for place, one in enumerate(stage.chain):
                if one.on_driver and not lost:
                    works[place](batch)
                    works[place], lost = one.make(), True
                batch = works[place](batch)
            yield batch


def test_what_a_worker_stored_before_it_died_is_measured_and_in_the_table(tmp_path: Path) -> None:
    wanted = suite(workers={"overlap": True, "edit_batch": 2})
    found = evaluate(make_plan(wanted), Store(tmp_path / "store"), Dying())
    whole = run(suite(), tmp_path / "whole")
    assert found.table.edits == whole.table.edits and found.table.scores == whole.table.scores


def test_a_second_run_makes_nothing_and_says_the_same(tmp_path: Path) -> None:
    first, second = run(suite(), tmp_path / "store"), run(suite(), tmp_path / "store")
    assert (second.edited, second.measured) == (0, 0)
    for name, found in (("one", first), ("two", second)):
        (tmp_path / name).mkdir()
        found.table.write(tmp_path / name)
    for file in (EDITS_FILE, SCORES_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert Table.read(tmp_path / "one").scores == first.table.scores


def test_one_bad_picture_is_one_error_row_and_nobody_elses(tmp_path: Path) -> None:
    found = run(suite(bench={"broken": "s003"}, n=8), tmp_path)
    bad = [line for line in found.table.edits if line.error is not None]
    assert {(line.arm, line.sample_id) for line in bad} == {("a", "s003"), ("b", "s003")}
    scores = found.table.column("drawn", "a", "bright")
    assert len(scores) == 8 and "No edit" in str(scores["s003", 0].error)
    assert sum(line.value is not None for line in scores.values()) == 7


def test_what_an_editor_raises_is_its_rows_error_and_is_tried_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    failing = suite(arm("a", fail="s001", log=str(log)))
    found = run(failing, tmp_path / "store")
    assert found.table.edits_of("drawn", "a")["s001", 0].error == "ValueError: the painter has no paint"
    again = run(failing, tmp_path / "store")
    assert again.edited == 1 and log.read_text().splitlines().count("s001") == 2
    assert log.read_text().splitlines().count("s002") == 1


@pytest.mark.parametrize(
    ("editor", "words"),
    [("nothing", "returned no picture"), ("small", "returned 3x3 for a source of 8x8")],
)
def test_an_editor_that_returns_no_picture_of_the_sources_size_has_not_edited(tmp_path, monkeypatch, editor, words):
    from PIL import Image

    import scripted_eval
    from careedit_eval.editors import Edited

    answers = {"nothing": None, "small": Edited(Image.new("RGB", (3, 3)))}
    monkeypatch.setattr(scripted_eval.Painter, "edit", lambda self, work: answers[editor])
    found = run(suite(arm("a"), n=2), tmp_path)
    assert [words in str(line.error) for line in found.table.edits] == [True, True]


def test_a_metrics_error_stands_in_place_of_its_number(tmp_path: Path) -> None:
    found = run(suite(arm("a"), metric={"fail": "s002"}), tmp_path)
    column = found.table.column("drawn", "a", "bright")
    assert (column["s002", 0].value, column["s002", 0].error) == (None, "The light meter is dark.")
    assert sum(line.value is not None for line in column.values()) == 5


def test_a_new_metric_on_old_edits_edits_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(suite(arm("a", log=str(log))), tmp_path / "store")
    edits = log.read_text()
    found = run(suite(arm("a", log=str(log)), metric={"version": 2}), tmp_path / "store")
    assert (found.edited, found.measured, log.read_text()) == (0, 6, edits)


def test_measuring_that_failed_goes_on_without_an_editor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(suite(arm("a", log=str(log))), tmp_path / "store")
    for file in (tmp_path / "store/scores").iterdir():
        file.unlink()
    edits = log.read_text()
    found = run(suite(arm("a", log=str(log))), tmp_path / "store", edit=False)
    assert (found.measured, log.read_text()) == (6, edits)
    assert all(line.value is not None for line in found.table.scores)


def test_without_editing_a_missing_edit_is_an_error_row(tmp_path: Path) -> None:
    found = run(suite(arm("a")), tmp_path, edit=False)
    assert len(found.table.edits) == 6 and all("Nothing was edited" in str(line.error) for line in found.table.edits)


def test_a_turn_goes_on_from_the_picture_before_it_and_falls_with_it(tmp_path: Path) -> None:
    good = run(suite(arm("a", spread=0), bench={"turns": 2}), tmp_path / "good")
    values = good.table.column("drawn", "a", "bright")
    assert [values[f"s{i:03}", 0].value for i in (0, 1)] == [pytest.approx(50 / 255), pytest.approx(100 / 255)]
    bad = run(suite(arm("a", fail="s002"), bench={"turns": 2}), tmp_path / "bad")
    errors = {line.sample_id: line.error for line in bad.table.edits if line.error is not None}
    assert set(errors) == {"s002", "s003"} and "The turn before, s002" in str(errors["s003"])


def test_another_name_for_a_set_edits_nothing(tmp_path: Path) -> None:
    run(suite(arm("a")), tmp_path)
    found = run(suite(arm("renamed")), tmp_path)
    assert (found.edited, found.measured, found.table.arms("drawn")) == (0, 0, ("renamed",))


def test_two_sets_are_judged_against_each_other_both_there(tmp_path: Path) -> None:
    wanted = suite(pairwise=({"name": "scripted_eval:sharper"},))
    found = run(wanted, tmp_path)
    won = found.table.column("drawn", "b", "won", "a")
    assert len(won) == 6 and {line.value for line in won.values()} == {1.0}
    assert run(wanted, tmp_path).measured == 0


def test_a_run_that_was_killed_and_run_again_is_an_undisturbed_one_byte_for_byte(tmp_path: Path) -> None:
    kill, files = tmp_path / "kill", {}
    plan = make_plan(suite(arm("a", kill=str(kill)), arm("b", by=70), n=20))
    for name in ("calm", "killed"):
        store = Store(tmp_path / name / "store")
        if name == "killed":
            kill.touch()
            process = get_context("fork").Process(target=evaluate, args=(plan, store, LocalRunner()))
            process.start()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
            assert 0 < len(store.edits()) < 20
        evaluate(plan, store, LocalRunner()).table.write(tmp_path / name)
        files[name] = [(tmp_path / name / file).read_bytes() for file in (EDITS_FILE, SCORES_FILE)]
    assert files["calm"] == files["killed"]
    assert len(Table.read(tmp_path / "calm").scores) == 40


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"primary": "dark"}, "names 'dark'"),
        ({"compare": ({"a": "a", "b": "c"},)}, "no set 'c'"),
        ({"metrics": ({"name": "scripted_eval:sharper"},), "primary": "won"}, "belongs among"),
        ({"metrics": ({"name": "scripted_eval:nothing"},)}, "scripted_eval:nothing cannot be imported"),
        ({"seeds": (1, 1)}, "twice"),
    ],
)
def test_a_suite_that_cannot_be_run_is_refused_before_the_first_edit(fields: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_plan(suite(**fields))


def test_a_row_whose_target_or_facts_change_is_measured_again_and_not_edited(tmp_path: Path) -> None:
    for name, shade in (("source.png", 40), ("target.png", 40), ("new.png", 91)):
        (tmp_path / name).write_bytes(file_of(shade))
    row = {"id": "1", "instruction": "wait", "source": "source.png", "target": "target.png"}
    wanted = suite(
        Arm(name="same", kind="identity"),
        benchmarks=(Part(name="folder", options={"path": str(tmp_path), "name": "own"}),),
        metrics=(Part(name="l1"), Part(name="no_op")),
        primary="l1",
    )
    said = []
    for changed in ({}, {"target": "new.png"}, {"feasible": False}, {"feasible": False, "kind": "none"}):
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row | changed) + "\n")
        found = run(wanted, tmp_path / "store")
        numbers = {line.output: round(line.value, 9) for line in found.table.scores if line.value is not None}
        said.append((found.edited, found.measured, numbers))
    assert said == [
        (1, 2, {"l1": 0, "no_op_feasible": 1}),
        (0, 2, {"l1": 0.2, "no_op_feasible": 1}),
        (0, 2, {"l1": 0, "no_op_infeasible": 1}),
        (0, 0, {"l1": 0, "no_op_infeasible": 1}),  # the name of a kind is not content
    ]
