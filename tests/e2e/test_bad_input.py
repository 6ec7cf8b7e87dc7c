"""Bad input, as a user meets it: one sentence, exit code 2, no stack trace, nothing written; odd input is accepted."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from careedit.cli.main import main
from careedit.experts import load_expert_set
from careedit.images import decode_image

COMMAND = Path(sys.executable).with_name("careedit")
REMOVE = "remove the red circle"


@pytest.fixture
def folder(tmp_path, monkeypatch, draw_picture):
    """The current folder, with a good source in it."""
    monkeypatch.chdir(tmp_path)
    draw_picture((40, 30)).save("photo.png")
    return tmp_path


@pytest.fixture
def bad_set(untrained_set, folder):
    """A copy of the untrained set, to be spoilt."""
    return shutil.copytree(untrained_set, folder / "set")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(capsys, folder):
    """Runs `careedit ...`, holds it to the rules for bad input, and returns the sentence."""

    def run(*arguments: str) -> str:
        before = contents(folder)
        capsys.readouterr()
        code = main(arguments)
        shown = capsys.readouterr()
        assert (code, shown.out) == (2, "")
        assert contents(folder) == before
        return sentence(shown.err)

    return run


def sentence(err: str) -> str:
    assert err.startswith("error: ") and err.endswith(".\n")
    assert len(err.splitlines()) == 1 and len(err) < 500 and "Traceback" not in err
    return err


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes do not have."""
    data = encoded(Image.new("RGB", (8, 8)))
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return data[:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def animated() -> bytes:
    frames = [Image.new("RGB", (8, 8), (80 * i, 0, 0)) for i in range(3)]
    return encoded(frames[0], save_all=True, append_images=frames[1:], duration=50)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))

FILES: dict[str, tuple[bytes, str]] = {
    "truncated.png": (encoded(NOISE)[:1000], "is damaged or cut off"),
    "truncated.jpg": (encoded(NOISE, "JPEG")[:700], "is damaged or cut off"),
    "truncated.webp": (encoded(NOISE, "WEBP")[:300], "is damaged or cut off"),
    "animated.png": (animated(), "is animated (3 frames); give a still picture"),
    "bomb.png": (claiming(60_000, 60_000), "is 60000x60000 pixels; a side may have at most 16,384"),
    "wide.png": (claiming(12_000, 12_000), "144,000,000 pixels; the limit is 50,000,000"),
    "flat.png": (claiming(0, 5), "has no pixels (0x5)"),
    "strip.png": (claiming(1000, 10), "the longer side may be at most 16 times the shorter"),
    "empty.png": (b"", "is empty (0 bytes)"),
    "text.png": (b"hello, I am no picture", "is not a picture that is recognised; give PNG, JPEG or WebP"),
    "really.png": (encoded(NOISE, "GIF"), "is a GIF file; give PNG, JPEG or WebP"),
    "page.png": (b"%PDF-1.7 and so on", "is a PDF file"),
}


@pytest.mark.parametrize("place", ["source", "mask", "reference"])
@pytest.mark.parametrize("name", FILES)
def test_a_bad_picture_is_refused_wherever_it_is_given(name, place, folder, refused):
    data, said = FILES[name]
    Path(name).write_bytes(data)
    if place == "source":
        text = refused("edit", name, REMOVE)
    else:
        text = refused("edit", "photo.png", REMOVE, f"--{place}", name)
    assert said in text and name in text


def test_a_missing_picture_and_a_folder_without_a_place_for_results_are_refused(folder, refused):
    assert "'nothing.png' does not exist; check the path" in refused("edit", "nothing.png", REMOVE)
    assert "Many pictures need a folder for the results; give one with --out" in refused("edit", ".", REMOVE)
    assert "is a folder; give a picture file" in refused("edit", "photo.png", REMOVE, "--mask", ".")


