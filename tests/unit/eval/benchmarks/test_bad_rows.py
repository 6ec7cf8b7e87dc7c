"""One bad row costs that row, named by its place, and no other: in every layout that is read."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from careedit_eval.benchmarks import load_benchmark
from careedit_eval.errors import BenchmarkError
from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.report import analyse, write_report
from careedit_eval.runs import Run, save_run
from careedit_eval.suite import Arm, Part, Suite


def rows_of(name: str, path: Path, **options):
    return list(load_benchmark(name, path=str(path), **options).rows())


def run_of(name: str, path: Path, folder: Path, metrics=("l1",), **options) -> Run:
    """A whole run: nothing edited (identity) and the target itself (truth)."""
    suite = Suite(
        name="bad",
        benchmarks=(Part(name=name, options={"path": str(path), **options}),),
        sets=(Arm(name="identity", kind="identity"), Arm(name="truth", kind="truth")),
        rows=(),
        metrics=tuple(Part(name=metric) for metric in metrics),
        primary="l1",
    )
    store = Store(folder / "store")
    found = evaluate(make_plan(suite), store, LocalRunner())
    return save_run(folder / "runs/run", found, store=store.folder, suite_folder=folder, trigger="manual", seconds=1.0)


def errors_of(run: Run, arm: str = "identity") -> dict[str, str]:
    return {line.sample_id: line.error for line in run.table.edits if line.arm == arm and line.error is not None}


@pytest.mark.parametrize("column", ["IMAGE_ID", "EDITING_INSTRUCTION", "INPUT_IMG"])
def test_a_null_cell_of_humanedit_is_an_error_row_named_by_shard_and_number(column, tmp_path, write_shard, human_rows):
    rows = human_rows(6)
    rows[4][column] = None
    write_shard(tmp_path / "data/train-0.parquet", rows[:3])
    write_shard(tmp_path / "data/train-1.parquet", rows[3:])
    run = run_of("humanedit", tmp_path / "data", tmp_path)
    ((name, error),) = errors_of(run).items()
    assert name == ("train-1.parquet:2" if column == "IMAGE_ID" else "image-4")
    assert error.startswith(f"train-1.parquet, row 2: {column} ")
    column_of = run.table.column("humanedit-full", "identity", "l1")
    assert sum(line.value is not None for line in column_of.values()) == 5
    (facts,) = run.record.benchmarks
    assert (facts.rows, dict(facts.unusable)) == (6, {name: error})
    page = write_report(run, analyse(run)).read_text("utf-8")
    assert (
        "humanedit-full: rows that cannot be used or lack a picture that they name: 1" in page
        and "train-1.parquet, row 2" in page
    )


def test_a_null_kind_is_the_kind_unknown(tmp_path, write_shard, human_rows):
    rows = human_rows(2)
    rows[1]["EDITING_TYPE"] = None
    write_shard(tmp_path / "a.parquet", rows)
    assert [sample.kind for sample in rows_of("humanedit", tmp_path)] == ["Add", "unknown"]


def test_a_bad_target_or_mask_costs_the_measurements_that_need_it(tmp_path, write_shard, human_rows):
    rows = human_rows(4)
    rows[1]["OUTPUT_IMG"] = None
    rows[2]["OUTPUT_IMG"] = b"no picture"
    rows[3]["MASK_IMG"] = b"no mask"
    write_shard(tmp_path / "a.parquet", rows)
    run = run_of("humanedit", tmp_path / "a.parquet", tmp_path, metrics=("l1", "preservation"))
    assert errors_of(run) == {}
    assert set(errors_of(run, "truth")) == {"image-1", "image-2"}
    for output, bad in (("l1", {1, 2}), ("preservation", {1, 2, 3})):
        lines = run.table.column("humanedit-full", "identity", output).values()
        assert {line.sample_id for line in lines if line.value is None} == {f"image-{i}" for i in bad}, output
    (error,) = {
        line.error for line in run.table.scores
        if (line.arm, line.sample_id, line.output) == ("identity", "image-1", "l1")
    }  # fmt: skip
    assert error == "a.parquet, row 2: OUTPUT_IMG holds no image."


def test_a_mask_that_the_editor_is_shown_and_that_is_bad_fails_the_edit(tmp_path, write_shard, human_rows):
    rows = human_rows(3)
    rows[1]["MASK_IMG"] = b"no mask"
    write_shard(tmp_path / "a.parquet", rows)
    assert set(errors_of(run_of("humanedit", tmp_path / "a.parquet", tmp_path, masks="all"))) == {"image-1"}


@pytest.mark.parametrize("align", ["canvas", "native"])
def test_the_truth_is_itself_whatever_the_sources_size(align, tmp_path, write_shard, human_rows):
    rows = human_rows(2)
    rows[0]["INPUT_IMG"] = Image.effect_noise((96, 50), 90).convert("RGB")  # lies on its target in no known way
    write_shard(tmp_path / "a.parquet", rows)
    run = run_of("humanedit", tmp_path / "a.parquet", tmp_path, align=align)
    assert {line.value for line in run.table.column("humanedit-full", "truth", "l1").values()} == {0.0}


def brush(draw_picture, *turns):
    return [
        {"img_id": name, "turn_index": turn, "source_img": draw_picture(seed=3), "mask_img": draw_picture(seed=9),
         "instruction": f"do {turn}", "target_img": draw_picture(seed=4)}
        for name, turn in turns
    ]  # fmt: skip


def test_a_missing_turn_is_an_error_row_and_later_turns_name_it(tmp_path, write_shard, draw_picture):
    write_shard(tmp_path / "dev.parquet", brush(draw_picture, ("7", 1), ("7", 3), ("8", 1), ("9", 2)))
    run = run_of("magicbrush", tmp_path / "dev.parquet", tmp_path, turns="multi")
    errors = errors_of(run)
    assert set(errors) == {"7-3", "9-2"}, "only last turns are measured"
    assert "Turn 2 of session '7' is missing" in errors["7-3"] and "Turn 1 of session '9'" in errors["9-2"]
    assert set(run.record.benchmarks[0].unusable) == {"7-2", "9-1"}
    assert [line.kind for line in run.table.edits_of("magicbrush-multi", "identity").values()] == [
        "3 turns", "1 turns", "2 turns"
    ]  # fmt: skip


def test_in_single_turn_a_missing_turn_is_one_error_and_the_others_are_edited(tmp_path, write_shard, draw_picture):
    write_shard(tmp_path / "dev.parquet", brush(draw_picture, ("7", 1), ("7", 3)))
    assert set(errors_of(run_of("magicbrush", tmp_path / "dev.parquet", tmp_path))) == {"7-2"}


@pytest.mark.parametrize(
    ("column", "value"), [("img_id", None), ("turn_index", None), ("turn_index", 0), ("turn_index", -1)]
)
def test_a_row_that_does_not_say_whose_turn_it_is_stands_alone(column, value, tmp_path, write_shard, draw_picture):
    rows = brush(draw_picture, ("7", 1), ("8", 1), ("8", 2))
    rows[0][column] = value
    write_shard(tmp_path / "dev.parquet", rows)
    samples = rows_of("magicbrush", tmp_path / "dev.parquet")
    assert {sample.id: sample.problem for sample in samples if sample.problem}.keys() == {"dev.parquet:1-1"}
    (bad,) = (sample.problem for sample in samples if sample.problem)
    assert bad.startswith(f"dev.parquet, row 1: {column} ")


def test_an_unscored_turns_bad_target_does_not_end_its_session(archive, tmp_path):
    (archive / "images/242679/242679-output1.png").unlink()  # the target of turn 1, and the true source of turn 2
    run = run_of("magicbrush", archive, tmp_path, turns="multi")
    assert errors_of(run) == errors_of(run, "truth") == {}
    assert run.table.column("magicbrush-multi", "truth", "l1")["242679-2", 0].value == 0
    assert len(run.table.column("magicbrush-multi", "identity", "l1")) == 2
    assert "242679-output1.png" in run.record.benchmarks[0].unusable["242679-1"]


@pytest.mark.parametrize(("role", "fails"), [("instruction", True), ("input", True), ("output", False)])
def test_a_bad_turn_of_the_archive_costs_its_session_at_most(role, fails, archive, tmp_path):
    listing = json.loads((archive / "edit_sessions.json").read_text())
    listing["368667"][0][role] = None
    listing["nothing"] = None
    (archive / "edit_sessions.json").write_text(json.dumps(listing))
    errors = errors_of(run_of("magicbrush", archive, tmp_path))
    assert set(errors) == ({"368667-1", "nothing-1"} if fails else {"nothing-1"})
    assert all("edit_sessions.json, turn 1 of session" in error for error in errors.values())


@pytest.mark.parametrize(
    ("value", "says"), [(5, "is a int (5), not text"), (["x"], "is a list"), ("a\ud83d", "surrogate")]
)
def test_an_instruction_of_the_archive_that_is_no_text_is_not_edited(value, says, archive):
    listing = json.loads((archive / "edit_sessions.json").read_text())
    listing["368667"][0]["instruction"] = value
    (archive / "edit_sessions.json").write_text(json.dumps(listing))
    problems = {sample.id: sample.problem for sample in rows_of("magicbrush", archive)}
    assert says in problems.pop("368667-1") and not any(problems.values())


def test_a_null_row_of_emu_edit_is_an_error_row(tmp_path, write_shard, draw_picture):
    rows = [
        {"instruction": f"do {i}", "image": draw_picture((16, 16), seed=i), "task": "add", "split": "test", "idx": i,
         "hash": "h", "input_caption": "a", "output_caption": "b"}
        for i in range(4)
    ]  # fmt: skip
    rows[1]["idx"], rows[2]["task"], rows[3]["instruction"] = None, None, None
    write_shard(tmp_path / "test.parquet", rows)
    samples = rows_of("emu_edit", tmp_path / "test.parquet")
    assert [sample.id for sample in samples] == ["add-0", "test.parquet:2", "unknown-2", "add-3"]
    assert [sample.problem for sample in samples] == [
        None, "test.parquet, row 2: idx is empty.", None, "test.parquet, row 4: instruction is empty."
    ]  # fmt: skip


def test_a_set_without_one_usable_row_is_refused_with_the_first_reason(tmp_path, write_shard, human_rows):
    write_shard(tmp_path / "a.parquet", [row | {"IMAGE_ID": ""} for row in human_rows(3)])
    with pytest.raises(BenchmarkError, match=r"None of the 3 rows.*a.parquet, row 1: IMAGE_ID is empty"):
        rows_of("humanedit", tmp_path)


@pytest.fixture
def own(tmp_path, draw_picture):
    for name in ("a", "b"):
        draw_picture(seed=ord(name)).save(tmp_path / f"{name}.png")
    return tmp_path


ROW = {"source": "a.png", "target": "b.png", "instruction": "do it"}
OTHERS = [{"id": "other", **ROW}]


def write_json(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(folder, *rows):
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


def write_parquet(folder, *rows):
    rows = [
        {name: {"bytes": None, "path": cell} if name in ("source", "target") and isinstance(cell, str) else cell
         for name, cell in row.items()} for row in rows
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet")


@pytest.mark.parametrize("write", [write_json, write_csv, write_parquet])
@pytest.mark.parametrize("empty", [math.nan, None], ids=str)
def test_an_empty_cell_is_no_cell_in_every_format(write, empty, own):
    roles = ("target", "mask", "reference", "id", "kind", "group", "source_caption", "target_caption")
    write(own, ROW | dict.fromkeys(roles, empty), *OTHERS)
    first, other = rows_of("folder", own)
    assert (first.id, first.kind, first.target, first.mask, first.references) == ("row-1", "edit", None, None, ())
    assert (first.texts, first.group, first.problem) == ({}, other.group, None)


@pytest.mark.parametrize("write", [write_json, write_csv, write_parquet])
def test_an_empty_instruction_or_source_is_that_rows_error(write, own):
    write(own, ROW | {"id": "x", "instruction": math.nan}, ROW | {"id": "y", "source": math.nan}, *OTHERS)
    run = run_of("folder", own, own)
    errors = errors_of(run)
    assert set(errors) == {"x", "y"}
    assert "the instruction is empty" in errors["x"] and "the source is empty" in errors["y"]
    assert all(place in errors[name] for name, place in (("x", ", "), ("y", ", "))), "they say where"


@pytest.mark.parametrize("write", [write_json, write_parquet])
def test_zero_is_an_id_and_a_float_of_a_column_with_empty_cells_is_the_same_one(write, own):
    write(own, ROW | {"id": 0, "group": 0}, ROW | {"id": 3, "group": 3}, ROW | {"id": math.nan, "group": math.nan})
    assert [(sample.id, sample.group) for sample in rows_of("folder", own)][:2] == [("0", "0"), ("3", "3")]
    assert rows_of("folder", own)[2].id == "row-3"


@pytest.mark.parametrize(("role", "value"), [("id", True), ("group", False), ("kind", [1]), ("instruction", 5.0)])
def test_what_is_no_text_is_that_rows_error(role, value, own):
    write_json(own, ROW | {role: value}, *OTHERS)
    first, other = rows_of("folder", own)
    assert first.problem.startswith(f"metadata.jsonl, line 1: the {role} is a ") and other.problem is None


def test_files_that_are_not_there_are_named_and_their_rows_share_no_group(own):
    names = ("gone.png", "https://example.org/a.png", "", "b.png/c.png", str(own))
    write_json(own, *(ROW | {"source": name} for name in names), *OTHERS)
    samples = rows_of("folder", own)
    assert len({sample.group for sample in samples}) == len(samples)
    errors = errors_of(run_of("folder", own, own))
    assert len(errors) == 5
    for i, name in enumerate(names):
        assert f"metadata.jsonl, line {i + 1}: " in errors[f"row-{i + 1}"] and name in errors[f"row-{i + 1}"]


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_file_that_holds_no_picture_is_named(content, own):
    for name in ("c.png", "d.png"):
        (own / name).write_bytes(content)
    write_json(own, ROW | {"source": "c.png"}, ROW | {"source": "d.png"}, *OTHERS)
    errors = errors_of(run_of("folder", own, own))
    assert "c.png" in errors["row-1"] and "d.png" in errors["row-2"]
    if not content:
        assert len({sample.group for sample in rows_of("folder", own)}) == 3


def test_a_file_is_found_by_its_name_in_another_unicode_form(own):
    (own / "a.png").rename(own / unicodedata.normalize("NFD", "é.png"))
    write_json(own, ROW | {"source": unicodedata.normalize("NFC", "é.png")})
    (sample,) = rows_of("folder", own)
    assert sample.source.missing is None and sample.source.read()[:4] == b"\x89PNG"


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x0c", "\r"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_line_separator_inside_an_instruction_does_not_cut_its_row(mark, name, own):
    words = f"make it{mark}red"
    text = (
        f'source,instruction\r\na.png,"{words}"\r\nb.png,other\r\n'
        if name == "metadata.csv"
        else "".join(
            json.dumps({"source": "a.png", "instruction": w}, ensure_ascii=False) + "\r\n" for w in (words, "o")
        )
    )
    (own / name).write_bytes(text.encode())
    first, _ = rows_of("folder", own)
    assert first.instruction == words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source,instruction\na.png,do it,now\nb.png,x,y\n", r"None of the 2 rows.*line 2: the line has 3 fields where the header has 2"),
        ("source,instruction\na.png,do it\n\nb.png\nc.png,1,2,3\n", r"line 4: the line has 1 fields where the header has 2 \(2 of 3 lines"),
        ('source,instruction\na.png,"do\nit"\n"b\n.png"\n', r"line 4: the line has 1 fields"),
        ("source,instruction\ra.png,do it\r", "end with CR alone"),
        ('source,instruction\na.png,x\nb.png,"never closed\nc.png,y\n', "line 3: unexpected end of data"),
        ('source,instruction\na.png,"never closed\nb.png,"x"\n', "line 2: ',' expected"),
        ("source,instruction\n", "has no rows"),
    ],
)  # fmt: skip
def test_lines_with_another_number_of_fields_are_named_with_their_numbers(text, says, own):
    (own / "metadata.csv").write_bytes(text.encode())
    with pytest.raises(BenchmarkError, match=says):
        rows_of("folder", own)


@pytest.mark.parametrize("column", ["id", "instruction", "kind"])
def test_half_of_a_surrogate_pair_costs_its_row_and_no_other(column, own):
    write_json(own, ROW | {column: "a\ud83d"}, *OTHERS)
    problems = [sample.problem for sample in rows_of("folder", own)]
    assert f"metadata.jsonl, line 1: the {column} is text with half of a surrogate pair" in problems[0]
    assert not any(problems[1:])
