"""Invisible watermarks: what they survive, when none is found, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from careedit.bench.watermark import CHANGES, bench_watermark, drawn_pictures, psnr
from careedit.cli import bench as bench_command
from careedit.cli import provenance as command
from careedit.errors import ImageError, InputError
from careedit.provenance import spread
from careedit.provenance.spread import SPREAD
from careedit.provenance.watermark import (
    Marking,
    key_from_environment,
    key_from_file,
    method_of,
    size_note,
)

PAYLOAD = bytes.fromhex("0123456789abcdef")
SURVIVED = ("png", "jpeg_75", "half", "half_and_back", "crop_tenth", "crop_tenth_jpeg_75")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return next(drawn_pictures(512, 1))


@pytest.fixture(scope="module")
def marked(picture: Image.Image) -> Image.Image:
    return SPREAD.embed(picture, PAYLOAD)


def test_a_payload_survives_jpeg_scaling_and_cropping_and_no_unmarked_picture_has_one() -> None:
    report = bench_watermark("spread", sides=(512,), count=2)["sides"]["512"]
    assert {name: report["found"][name] for name in SURVIVED} == dict.fromkeys(SURVIVED, 1.0)
    assert (report["wrong"], report["unmarked_found"]) == (0, 0)
    assert report["psnr_db"]["worst"] > 39


def test_a_scale_that_is_not_known_is_found_in_a_large_picture() -> None:
    large = SPREAD.embed(next(drawn_pictures(1024, 1)), PAYLOAD)
    found = SPREAD.detect(CHANGES["scaled_0.73"](large))
    assert found is not None
    assert (found.payload, found.confidence > 0.99) == (PAYLOAD, True)


@pytest.mark.parametrize("colour", ["white", "black", "#7f7f7f"])
def test_a_flat_picture_carries_a_mark_of_few_levels(colour: str) -> None:
    flat = Image.new("RGB", (400, 384), colour)
    found = SPREAD.embed(flat, PAYLOAD)
    assert np.abs(np.asarray(found, int) - np.asarray(flat, int)).max() <= 3
    assert SPREAD.detect(found) is not None
    assert SPREAD.detect(flat) is None
    grey = SPREAD.embed(flat.convert("L"), PAYLOAD)
    assert (grey.mode, SPREAD.detect(grey) is not None) == ("L", True)


def test_regular_patterns_are_not_taken_for_a_watermark() -> None:
    rows, columns = np.mgrid[:512, :512]
    noise = np.random.default_rng(0).integers(0, 256, (spread.TILE, spread.TILE))
    patterns = {
        "stripes": np.where(columns % 16 < 8, 40, 200),
        "checks": np.where((rows // 32 + columns // 32) % 2, 20, 230),
        "waves": 128 + 90 * np.sin(2 * np.pi * 13 * (rows + columns) / spread.TILE),
        "a tile of noise": np.tile(noise, (4, 4)),
    }
    found = {name: SPREAD.detect(Image.fromarray(one.astype(np.uint8))) for name, one in patterns.items()}
    assert found == dict.fromkeys(patterns)


def test_a_reading_whose_check_fails_is_not_a_watermark(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(spread, "_message", lambda payload: payload + b"\0\0\0")
        forged = SPREAD.embed(picture, PAYLOAD)
        assert SPREAD.detect(forged) is not None
    assert SPREAD.detect(forged) is None


def test_an_edit_of_a_marked_picture_has_the_last_payload_only(picture: Image.Image, marked: Image.Image) -> None:
    edited = marked.copy()
    edited.paste((200, 30, 30), (0, 0, 512, 200))  # the rest keeps the first watermark
    for turn in range(4):
        edited = SPREAD.embed(edited, bytes([turn]) * 8)
    found = SPREAD.detect(CHANGES["jpeg_75"](edited))
    assert found is not None
    assert found.payload == bytes([3]) * 8
    below = (0, 200, 512, 512)
    assert psnr(picture.crop(below), edited.crop(below)) > 34, "earlier marks are taken away, not added up"


def test_equal_inputs_give_equal_pixels_and_the_pattern_never_changes(
    picture: Image.Image, marked: Image.Image
) -> None:
    assert SPREAD.embed(picture, PAYLOAD).tobytes() == marked.tobytes()
    code = spread._code()
    places = np.stack([code.rows, code.columns]).astype(">u2").tobytes()
    angles = np.rint(np.angle(code.anchor) * 1000).astype(">i2").tobytes()
    content = places + angles + code.signs.astype("i1").tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "1615fe9780fbeb5f", (
        "pictures with the old pattern would not be read"
    )


def test_a_picture_that_is_too_small_is_refused_and_its_edit_gets_a_sentence(picture: Image.Image) -> None:
    with pytest.raises(ImageError, match="512x383 pixels; a watermark needs at least 384"):
        SPREAD.embed(picture.crop((0, 0, 512, 383)), PAYLOAD)
    assert size_note("spread", (384, 384)) is None
    assert size_note("spread", (64, 512)) == (
        "The result has no watermark: it is 64x512, and a watermark needs 384 pixels in width and height."
    )
    assert Marking(b"k" * 16).of("edit_1", (64, 64)) is None
    assert SPREAD.detect(Image.new("RGB", (20, 600))) is None


def test_the_payload_needs_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Marking(b"k" * 16), Marking(b"K" * 16)
    assert one.payload("edit_1") == one.payload("edit_1") != one.payload("edit_2")
    assert one.payload("edit_1") != other.payload("edit_1")
    assert "kkkk" not in repr(one)
    (tmp_path / "key").write_bytes(b"k" * 16 + b"\n")
    monkeypatch.setenv("A_KEY", "k" * 16)
    assert key_from_file(tmp_path / "key") == key_from_environment("A_KEY") == b"k" * 16

    (tmp_path / "short").write_bytes(b"short\n")
    for place, sentence in {"short": "has 5 bytes; give 16 to", "none": "none' cannot be read .* openssl rand"}.items():
        with pytest.raises(InputError, match=sentence):
            key_from_file(tmp_path / place)
    with pytest.raises(InputError, match="NO_KEY with the watermark key is not set"):
        key_from_environment("NO_KEY")
    with pytest.raises(InputError, match="method 'other' does not exist; use one of spread"):
        method_of("other")


def test_show_names_the_edit_of_a_picture_that_lost_its_metadata(tmp_path: Path, picture: Image.Image) -> None:
    (tmp_path / "key").write_bytes(b"k" * 16)
    ids = [f"edit_{i:020x}" for i in range(50)]
    (tmp_path / "edits.csv").write_text("\n".join(f"{i},{one},x" for i, one in enumerate(ids)))
    mark = Marking(b"k" * 16).of(ids[7], picture.size)
    assert mark is not None
    mark.embed(picture).resize((256, 256)).save(tmp_path / "small.png")
    picture.save(tmp_path / "plain.png")
    given = ["--watermark", str(tmp_path / "key"), "--edits", str(tmp_path / "edits.csv")]
    shown = CliRunner().invoke(command.app, ["show", str(tmp_path / "small.png"), *given, "--json"])
    found = json.loads(shown.stdout)["watermark"]
    assert (found["method"], found["payload"], found["edit"]) == ("spread", mark.payload.hex(), ids[7])
    text = CliRunner().invoke(command.app, ["show", str(tmp_path / "small.png"), *given]).stdout.splitlines()
    assert text[1].startswith(f"Its pixels have an invisible watermark: payload {mark.payload.hex()}, confidence ")
    assert text[2] == f"The watermark is that of edit {ids[7]}."
    plain = CliRunner().invoke(command.app, ["show", str(tmp_path / "plain.png")])
    assert plain.stdout.splitlines()[1] == "No invisible watermark was found in the pixels."
    with pytest.raises(InputError, match="give both or neither"):
        CliRunner().invoke(command.app, ["show", "a.png", *given[:2]], catch_exceptions=False)


def test_the_benchmark_takes_a_users_pictures_and_refuses_too_few(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "one.png")
    (tmp_path / "readme.txt").write_text("not a picture")
    run = ["watermark", "--sides", "400", "--count", "1", "--pictures", str(tmp_path)]
    ran = CliRunner().invoke(bench_command.app, [*run, "--json"])
    document = json.loads(ran.stdout)
    assert (document["sides"]["400"]["found"]["png"], document["environment"]["source"]) == (1.0, "folder")
    for change, sentence in {
        ("--count", "2"): "has 1 pictures; give at least 2",
        ("--sides", "100"): "from 384 pixels",
        ("--sides", "a,512"): "not a list of numbers",
        ("--method", "x"): "does not exist",
    }.items():
        with pytest.raises(InputError, match=sentence):
            CliRunner().invoke(bench_command.app, [*run, *change], catch_exceptions=False)


def test_a_picture_whose_pixels_are_damaged_is_not_searched_and_shown_all_the_same(
    tmp_path: Path, marked: Image.Image
) -> None:
    buffer = io.BytesIO()
    marked.save(buffer, "PNG")
    damaged = bytearray(buffer.getvalue())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.png").write_bytes(damaged)
    shown = CliRunner().invoke(command.app, ["show", str(tmp_path / "damaged.png")])
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (1, "The picture has no Content Credentials.")
    assert "Its pixels were not searched for a watermark: " in shown.stderr
