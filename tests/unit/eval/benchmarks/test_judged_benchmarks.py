"""GEdit, ImgEdit, KRIS, RISE and AnyEdit in their published layouts, bad rows included."""

from __future__ import annotations

import json

import fsspec
import pytest

from careedit_eval.benchmarks import load_benchmark
from careedit_eval.benchmarks.gedit import KINDS
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef
from published import anybench, draw, gedit_rows, imgedit, kris, listing, picture, rise, write_arrow


def rows_of(name, path, **options):
    return list(load_benchmark(name, path=str(path), **options).rows())


@pytest.fixture(params=["stream", "file", "parquet"])
def gedit(request, tmp_path, write_shard):
    """GEdit-Bench in two shards, as `datasets` saves it, in Arrow's file format, and as parquet."""
    rows = gedit_rows(KINDS)
    for number, part in enumerate((rows[:8], rows[8:])):
        place = tmp_path / f"train/data-0000{number}-of-00002"
        if request.param == "parquet":
            write_shard(place.with_suffix(".parquet"), part)
        else:
            write_arrow(place.with_suffix(".arrow"), part, stream=request.param == "stream")
    return tmp_path


def test_gedit_is_read_as_the_hub_stores_it_and_as_parquet(gedit):
    samples = rows_of("gedit", gedit)
    assert [sample.kind for sample in samples] == list(KINDS)
    assert samples[3].instruction == "do 3"
    assert [rows_of("gedit", gedit, language="cn")[3].instruction, samples[3].id] == ["做 3", "k3-en"]
    assert all(PictureRef.of(sample.source.read()) for sample in samples)
    raw = rows_of("gedit", gedit, picture="input_image_raw")
    assert raw[0].source.sha256 != samples[0].source.sha256
    assert [sample.kind for sample in rows_of("gedit", gedit, intersection=True)] == list(KINDS[1:])


def test_every_layout_of_gedit_is_the_same_benchmark(tmp_path, write_shard):
    rows = gedit_rows(KINDS[:3])
    write_arrow(tmp_path / "a/data.arrow", rows)
    write_arrow(tmp_path / "b/data.arrow", rows, stream=False, batch=1)
    write_shard(tmp_path / "c/data.parquet", rows)
    marks = {load_benchmark("gedit", path=str(tmp_path / name)).fingerprint for name in "abc"}
    assert len(marks) == 1
    options = ({}, {"language": "cn"}, {"intersection": True}, {"picture": "input_image_raw"})
    names = {load_benchmark("gedit", path="x", **one).name for one in options}
    assert names == {"gedit-en", "gedit-cn", "gedit-en-intersection", "gedit-en-raw"}


def test_arrow_files_that_are_not_local_are_read_too(tmp_path):
    write_arrow(tmp_path / "data.arrow", gedit_rows(KINDS[:3]), batch=2)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "data.arrow"), "/gedit/data.arrow")
    here, there = (load_benchmark("gedit", path=path) for path in (str(tmp_path), "memory://gedit"))
    assert there.fingerprint == here.fingerprint
    assert [sample.source.read() for sample in there.rows()] == [sample.source.read() for sample in here.rows()]


def test_a_bad_row_of_gedit_is_named_by_its_shard_and_number(tmp_path):
    rows = gedit_rows(KINDS[:5])[::2]
    rows[0] |= {"key": None}
    rows[1] |= {"instruction_language": "fr"}
    rows[2] |= {"input_image": None}
    rows[3] |= {"Intersection_exist": None}
    write_arrow(tmp_path / "data.arrow", rows)
    found = [sample.trouble for sample in rows_of("gedit", tmp_path, intersection=True)]
    assert found == [
        "data.arrow, row 2: instruction_language is 'fr', not en or cn.",
        "data.arrow, row 3: input_image holds no image.",
        "data.arrow, row 4: Intersection_exist is empty.",
        None,
    ], "the first row is not in the intersection"
    assert rows_of("gedit", tmp_path)[0].trouble == "data.arrow, row 1: key is empty."