def test_a_mask_of_another_size_or_without_a_mark_is_refused(folder, refused):
    Image.new("L", (30, 40), 255).save("mask.png")
    assert "The mask is 30x40 but the image is 40x30" in refused("edit", "photo.png", REMOVE, "--mask", "mask.png")
    Image.new("L", (40, 30), 0).save("mask.png")
    assert "The mask marks nothing" in refused("edit", "photo.png", REMOVE, "--mask", "mask.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "The instruction is empty; say what to change"),
        (["  "], "The instruction is empty"),
        (["x" * 100_000], "The instruction has 100,000 characters; the limit is 2,000"),
        ([REMOVE, "--steps", "0"], "steps is 0; it must lie between 1 and 200"),
        ([REMOVE, "--steps", "many"], "--steps"),
        ([REMOVE, "--seed", "-1"], "The seed is -1; it must lie between 0 and 2^63 - 1"),
        ([REMOVE, "--seed", str(2**63)], "The seed is 9223372036854775808"),
        ([REMOVE, "--seed", str(2**63 - 1), "-n", "2"], "leaves no room for the edit's 2 noises"),
        ([REMOVE, "-n", "0"], "n is 0; between 1 and 16 images"),
        ([REMOVE, "--guidance", "nan"], "guidance is nan"),
        ([REMOVE, "--expert", "magic"], "The expert 'magic' does not exist; the experts are erase, compose"),
        ([REMOVE, "--expert", ""], "The expert '' does not exist"),
        ([REMOVE, "--expert", "../style"], "The expert '../style' does not exist"),
        ([REMOVE, "--expert", "erase=0.5,magic=0.5"], "The expert 'magic' does not exist"),
        ([REMOVE, "--expert", "erase=2,style=-1"], "must be positive and sum to 1"),
        ([REMOVE, "--device", "tpu"], "This machine has no device 'tpu'"),
        ([REMOVE, "and", "more"], "unexpected extra argument"),
    ],
)
def test_a_wrong_instruction_number_or_expert_is_refused(arguments, said, refused, untrained_set):
    assert said in refused("edit", "photo.png", *arguments, "--expert-set", str(untrained_set))


def poison(path: Path, value: float) -> None:
    """The adapter at `path` with one weight that is `value`, its metadata kept."""
    from safetensors import safe_open

    with safe_open(path, "pt") as stream:
        metadata = stream.metadata()
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = value
    save_file(tensors, path, metadata=metadata)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def put_a_pickle_there(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1.0]}))


def put_a_torch_file_there(path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, path)


def fit_another_base(path: Path) -> None:
    save_file({f"transformer.no_such_block.lora_{side}.weight": torch.zeros(8, 8) for side in "AB"}, path)


def have_other_shapes(path: Path) -> None:
    module = "transformer.single_transformer_blocks.0.attn.to_q"
    save_file({f"{module}.lora_A.weight": torch.zeros(8, 999), f"{module}.lora_B.weight": torch.zeros(999, 8)}, path)


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "a wrong hash": (flip_a_bit, "its manifest says"),
    "a truncated file": (truncate, "get it again"),
    "a pickle": (put_a_pickle_there, "is a pickle named .safetensors; convert it to safetensors"),
    "a torch file": (put_a_torch_file_there, "is a pickle named .safetensors"),
    "another base": (fit_another_base, "does not fit this base: the base has no linear module"),
    "other shapes": (have_other_shapes, "does not fit this base"),
}


@pytest.mark.parametrize("flaw", SPOILT)
def test_a_spoilt_adapter_is_refused_in_use_and_when_it_is_added(flaw, bad_set, refused):
    spoil, said = SPOILT[flaw]
    adapter = bad_set / "experts/erase/erase.safetensors"
    spoil(adapter)
    assert said in refused("edit", "photo.png", REMOVE, "--expert-set", "set")

    added = (
        refused("experts", "add", str(adapter), "--name", "new", "--competence", "erase", "--expert-set", "set")
        if flaw != "a wrong hash"
        else said
    )  # any hash is right for a new manifest
    assert said in added


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_even_under_the_right_hash(value, bad_set, refused):
    import hashlib

    adapter, manifest = bad_set / "experts/erase/erase.safetensors", bad_set / "experts/erase/expert.yaml"
    poison(adapter, value)
    arguments = ["--name", "new", "--competence", "erase", "--expert-set", "set"]
    assert "has NaN or infinite weights" in refused("experts", "add", str(adapter), *arguments)

    stated = load_expert_set(bad_set).manifest("erase").sha256
    manifest.write_text(manifest.read_text().replace(stated, hashlib.sha256(adapter.read_bytes()).hexdigest()))
    assert "has NaN or infinite weights" in refused("edit", "photo.png", REMOVE, "--expert-set", "set")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("file: erase.safetensors", "file: ../style/style.safetensors", "leads out of its folder"),
        ("file: erase.safetensors", "file: /etc/passwd.safetensors", "leads out of its folder"),
        ("file: erase.safetensors", "file: erase.bin", "is not a .safetensors file; other formats can run code"),
        ("name: erase", "name: ../erase", "The name '../erase' cannot be used"),
        ("rank: 8", "rank: 0", "does not accept 0 for its field 'rank'"),
        ("rank: 8", "rank: 16", "has rank 8, its manifest says 16"),
        ("rank: 8", "rank: !!python/object:os.system 8", "is not valid YAML"),
        ("rank: 8", "rank: 8\ncolour: red", "has no field 'colour'"),
    ],
)
def test_a_wrong_manifest_is_refused(old, new, said, bad_set, refused):
    manifest = bad_set / "experts/erase/expert.yaml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    assert said in refused("edit", "photo.png", REMOVE, "--expert-set", "set")


