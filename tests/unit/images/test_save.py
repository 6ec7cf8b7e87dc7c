"""Saving: the suffix decides, and a file is whole or not there."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.images import decode_image, save_image

NOISE = Image.fromarray(np.random.default_rng(2).integers(0, 256, (12, 10, 3), np.uint8))


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("PNG", "PNG")])
def test_png_and_webp_keep_every_pixel(suffix, kind, tmp_path):
    path = tmp_path / f"out.{suffix}"
    save_image(NOISE, path)
    with Image.open(path) as written:
        assert written.format == kind
    assert decode_image(path).tobytes() == NOISE.tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg_is_written_at_high_quality(suffix, tmp_path):
    save_image(Image.new("RGB", (16, 16), (200, 30, 90)), str(tmp_path / f"out.{suffix}"))
    seen = np.asarray(decode_image(tmp_path / f"out.{suffix}")).astype(int)
    assert np.abs(seen - (200, 30, 90)).max() <= 3


def test_a_mask_can_be_saved(tmp_path):
    save_image(Image.new("L", (4, 4), 255), tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as written:
        assert (written.mode, written.getextrema()) == ("L", (255, 255))


def test_metadata_is_not_written(tmp_path):
    image = NOISE.copy()
    image.info = {"exif": b"Exif\x00\x00private", "icc_profile": b"profile", "comment": b"secret"}
    for name in ("out.png", "out.jpg", "out.webp"):
        save_image(image, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert not any(word in data for word in (b"private", b"profile", b"secret"))


@pytest.mark.parametrize("name", ["out", "out.gif", "out.txt", ".png"])
def test_an_unknown_suffix_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"use \.png, \.jpg or \.webp\.$"):
        save_image(NOISE, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"folder '.*nowhere' of the output does not exist; create it first\.$"):
        save_image(NOISE, tmp_path / "nowhere" / "out.png")


def test_a_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / "out.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        save_image(NOISE, tmp_path / "out.png")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save_image(NOISE, tmp_path / "out.png")
    before = (tmp_path / "out.png").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("careedit.images.save.os.replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_image(Image.new("RGB", (3, 3)), tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_a_picture_too_large_for_its_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        save_image(Image.new("L", (16_500, 1)), tmp_path / "wide.webp")
    assert list(tmp_path.iterdir()) == []