def test_a_damaged_arrow_file_and_two_layouts_in_one_folder_are_sentences(tmp_path, write_shard):
    (tmp_path / "data.arrow").write_bytes(b"ARROW1 not really")
    with pytest.raises(BenchmarkError, match=r"'data.arrow' cannot be read as arrow .*get it again"):
        rows_of("gedit", tmp_path)
    write_shard(tmp_path / "data.parquet", gedit_rows(KINDS[:1]))
    with pytest.raises(BenchmarkError, match=r"both \.arrow and \.parquet"):
        rows_of("gedit", tmp_path)


def test_imgedits_basic_suite_has_its_types_and_names_what_is_missing(tmp_path):
    file = imgedit(tmp_path, ["add", "style", "add"])
    samples = rows_of("imgedit", tmp_path)
    assert [(sample.id, sample.kind, sample.instruction) for sample in samples] == [
        ("0", "add", "do 0"), ("1", "style", "do 1"), ("2", "add", "do 2")
    ]  # fmt: skip
    assert rows_of("imgedit", file) == samples
    entries = json.loads(file.read_text())
    entries["0"]["prompt"], entries["1"]["id"], entries["3"] = "", "gone.png", "not an entry"
    del entries["2"]["edit_type"]
    listing(tmp_path / "other/basic_edit.json", entries)
    bad = rows_of("imgedit", tmp_path / "other", images=str(tmp_path))
    assert bad[0].trouble == "basic_edit.json, entry 0: prompt is empty."
    assert bad[1].trouble.startswith("basic_edit.json, entry 1: The id 'gone.png' does not exist")
    assert (bad[2].kind, bad[2].trouble) == ("unknown", None)
    assert bad[3].trouble.startswith("basic_edit.json, entry 3: id is empty.")


def test_imgedits_hard_suite_and_its_sessions_are_read(tmp_path):
    draw(tmp_path / "1.png")
    listing(tmp_path / "UGE_edit.json", {"1": {"id": "1.png", "prompt": "do it"}})
    assert [(s.id, s.kind) for s in rows_of("imgedit", tmp_path, suite="uge")] == [("1", "uge")]
    turns = {"id": "1.png", "turn1": "all green", "turn2": "a fruit", "turn3": "a plate"}
    listing(tmp_path / "sessions/memory.json", {"1": turns, "2": {"id": "1.png", "turn1": "a", "turn3": "c"}})
    samples = rows_of("imgedit", tmp_path / "sessions", suite="multi", images=str(tmp_path))
    assert [(s.id, s.previous, s.scored) for s in samples[:3]] == [
        ("memory-1-1", None, False), ("memory-1-2", "memory-1-1", False), ("memory-1-3", "memory-1-2", True)
    ]  # fmt: skip
    assert {s.kind for s in samples} == {"memory"}
    assert samples[2].texts["instructions"] == "1. all green\n2. a fruit\n3. a plate"
    assert samples[4].problem == "memory.json, entry 2: turn2 is empty.", "a session with a gap"
    assert len(rows_of("imgedit", tmp_path / "sessions", suite="multi", images=str(tmp_path), limit=1)) in (2, 3)


def test_kris_gives_the_editor_all_images_and_the_judge_the_explanation(tmp_path):
    by_id = {sample.id: sample for sample in rows_of("kris", kris(tmp_path))}
    assert by_id["biology-1"].texts == {"explanation": "It grows leaves."}
    assert by_id["biology-1"].extras["needs_knowledge"] and not by_id["color_change-1"].extras["needs_knowledge"]
    assert len(by_id["multi-element_composition-1"].references) == 1
    assert by_id["multi-element_composition-1"].target is None
    frames = by_id["temporal_prediction-1"]
    assert (len(frames.references), frames.extras["frame"]) == (2, 2) and frames.target is not None
    assert {s.kind for s in rows_of("kris", tmp_path, kinds="knowledge")} == {"factual", "conceptual", "procedural"}
    assert "natural science" in {s.kind for s in rows_of("kris", tmp_path, kinds="dimension")}