def test_an_adapter_for_another_base_is_refused_before_it_is_opened(bad_set, refused):
    manifest = bad_set / "experts/erase/expert.yaml"
    fingerprint = load_expert_set(bad_set).manifest("erase").base.fingerprint
    manifest.write_text(manifest.read_text().replace(fingerprint, "a" * 64))
    (bad_set / "experts/erase/erase.safetensors").unlink()
    text = refused("edit", "photo.png", REMOVE, "--expert-set", "set")
    assert "The expert 'erase' does not fit this base: it was made for 'untrained tiny base' (aaaaaaaaaaaa)" in text


def test_a_set_whose_entry_leads_out_of_it_is_refused(bad_set, refused):
    file = bad_set / "expert_set.yaml"
    file.write_text(file.read_text().replace("- experts/erase", "- ../experts/erase"))
    assert "leads out of its folder" in refused("edit", "photo.png", REMOVE, "--expert-set", "set")


def test_a_set_that_is_not_there_or_damaged_is_refused(bad_set, refused):
    assert "'nowhere' is not an expert set" in refused("edit", "photo.png", REMOVE, "--expert-set", "nowhere")
    weights = bad_set / "base/vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "The base's files have the hash" in refused("edit", "photo.png", REMOVE, "--expert-set", "set")
    weights.unlink()
    assert "The base's files have the hash" in refused("edit", "photo.png", REMOVE, "--expert-set", "set")


@pytest.mark.parametrize(
    "arguments",
    [
        ["edit", "truncated.png", REMOVE],
        ["edit", "photo.png", b"remove \xff"],
        ["edit", "photo.png", REMOVE, "--expert", "erase", "--expert-set", "set"],
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[2][:9]!s} {arguments[-3][:9]!s}",
)
def test_the_real_process_keeps_to_the_rules(arguments, bad_set, folder):
    Path("truncated.png").write_bytes(FILES["truncated.png"][0])
    flip_a_bit(bad_set / "experts/erase/erase.safetensors")
    before = contents(folder)
    answer = subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, check=False)

    assert (answer.returncode, answer.stdout) == (2, b"")
    sentence(answer.stderr.decode())
    assert contents(folder) == before


def rotated() -> bytes:
    """Saved lying on its side, with the EXIF note that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(NOISE.rotate(90, expand=True), "JPEG", exif=exif)


def sixteen_bit() -> bytes:
    return encoded(Image.fromarray(np.linspace(0, 65_535, 30 * 40).reshape(30, 40).astype(np.uint16)))


ODD: dict[str, bytes] = {
    "cmyk.jpg": encoded(NOISE.convert("CMYK"), "JPEG"),
    "palette.png": encoded(NOISE.convert("P", palette=Image.Palette.ADAPTIVE, colors=32)),
    "sixteen.png": sixteen_bit(),
    "grey.png": encoded(NOISE.convert("L")),
    "bilevel.png": encoded(NOISE.convert("1")),
    "alpha.png": encoded(Image.merge("RGBA", (*NOISE.split(), NOISE.getchannel("R")))),
    "grey-alpha.png": encoded(Image.merge("LA", (NOISE.getchannel("G"), NOISE.getchannel("R")))),
    "alpha.webp": encoded(Image.merge("RGBA", (*NOISE.split(), NOISE.getchannel("R"))), "WEBP"),
    "rotated.jpg": rotated(),
    "one-pixel.png": encoded(NOISE.resize((1, 1))),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_edited_and_answered_as_rgb_and_upright(name, folder, untrained_set, capsys):
    Path(name).write_bytes(ODD[name])
    code = main(["edit", name, REMOVE, "--steps", "1", "-o", "out.png", "--expert-set", str(untrained_set)])
    note = "note: image: transparent pixels were composited over white.\n" if "alpha" in name else ""
    assert (code, capsys.readouterr().err) == (0, note)
    with Image.open("out.png") as edited:
        assert edited.mode == "RGB" and not edited.getexif()
        assert edited.size == decode_image(ODD[name]).size == ((1, 1) if name == "one-pixel.png" else (40, 30))


@pytest.mark.parametrize("instruction", ["убери красный круг", "أزل الدائرة", "remove 🔴", "--", "[bold]x[/bold]"])
def test_an_instruction_in_any_script_is_accepted(instruction, folder, untrained_set, capsys):
    options = ["--steps", "1", "--expert-set", str(untrained_set)]
    code = main(["edit", *options, "--json", "--", "photo.png", instruction])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert json.loads(shown.out)["traces"][0]["instruction"] == instruction


def test_the_real_process_takes_any_script_whatever_the_locale(folder, untrained_set):
    answer = subprocess.run(
        [COMMAND, "edit", "photo.png", "移除红色的圆", "--steps", "1", "--expert-set", str(untrained_set), "--json"],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, b"")
    document = json.loads(answer.stdout)
    assert document["traces"][0]["instruction"] == "移除红色的圆"
    assert document["images"] == ["photo-edited.png"] and (folder / "photo-edited.png").is_file()
