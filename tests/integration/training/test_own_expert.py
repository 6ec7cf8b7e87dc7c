"""An expert on a user's own rows, as the command makes it: from a folder of pictures to an edit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from careedit.cli.main import main
from careedit.editor import Editor
from careedit.experts import load_expert_set
from careedit.finetune import pool as pool_module
from careedit.records import EditRequest

COMMAND = Path(sys.executable).with_name("careedit")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rows(framed):
    return framed(6)


def command(rows: Path, base: Path, out: Path, *more: str, steps: int = 2) -> list[str]:
    own = ["train", "expert", "--data", str(rows), "--base", str(base), "--name", "frame", "--out", str(out)]
    return [*own, "--rank", "8", "--batch", "1", "--steps", str(steps), "--threads", "1", *more]


def test_a_folder_of_rows_becomes_an_expert_that_edits(rows, untrained_set, tmp_path, capsys):
    out, copied = tmp_path / "out", tmp_path / "set"
    options = ("--handles", "frame", "--licence", "MIT", "--description", "Draws a frame.", "--json")
    assert main(command(rows, untrained_set, out, *options)) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    number_format = document["training"]["number_format"]
    assert captured.err.splitlines()[0].startswith(f"Number format: {number_format['name']} (")
    assert set(number_format["gflops"]) == {"float32", "bfloat16"}
    assert f"products in {number_format['name']} (" in (out / "README.md").read_text("utf-8")
    assert document["rows"] == {"rows": 6, "trained on": 5, "held out": 1}
    assert document["validation"]["base_loss"] > 0
    assert document["manifest"]["rank"] == 8
    assert {path.name for path in out.iterdir()} == {
        "adapter.safetensors", "expert.yaml", "README.md", "report.json", "loss.png", "work"
    }  # fmt: skip
    assert "![Loss over steps](loss.png)" in (out / "README.md").read_text("utf-8")
    shutil.copytree(untrained_set, copied)
    assert main(["experts", "add", str(out), "--expert-set", str(copied)]) == 0
    manifest = load_expert_set(copied).manifest("frame")
    assert (manifest.description, manifest.handles, manifest.licence) == ("Draws a frame.", ("frame",), "MIT")
    request = EditRequest(image=Image.new("RGB", (64, 64)), instruction="add a frame", expert="frame", seed=1, steps=1)
    assert Editor(load_expert_set(copied)).edit(request).trace.routing.weights == {"frame": 1.0}


def test_an_experts_folder_is_added_only_whole(rows, untrained_set, tmp_path, capsys):
    out, copied = tmp_path / "out", tmp_path / "set"
    more = ("--dtype", "bfloat16", "--checkpoint-gradients", "--held-out", "0")
    assert main(command(rows, untrained_set, out, *more, steps=1)) == 0
    assert "held out\t0" in capsys.readouterr().out
    assert main(command(rows, untrained_set, out, *more[2:], steps=1)) == 0
    assert capsys.readouterr().err.startswith("Number format: bfloat16 (the ")  # that of the checkpoint
    shutil.copytree(untrained_set, copied)
    adapter = out / "adapter.safetensors"
    assert main(["experts", "add", str(adapter), "--expert-set", str(copied)]) == 2
    assert "--name is missing" in capsys.readouterr().err
    adapter.write_bytes(adapter.read_bytes() + b"x")
    assert main(["experts", "add", str(out), "--expert-set", str(copied)]) == 2
    assert "is not the file that its manifest states" in capsys.readouterr().err
    (out / "expert.yaml").unlink()
    assert main(["experts", "add", str(out), "--expert-set", str(copied)]) == 2
    assert "has no expert" in capsys.readouterr().err


def test_bad_rows_are_refused_by_name_and_skipped_where_asked_for(rows, untrained_set, tmp_path, capsys):
    out = tmp_path / "out"
    (rows / "2-target.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (rows / "4-source.png").unlink()
    assert main(command(rows, untrained_set, out, steps=1)) == 2
    refused = capsys.readouterr().err
    assert "row 3 (metadata.jsonl, line 3, 2-target.png)" in refused
    assert "row 5 (metadata.jsonl, line 5, 4-source.png)" in refused
    assert "2 of 6 rows cannot be trained on" in refused
    assert [path.name for path in out.iterdir()] == ["problems.csv"]
    assert main(command(rows, untrained_set, out, "--on-bad", "skip", steps=1)) == 0
    told = capsys.readouterr().out
    assert "bad: missing file\t1" in told
    assert "bad: unreadable picture\t1" in told
    assert main(command(rows, untrained_set, out, "--on-bad", "skip", "--rank", "16", steps=1)) == 2
    assert "other settings (rank)" in capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(rows, untrained_set, tmp_path, monkeypatch):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    checkpoint = killed / "work" / "expert-frame.ckpt"
    # The default format is measured, and may differ between runs on a device where both are about as fast.
    more = ("--checkpoint-seconds", "0", "--dtype", "float32")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started = subprocess.Popen(
        [str(COMMAND), *command(rows, untrained_set, killed, *more, steps=75)], stderr=subprocess.DEVNULL
    )
    while not checkpoint.exists():
        assert started.poll() is None, "the run ended before its first checkpoint"
        with suppress(subprocess.TimeoutExpired):
            started.wait(timeout=0.02)
    started.kill()
    assert started.wait() == -9
    assert torch.load(checkpoint, weights_only=True)["step"] == 50
    assert not (killed / "report.json").exists()
    for out in (killed, whole):
        assert main(command(rows, untrained_set, out, *more, steps=75)) == 0
    reports = [json.loads((out / "report.json").read_text("utf-8")) for out in (killed, whole)]
    assert reports[0]["training"]["curve"] == reports[1]["training"]["curve"]
    assert reports[0]["validation"] == reports[1]["validation"]
    assert (killed / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def no_space_for_tensors(*_: Any, **__: Any) -> None:
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("module", "name", "failing", "words"),
    [
        (torch, "save", no_space, "The checkpoint"),
        (pool_module, "save_file", no_space_for_tensors, "The training data"),
    ],
)
def test_a_full_disk_is_a_sentence_and_exit_code_1(
    rows, untrained_set, tmp_path, monkeypatch, capsys, module, name, failing, words
):
    monkeypatch.setattr(module, name, failing)
    assert main(command(rows, untrained_set, tmp_path / "out", steps=1)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error
    assert "free some space and rerun" in error
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_loss_that_is_not_a_number_is_a_sentence_and_exit_code_1(rows, untrained_set, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(rows, untrained_set, out, "--learning-rate", "1e30", steps=10)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is not a number; no checkpoint was due yet. Lower the learning rate" in error
    assert not (out / "adapter.safetensors").exists()
