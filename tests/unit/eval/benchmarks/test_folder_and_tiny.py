"""A user's own rows, drawn scenes, and HumanEdit of the tiny world."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet
import pytest

from careedit.images import decode_image
from careedit_eval.alignment import load_pictures
from careedit_eval.benchmarks import load_benchmark
from careedit_eval.benchmarks.humanedit import KINDS, PICTURES, WORDS
from careedit_eval.errors import BenchmarkError
from careedit_tiny import judge, sample_from_dict
from careedit_tiny.evaluation.humanedit import draw
from careedit_tiny.world.store import draw_many, write_samples


def folder_rows(path, **options):
    return list(load_benchmark("folder", path=str(path), **options).rows())


@pytest.fixture
def own(tmp_path, draw_picture, draw_mask):
    draw_picture().save(tmp_path / "a.png")
    draw_picture(seed=1).save(tmp_path / "b.png")
    draw_mask().save(tmp_path / "m.png")
    return tmp_path


def write_lines(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_in_json_lines_are_samples(own):
    write_lines(
        own,
        {"source": "a.png", "instruction": "do it", "target": "b.png", "mask": "m.png", "target_caption": "done"},
        {"source": "a.png", "instruction": "do more", "kind": "Add", "id": "mine"},
    )
    first, second = folder_rows(own, name="ours")
    assert (first.id, first.kind, second.id, second.kind) == ("row-1", "edit", "mine", "Add")
    assert first.texts == {"target_caption": "done"}
    assert first.mask_given
    assert load_pictures(first).mask.getbbox() is not None
    assert (second.target, second.mask, second.group) == (None, None, first.group)


def test_rows_in_csv_and_parquet_are_the_same_samples(own, tmp_path_factory, write_shard):
    (own / "metadata.csv").write_text("before,instruction,target\na.png,do it,b.png\n")
    named = folder_rows(own, columns={"source": "before"})
    shard = tmp_path_factory.mktemp("shards") / "rows.parquet"
    row = {"source": (own / "a.png").read_bytes(), "instruction": "do it", "target": (own / "b.png").read_bytes()}
    write_shard(shard, [row])
    assert [s.content_sha256 for s in named] == [s.content_sha256 for s in folder_rows(shard)]


def test_a_row_may_say_that_its_instruction_does_not_apply(own):
    row = {"source": "a.png", "instruction": "do it"}
    write_lines(own, row, *({**row, "feasible": value} for value in (True, None, False, "perhaps")))
    plain, *others, odd = folder_rows(own)
    assert [sample.extras for sample in others] == [{}, {}, {"feasible": False}] and plain.extras == {}
    assert "the feasible is 'perhaps', which is neither true nor false" in odd.problem
    (own / "metadata.jsonl").unlink()
    (own / "metadata.csv").write_text("source,instruction,feasible\na.png,do it,false\na.png,do it,\n")
    assert [sample.extras for sample in folder_rows(own)] == [{"feasible": False}, {}]


def test_a_picture_that_is_missing_stays_a_row(own):
    write_lines(own, {"source": "gone.png", "instruction": "do it"}, {"source": "a.png", "instruction": "do it"})
    gone, there = folder_rows(own)
    assert "'gone.png'" in gone.source.missing and there.source.missing is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"source": "a.png", "instruction": "x"}\nno json\n', "line 2"),
        ('{"picture": "a.png", "instruction": "x"}\n', "do not tell source"),
        ('{"source": "a.png", "instruction": "x", "id": "1"}\n' * 2, "occurs twice"),
    ],
)
def test_rows_that_cannot_be_read_are_named(own, text, says):
    (own / "metadata.jsonl").write_text(text)
    with pytest.raises(BenchmarkError, match=says):
        folder_rows(own)


@pytest.mark.parametrize("columns", [{"source": "nowhere"}, {"colour": "source"}])
def test_a_column_that_is_not_there_is_named(own, columns):
    write_lines(own, {"source": "a.png", "instruction": "do it"})
    with pytest.raises(BenchmarkError, match=r"nowhere|colour"):
        folder_rows(own, columns=columns)


def test_drawn_scenes_of_any_kind_are_a_benchmark_with_their_truth(tmp_path):
    list(write_samples(draw_many(("style", "reference", "masked"), 3), tmp_path / "scenes"))
    style, reference, masked = folder_rows(tmp_path / "scenes")
    assert (style.kind, reference.kind, masked.kind) == ("style", "reference", "masked")
    assert (len(reference.references), masked.mask_given) == (1, True)
    scene = sample_from_dict(json.loads(style.extras["scene"]))
    assert judge(scene, decode_image(style.target.read())).compliant


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_benchmark("tiny_humanedit", path=str(tmp_path_factory.mktemp("tiny")), rows=30)


def test_the_tiny_world_is_drawn_in_exactly_humanedits_columns(tiny):
    assert len(tiny) == 30
    schema = pyarrow.parquet.read_schema(tiny.file)
    assert tuple(schema.names) == (*WORDS, *PICTURES)
    assert Counter(sample.kind for sample in tiny.rows()) == dict.fromkeys(KINDS, 5)


def test_it_is_read_as_humanedit_too(tiny):
    read = load_benchmark("humanedit", path=str(tiny.file), masks="needed")
    kept = ("id", "kind", "instruction", "source", "target", "mask", "mask_given", "texts", "group")
    for mine, theirs in zip(tiny.rows(), read.rows(), strict=True):
        assert [getattr(mine, name) for name in kept] == [getattr(theirs, name) for name in kept]


def test_the_same_options_draw_the_same_rows_and_others_draw_others(tiny, tmp_path):
    again = load_benchmark("tiny_humanedit", path=str(tmp_path), rows=30)
    other = load_benchmark("tiny_humanedit", path=str(tmp_path), rows=30, seed=1)
    assert again.fingerprint == tiny.fingerprint != other.fingerprint
    assert not {s.id for s in tiny.rows()} & {s.id for s in other.rows()}


def test_fewer_rows_are_the_first_of_more(tiny, tmp_path):
    few = load_benchmark("tiny_humanedit", path=str(tmp_path), rows=12)
    contents = [sample.content_sha256 for sample in tiny.rows()]
    assert [sample.content_sha256 for sample in few.rows()] == contents[:12]


def test_every_target_satisfies_the_oracle_and_every_mask_covers_the_change(tiny):
    for sample in tiny.rows():
        pictures = load_pictures(sample)
        assert judge(sample_from_dict(json.loads(sample.extras["scene"])), pictures.target).compliant, sample.id
        outside = pictures.mask.point(lambda value: 255 - value)
        left = [image.copy() for image in (pictures.source, pictures.target)]
        for image in left:
            image.paste((0, 0, 0), mask=pictures.mask)
        assert outside.getbbox() is not None
        assert sample.mask_given or left[0].tobytes() == left[1].tobytes(), sample.id


def test_rows_that_need_a_mask_are_those_that_speak_of_one(tiny):
    needed = [sample for sample in tiny.rows() if sample.mask_given]
    assert {sample.kind for sample in needed} == {"Add", "Remove", "Replace"}
    assert all(sample.extras["mask_needed"] and sample.id.startswith("masked.") for sample in needed)


def test_a_file_of_another_world_is_refused(tiny, tmp_path, write_shard):
    rows = pyarrow.parquet.read_table(tiny.file).to_pylist()
    for row in rows:
        row.update({name: row[name]["bytes"] for name in PICTURES})
    rows[0]["OUTPUT_IMG"] = rows[1]["OUTPUT_IMG"]
    write_shard(tmp_path / tiny.file.name, rows)
    with pytest.raises(BenchmarkError, match="another version of the tiny world"):
        load_benchmark("tiny_humanedit", path=str(tmp_path), rows=30).rows()


@pytest.mark.parametrize("identity", ["nothing", "add-x", "fly-101000000", "add-999999999"])
def test_an_id_that_names_no_drawing_is_refused(identity):
    with pytest.raises(BenchmarkError, match="names no drawing"):
        draw(identity)
