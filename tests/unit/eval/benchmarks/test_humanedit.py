"""HumanEdit in its published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from careedit.errors import CareEditError, InputError
from careedit.images import decode_image
from careedit_eval.alignment import load_pictures
from careedit_eval.benchmarks import HumanEdit, HumanEditConfig, load_benchmark
from careedit_eval.benchmarks.humanedit import CORE_COUNTS, COUNTS
from careedit_eval.benchmarks.shards import resolve
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import Benchmark


def open_rows(folder: Path, **options) -> HumanEdit:
    return HumanEdit(HumanEditConfig(path=str(folder), **options))


def test_every_row_of_every_shard_is_a_sample_in_order(humanedit):
    benchmark = open_rows(humanedit)
    samples = list(benchmark.rows())
    assert isinstance(benchmark, Benchmark)
    assert [sample.id for sample in samples] == [f"image-{i}" for i in range(7)]
    assert len(benchmark) == 7
    first = samples[0]
    assert (first.kind, first.instruction) == ("Add", "Put a blue square there, 0.")
    assert first.texts["target_caption"] == "a blue square"
    assert first.texts["target_caption_long"].startswith("Another")
    assert first.group == first.source.sha256


def test_a_sample_travels_without_its_pixels(humanedit):
    sample = next(open_rows(humanedit).rows())
    assert sample.source.data is None
    assert decode_image(sample.source.read()).size == (96, 64)


def test_the_source_is_laid_on_the_targets_canvas_and_the_way_is_known(humanedit):
    pictures = load_pictures(next(open_rows(humanedit).rows()))
    assert pictures.alignment == "cover"
    assert pictures.source.size == pictures.target.size == pictures.mask.size == (64, 64)
    outside = np.asarray(pictures.mask) == 0
    assert np.abs(np.asarray(pictures.source, int) - np.asarray(pictures.target, int))[outside].max() == 0


def test_a_native_source_stays_as_it_is_and_has_no_mask(humanedit):
    sample = next(open_rows(humanedit, align="native", masks="all").rows())
    pictures = load_pictures(sample)
    assert (pictures.source.size, pictures.mask, pictures.alignment) == ((96, 64), None, "none")
    assert not sample.mask_given


def test_the_core_subset_is_what_says_so(humanedit):
    benchmark = open_rows(humanedit, subset="core")
    assert [sample.id for sample in benchmark.rows()] == ["image-0", "image-3", "image-6"]
    assert benchmark.name == "humanedit-core"


@pytest.mark.parametrize(("masks", "given"), [("none", set()), ("needed", {0, 2, 4, 6}), ("all", set(range(7)))])
def test_the_editor_sees_the_masks_that_were_asked_for(humanedit, masks, given):
    samples = list(open_rows(humanedit, masks=masks).rows())
    assert {i for i, sample in enumerate(samples) if sample.mask_given} == given
    assert all(sample.mask is not None for sample in samples)


def test_a_smaller_limit_takes_some_of_a_larger_ones_rows(humanedit):
    few, more = ({s.id for s in open_rows(humanedit, limit=n).rows()} for n in (2, 5))
    assert (len(few), len(more)) == (2, 5)
    assert few < more


def test_the_fingerprint_is_the_rows_and_not_their_place(humanedit, tmp_path, write_shard, human_rows):
    write_shard(tmp_path / "elsewhere.parquet", human_rows(7), group=7)
    assert open_rows(tmp_path / "elsewhere.parquet").fingerprint == open_rows(humanedit).fingerprint


@pytest.mark.parametrize("change", [{"EDITING_INSTRUCTION": "other"}, {"OUTPUT_IMG": Image.new("RGB", (64, 64))}])
def test_any_change_of_a_row_is_another_fingerprint(humanedit, tmp_path, write_shard, human_rows, change):
    rows = human_rows(7)
    rows[5].update(change)
    write_shard(tmp_path / "changed.parquet", rows)
    assert open_rows(tmp_path / "changed.parquet").fingerprint != open_rows(humanedit).fingerprint


def test_rows_that_are_not_those_of_the_stated_fingerprint_are_refused(humanedit):
    found = open_rows(humanedit).fingerprint
    assert len(open_rows(humanedit, fingerprint=found[:16])) == 7
    with pytest.raises(BenchmarkError, match="another benchmark"):
        open_rows(humanedit, fingerprint="0" * 16).rows()


def test_a_missing_column_is_named(tmp_path, write_shard, human_rows):
    write_shard(tmp_path / "a.parquet", [{k: v for k, v in row.items() if k != "MASK_IMG"} for row in human_rows(2)])
    with pytest.raises(BenchmarkError, match="'MASK_IMG'"):
        open_rows(tmp_path).rows()


def test_a_damaged_shard_is_named(humanedit):
    (humanedit / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BenchmarkError, match=r"train-00001-of-00002.parquet.* get it again"):
        open_rows(humanedit).rows()


def test_two_edits_of_one_picture_are_told_apart_wherever_they_stand(tmp_path, write_shard, human_rows):
    rows = human_rows(3)
    rows[2]["IMAGE_ID"] = rows[0]["IMAGE_ID"]
    ids = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        write_shard(tmp_path / name / "rows.parquet", order)
        ids.append([sample.id for sample in open_rows(tmp_path / name).rows()])
    assert ids[0] == ids[1][::-1]
    assert [name.split("~")[0] for name in ids[0]] == ["image-0", "image-1", "image-0"]
    assert len(set(ids[0])) == 3


def test_a_row_that_occurs_twice_is_refused(tmp_path, write_shard, human_rows):
    write_shard(tmp_path / "a.parquet", human_rows(2) + human_rows(1))
    with pytest.raises(BenchmarkError, match=r"'image-0~[0-9a-f]+' occurs twice"):
        open_rows(tmp_path).rows()


@pytest.mark.parametrize("data", [None, b"no picture at all"])
def test_a_row_without_a_readable_picture_stays_a_row(tmp_path, write_shard, human_rows, data):
    rows = human_rows(3)
    rows[1]["INPUT_IMG"] = data
    write_shard(tmp_path / "a.parquet", rows)
    samples = list(open_rows(tmp_path).rows())
    assert len(samples) == 3
    with pytest.raises(CareEditError, match="image"):
        load_pictures(samples[1])


@pytest.mark.parametrize("path", ["nowhere", "s3:no", "hf://too/many/parts/of/nothing@x@y"])
def test_a_place_without_a_data_set_is_a_sentence(path):
    with pytest.raises(BenchmarkError, match=r"[.;]"):
        open_rows(Path(path)).rows()


def test_a_hubs_data_set_is_read_at_a_commit():
    assert resolve("hf://BryanW/HumanEdit", None, "abc") == ("hf://datasets/BryanW/HumanEdit@abc", "abc")
    assert resolve("hf://BryanW/HumanEdit@def/data", None, "abc")[1] == "def"
    assert len(HumanEdit(HumanEditConfig(path="hf://BryanW/HumanEdit")).revision) == 40
    with pytest.raises(BenchmarkError, match="needs a revision"):
        resolve("hf://osunlp/MagicBrush", None)
    with pytest.raises(BenchmarkError, match="differ"):
        resolve("hf://a/b@x", "y")


def test_the_published_counts_add_up():
    assert (sum(COUNTS.values()), sum(CORE_COUNTS.values())) == (5751, 400)


def test_an_unknown_benchmark_or_option_is_refused_by_name(humanedit):
    with pytest.raises(BenchmarkError, match="humanedit, magicbrush"):
        load_benchmark("humanedti")
    with pytest.raises(InputError, match="no field 'subsets'"):
        load_benchmark("humanedit", path=str(humanedit), subsets="core")