def test_a_bad_entry_of_kris_is_named_by_its_category(tmp_path):
    kris(tmp_path)
    listing(tmp_path / "physics/annotation.json", {"9": {"ori_img": "9.png", "ins_en": None}, "10": {"ins_en": "x"}})
    listing(tmp_path / "temporal_prediction/annotation.json", {"1": {"ori_img": ["1-1.png", "1-3.png"], "ins_en": "x"}})
    found = {sample.id: sample.trouble for sample in rows_of("kris", tmp_path) if sample.trouble}
    assert set(found) == {"physics-9", "physics-10", "temporal_prediction-1"}
    assert found["physics-9"].startswith("physics/annotation.json, entry 9: ins_en is empty.")
    assert found["physics-10"] == "physics/annotation.json, entry 10: ori_img holds no image."
    assert "does not name 3 frames of 4" in found["temporal_prediction-1"]
    with pytest.raises(BenchmarkError, match="give the folder KRIS_Bench"):
        rows_of("kris", tmp_path / "physics")


def test_rise_has_the_right_result_as_a_text_or_an_image(tmp_path):
    by_id = {sample.id: sample for sample in rows_of("rise", rise(tmp_path))}
    assert by_id["temporal_1"].texts == {"reference": "a rotten {banana}"}
    assert [by_id[name].extras["consistency_free"] for name in ("temporal_1", "temporal_2")] == [False, True]
    assert by_id["causal_1"].extras["reasoning_img"]
    assert by_id["logical_1"].extras["answer_in_words"] and by_id["logical_1"].texts == {"reference": "4"}
    assert by_id["logical_2"].target is not None and by_id["spatial_1"].target is None
    assert {s.kind for s in rows_of("rise", tmp_path, kinds="subtask")} == {"Puzzle Solving"}
    rows = json.loads((tmp_path / "data_total.json").read_text())
    listing(tmp_path / "bad.json", [rows[0] | {"reference": None}, rows[1] | {"index": 7, "category": ""}, rows[2]])
    first, second, _ = rows_of("rise", tmp_path / "bad.json")
    assert first.problem == "bad.json, row 1: it has no reference, reference_txt or reference_img."
    assert (second.id, second.kind, second.problem) == ("7", "unknown", "bad.json, row 2: category is empty.")


def test_anyedit_is_read_from_its_archive_and_from_shards(tmp_path, write_shard):
    samples = rows_of("anyedit", anybench(tmp_path / "archive"))
    assert [sample.kind for sample in samples] == ["add", "add", "visual_bbox", "visual_bbox"]
    assert [len(sample.references) for sample in samples] == [0, 0, 1, 1]
    assert samples[1].texts == {"source_caption": "a scene", "target_caption": "a scene with 1"}
    rows = [
        {"edit_instruction": f"do {i}", "edit_type": "remove", "image_file": picture(i), "edited_file": picture(i + 1),
         "visual_input": None, "output": "less"}
        for i in range(3)
    ]  # fmt: skip
    rows[2]["edit_instruction"] = None
    write_shard(tmp_path / "hub/validation-0.parquet", [row | {"visual_input": "None"} for row in rows])
    write_shard(tmp_path / "hub/train-0.parquet", rows[:1])
    found = rows_of("anyedit", tmp_path / "hub")
    assert [sample.problem for sample in found] == [
        None,
        None,
        "validation-0.parquet, row 3: edit_instruction is empty.",
    ]
    assert found[0].references == () and found[0].texts == {"target_caption": "less"}
    assert len(rows_of("anyedit", tmp_path / "hub", split="train")) == 1


@pytest.mark.parametrize(("name", "file"), [("imgedit", "basic_edit.json"), ("rise", "data_total.json")])
def test_a_listing_that_is_missing_or_damaged_is_a_sentence(name, file, tmp_path):
    with pytest.raises(BenchmarkError, match=rf"There is no {file} .*give the path of the JSON file"):
        rows_of(name, tmp_path)
    for text in ("3", "not json", "[" * 100_000):
        (tmp_path / file).write_text(text)
        with pytest.raises(BenchmarkError, match=r"not a JSON object or list"):
            rows_of(name, tmp_path)
