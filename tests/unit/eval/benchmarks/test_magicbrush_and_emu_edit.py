"""MagicBrush's two layouts and two ways of turns; Emu Edit's true test split."""

from __future__ import annotations

import pytest

from careedit_eval.alignment import load_pictures
from careedit_eval.benchmarks import load_benchmark
from careedit_eval.benchmarks.emu_edit import VALIDATION_ROWS
from careedit_eval.errors import BenchmarkError


def magicbrush(folder, **options):
    return list(load_benchmark("magicbrush", path=str(folder), **options).rows())


def emu(folder, **options):
    return list(load_benchmark("emu_edit", path=str(folder), **options).rows())


def test_single_turn_edits_every_turn_from_its_true_source(archive):
    samples = magicbrush(archive)
    assert [sample.id for sample in samples] == ["242679-1", "242679-2", "368667-1"]
    assert all(sample.scored and sample.previous is None for sample in samples)
    assert samples[1].source.sha256 == samples[0].target.sha256
    assert [sample.group for sample in samples] == ["242679", "242679", "368667"]


def test_multi_turn_edits_on_the_editors_own_picture_and_measures_the_last_turn(archive):
    first, second, only = magicbrush(archive, turns="multi")
    assert (first.previous, second.previous, only.previous) == (None, "242679-1", None)
    assert (first.scored, second.scored, only.scored) == (False, True, True)


def test_captions_are_the_local_ones_of_that_session(archive):
    assert [sample.texts["target_caption"] for sample in magicbrush(archive)] == [
        "what 242679 shows after 1",
        "what 242679 shows after 2",
        "what 368667 shows after 1",
    ]


def test_masks_are_read_by_their_transparency(archive):
    (sample, *_) = magicbrush(archive, masks=True)
    assert sample.mask_given
    assert load_pictures(sample).mask.getbbox() == (8, 8, 24, 24)


def test_a_limit_takes_whole_sessions(archive):
    assert len({sample.group for sample in magicbrush(archive, limit=1)}) == 1


def test_a_turn_whose_file_is_gone_stays_a_row(archive):
    (archive / "images/242679/242679-output2.png").unlink()
    samples = magicbrush(archive)
    assert len(samples) == 3
    assert "'242679-output2.png' does not exist" in samples[1].target.missing


@pytest.mark.parametrize("text", ["[]", "not json", "[" * 100_000])
def test_a_damaged_listing_is_a_sentence(archive, text):
    (archive / "edit_sessions.json").write_text(text)
    with pytest.raises(BenchmarkError, match=r"get the (archive|file) again"):
        magicbrush(archive)


def shard_rows(draw_picture):
    return [
        {
            "img_id": name,
            "turn_index": turn,
            "source_img": draw_picture(seed=turn),
            "mask_img": None if turn == 2 else draw_picture(seed=9),
            "instruction": f"do {turn}",
            "target_img": draw_picture(seed=turn + 1),
        }
        for name, turn in (("7", 2), ("7", 1), ("8", 1))
    ]


def test_shards_are_sorted_by_turn_within_their_session(tmp_path, write_shard, draw_picture):
    write_shard(tmp_path / "data/dev-00000-of-00001.parquet", shard_rows(draw_picture))
    write_shard(tmp_path / "data/train-00000-of-00001.parquet", shard_rows(draw_picture)[2:])
    samples = magicbrush(tmp_path)
    assert [sample.id for sample in samples] == ["7-1", "7-2", "8-1"]
    assert samples[1].mask is None
    assert samples[0].texts == {}
    assert [sample.id for sample in magicbrush(tmp_path, split="train")] == ["8-1"]


def emu_rows(draw_picture, count, **columns):
    return [
        {
            "instruction": f"do {i}",
            "image": draw_picture((16, 16), seed=i // 2),
            "task": "global" if i % 2 else "add",
            "split": "test",
            "idx": i,
            "hash": f"h{i}",
            "input_caption": "A train station in city.",
            "output_caption": "a train  station in city" if i % 3 == 0 else f"a station with {i} trains",
        }
        | columns
        for i in range(count)
    ]


def test_the_test_split_is_the_test_shards(tmp_path, write_shard, draw_picture):
    write_shard(tmp_path / "data/test-0.parquet", emu_rows(draw_picture, 6))
    write_shard(tmp_path / "data/validation-0.parquet", emu_rows(draw_picture, 2))
    samples = emu(tmp_path)
    assert [sample.id for sample in samples[:2]] == ["add-0", "global-1"]
    assert len(samples) == 6
    assert samples[0].group == samples[1].group != samples[2].group
    assert samples[0].target is None


def test_in_the_repository_of_generations_the_test_split_is_called_validation(tmp_path, write_shard, draw_picture):
    generated = {"edited_image": draw_picture((16, 16)), "model": "emu_edit"}
    write_shard(tmp_path / "test-0.parquet", emu_rows(draw_picture, 2, **generated))
    write_shard(tmp_path / "validation-0.parquet", emu_rows(draw_picture, 5, **generated))
    assert len(emu(tmp_path)) == 5


def test_rows_whose_captions_say_the_same_are_dropped_only_where_asked_for(tmp_path, write_shard, draw_picture):
    write_shard(tmp_path / "test-0.parquet", emu_rows(draw_picture, 6))
    assert [s.id for s in emu(tmp_path, captions="changed")] == ["global-1", "add-2", "add-4", "global-5"]
    assert load_benchmark("emu_edit", path="x", captions="changed").name == "emu_edit-changed-captions"


def test_the_validation_split_under_another_name_is_recognised(tmp_path, write_shard, draw_picture):
    write_shard(tmp_path / "test-0.parquet", emu_rows(draw_picture, 1) * VALIDATION_ROWS, group=2000)
    with pytest.raises(BenchmarkError, match="validation split"):
        emu(tmp_path)
