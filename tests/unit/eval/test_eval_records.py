"""The records of evaluation: identities, keys, and one thing or its error."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef
from careedit_eval.records import (
    EditRow,
    Measurement,
    MetricSpec,
    Output,
    Sample,
    ScoreRow,
    fingerprint_of,
    score_key,
)

SPEC = {"name": "clip_i", "outputs": (Output(name="clip_i", better="higher"),), "protocol": "magicbrush-v1"}
EDIT = {"edit_key": "k", "sample_id": "a", "kind": "Add", "group": "g", "arm": "A", "seed": 0}


def sample(name: str = "a", **fields) -> Sample:
    given = {"kind": "Add", "instruction": "do it", "source": PictureRef.of(b"source"), "group": "g"}
    return Sample(id=name, **(given | fields))


@pytest.mark.parametrize(
    "fields", [{}, {"picture": "a.png", "picture_sha256": "0", "error": "no"}, {"picture": "a.png"}]
)
def test_an_edit_is_a_picture_with_its_hash_or_an_error(fields):
    with pytest.raises(InputError, match="exactly one"):
        EditRow(**EDIT, **fields)


def test_whole_edits_are_kept():
    assert EditRow(**EDIT, error="The editor gave nothing.").picture is None
    assert EditRow(**EDIT, picture="a.png", picture_sha256="0").error is None


@pytest.mark.parametrize("fields", [{}, {"values": {"l1": 0.5}, "error": "no"}])
def test_a_measurement_is_numbers_or_an_error(fields):
    with pytest.raises(InputError, match="exactly one"):
        Measurement(**fields)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_must_be_an_error(value):
    with pytest.raises(InputError, match="report an error instead"):
        Measurement(values={"l1": value})


def test_a_score_is_held_to_the_same():
    keys = {"score_key": "s", "metric": "l1", "metric_key": "m"}
    with pytest.raises(InputError, match="exactly one"):
        ScoreRow(**EDIT, **keys)
    assert ScoreRow(**EDIT, **keys, values={"l1": 0.0}).values == {"l1": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "clip"},
        {"outputs": (Output(name="clip_i", better="lower"),)},
        {"protocol": "tiny-v1"},
        {"backbone": "open_clip ViT-L-14"},
        {"revision": "1"},
        {"preprocessing": "squash"},
        {"reference": "source"},
        {"text_field": "target_caption"},
        {"dtype": "float16"},
        {"code_version": 2},
        {"settings": {"batch": 1}},
    ],
)
def test_every_part_of_a_metrics_identity_tells_it_apart(change):
    one, other = MetricSpec(**SPEC), MetricSpec(**(SPEC | change))
    assert one != other
    assert one.key != other.key


def test_keys_are_the_same_on_every_day_and_machine():
    assert MetricSpec(**SPEC).key == MetricSpec(**SPEC).key
    assert MetricSpec(**SPEC).key == "0406194f69d07f6a0dcfc59a41c6006cc5b5dc9dece33c99b9ce6e71984ffdfa"
    assert score_key("edit", MetricSpec(**SPEC)) == "bcdc76b8cf6bd0d4c86e38ae56d0203933ff7e2d62365aa5b2298944275ce139"
    assert score_key("edit", MetricSpec(**SPEC)) != score_key("edit", MetricSpec(**SPEC), "rival")


def test_an_input_is_what_an_editor_sees_and_no_more():
    mask = PictureRef.of(b"mask")
    one = sample()
    assert one.input_sha256 == sample("b", kind="Remove", texts={"x": "y"}, mask=mask).input_sha256
    for other in (
        sample(instruction="do more"),
        sample(source=PictureRef.of(b"other")),
        sample(mask=mask, mask_given=True),
        sample(references=(mask,)),
        sample(align="canvas", target=mask),
    ):
        assert other.input_sha256 != one.input_sha256


def test_a_content_is_the_same_wherever_its_pictures_lie(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"source")
    stored = PictureRef(sha256=PictureRef.of(b"source").sha256, uri=str(tmp_path / "a.png"))
    assert sample(source=stored).content_sha256 == sample().content_sha256
    assert sample(kind="Remove").content_sha256 != sample().content_sha256
    assert stored.read() == b"source"


def test_a_fingerprint_is_all_rows_in_any_order():
    rows = [sample("a"), sample("b"), sample("c", instruction="do more")]
    assert fingerprint_of(rows) == fingerprint_of(reversed(rows)) != fingerprint_of(rows[:2])
    with pytest.raises(InputError, match="'a' occurs twice"):
        fingerprint_of([rows[0], rows[0]])


def test_a_picture_that_changed_since_it_was_listed_is_not_read(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(b"other")
    with pytest.raises(BenchmarkError, match="has changed"):
        PictureRef(sha256=PictureRef.of(b"source").sha256, uri=str(file)).read()
    file.unlink()
    with pytest.raises(BenchmarkError, match="cannot be read"):
        PictureRef(sha256=PictureRef.of(b"source").sha256, uri=str(file)).read()


@pytest.mark.parametrize("place", [{}, {"data": b"x", "uri": "y"}])
def test_a_picture_lies_in_one_place(place):
    with pytest.raises(InputError, match="exactly one"):
        PictureRef(sha256="0" * 64, **place)


def test_a_sample_travels_between_processes():
    assert pickle.loads(pickle.dumps(sample(extras={"n": 1}))) == sample(extras={"n": 1})
