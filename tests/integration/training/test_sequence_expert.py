"""Experts for bases that read pictures as tokens: `careedit train expert --data`, then the stock pipeline and the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import small_bases
from careedit.cli.main import main
from careedit.editing import FAMILIES, EditJob, Engine
from careedit.experts import (
    Defaults,
    ExpertManifest,
    MemoryLibrary,
    PanelSpec,
    load_adapter,
    load_expert_set,
    make_applier,
    shapes_of,
)
from careedit.finetune import loop as training_loop
from careedit.records import BASE
from random_sets import make_random_set

BUILDERS: dict[str, Callable[[], Any]] = {
    "klein base": partial(small_bases.klein, distilled=False),
    "qwen": small_bases.qwen,
    "kontext": small_bases.kontext,
    "longcat": small_bases.longcat,
}
SHORT = {"kontext": small_bases.TEXT_LENGTH, "longcat": 64}
"""Text lengths that keep the other tests short; these families pad every text."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _small_areas(monkeypatch):
    small_bases.use_small_areas(monkeypatch)


@pytest.fixture
def rows(framed):
    """Eight rows of unlike words; three have a mask."""
    return framed(8, masks=3, instruction="add the red circle {}")


def saved(name: str, folder: Path) -> Any:
    """The pipeline of a family, and a copy of it in `folder`."""
    small_bases.qwen_tokenizer.cache_clear()  # a tokenizer keeps the padding of its last call, and is saved with it
    pipe = BUILDERS[name]()
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe


def command(rows: Path, base: Path, out: Path, *more: str, steps: int = 2) -> list[str]:
    own = ["train", "expert", "--data", str(rows), "--base", str(base), "--name", "frame", "--out", str(out)]
    own += ["--panel-size", "64", "--rank", "4", "--batch", "2", "--threads", "1", "--dtype", "float32"]
    return [*own, "--steps", str(steps), *more]


@pytest.mark.parametrize("name", list(BUILDERS))
def test_an_expert_learns_and_edits_alike_in_the_stock_pipeline_and_the_engine(name, rows, tmp_path, capsys):
    pipe, out = saved(name, tmp_path / "base"), tmp_path / "out"
    length = SHORT.get(name)
    more = (
        "--held-out",
        "0.3",
        "--learning-rate",
        "0.02",
        "--json",
        *(("--max-sequence-length", str(length)) if length else ()),
    )
    assert main(command(rows, tmp_path / "base", out, *more, steps=30)) == 0
    captured = capsys.readouterr()
    validation = json.loads(captured.out)["validation"]
    assert validation["expert_loss"] < 0.9 * validation["base_loss"]
    assert "Memory: about 0." in captured.err

    base = FAMILIES[type(pipe).__name__].from_pipeline(pipe, max_sequence_length=length)
    shapes = shapes_of(pipe.transformer, base.facts, base.options)
    state = load_adapter(out / "adapter.safetensors", shapes)
    assert state.rank == 4
    one = EditJob(
        source=Image.open(rows / "1-source.png"), instruction="add the red circle", seed=7, steps=2,
        guidance=None if name == "kontext" else 1.0, weights={"frame": 1.0},
    )  # fmt: skip
    engine = Engine(base, make_applier(pipe.transformer, MemoryLibrary({"frame": state}, shapes), "shared"))
    ours = edited(engine, one)
    plain = edited(engine, replace(one, weights={BASE: 1.0}))
    pipe = BUILDERS[name]()  # the engine's applier has changed the other one
    pipe.set_progress_bar_config(disable=True)
    if name == "longcat":  # diffusers has no LoRA mixin for its pipeline
        pipe.transformer.load_lora_adapter(str(out), weight_name="adapter.safetensors")
    else:
        pipe.load_lora_weights(str(out), weight_name="adapter.safetensors")
    pipe.transformer.to(torch.float32)
    theirs = stock(pipe, one, length)
    assert (ours - plain).abs().max() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-4)


def edited(engine: Engine, one: EditJob) -> torch.Tensor:
    """The decoded picture of an edit, clipped but not rounded."""
    state = engine.prepare(one)
    engine.advance([state])
    return engine.base.decode(state.latents, state.encoded.grid).clamp(-1, 1)


def stock(pipe: Any, one: EditJob, length: int | None) -> torch.Tensor:
    """The stock pipeline's picture in about -1..1."""
    arguments: dict[str, Any] = {"guidance_scale": 1.0}
    kind = type(pipe).__name__
    if kind != "LongCatImageEditPipeline":
        arguments |= {"height": 64, "width": 64}
    if kind == "FluxKontextPipeline":
        arguments = {
            "height": 64,
            "width": 64,
            "max_area": small_bases.AREA,
            "_auto_resize": False,
            "max_sequence_length": length,
        }
    if kind == "QwenImageEditPlusPipeline":
        arguments = {"height": 64, "width": 64, "true_cfg_scale": 1.0}
    if kind == "LongCatImageEditPipeline":
        pipe.tokenizer_max_length = length
    picture = pipe(
        prompt=one.instruction, image=one.source, num_inference_steps=one.steps, output_type="pt",
        generator=torch.Generator("cpu").manual_seed(one.seed), **arguments,
    ).images  # fmt: skip
    return picture * 2 - 1


def test_an_interrupted_run_goes_on_to_the_same_weights(rows, tmp_path, monkeypatch):
    saved("klein base", tmp_path / "base")
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    more = ("--checkpoint-seconds", "0", "--max-sequence-length", "64")
    monkeypatch.setattr(training_loop, "CURVE_EVERY", 5)
    generator = training_loop.step_generator

    def interrupted(seed: int, step: int, **more: Any) -> torch.Generator:
        if step == 8:
            raise KeyboardInterrupt
        return generator(seed, step, **more)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "step_generator", interrupted)
        assert main(command(rows, tmp_path / "base", cut, *more, steps=12)) == 130
    assert torch.load(cut / "work" / "expert-frame.ckpt", weights_only=True)["step"] == 5
    assert not (cut / "report.json").exists()
    for out in (cut, whole):
        assert main(command(rows, tmp_path / "base", out, *more, steps=12)) == 0
    reports = [json.loads((out / "report.json").read_text("utf-8")) for out in (cut, whole)]
    assert reports[0]["validation"] == reports[1]["validation"]
    assert (cut / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()


def test_the_file_of_an_expert_of_the_base_model_is_added_to_a_set_of_the_distilled_one(rows, tmp_path, capsys):
    saved("klein base", tmp_path / "base")
    short = ("--max-sequence-length", "64", "--held-out", "0", "--checkpoint-gradients")
    assert main(command(rows, tmp_path / "base", tmp_path / "out", *short, steps=1)) == 0
    made = ExpertManifest.from_yaml((tmp_path / "out" / "expert.yaml").read_text("utf-8"), "expert.yaml")
    assert made.base.name == f"{tmp_path / 'base'} (flux2-klein base)"
    distilled = make_random_set(
        tmp_path / "distilled", small_bases.klein(), {}, length=64, panel=PanelSpec(size=64), defaults=Defaults(steps=4)
    )
    add = ["experts", "add", "--name", "frame", "--competence", "frame", "--expert-set", str(distilled)]
    assert main([*add, str(tmp_path / "out")]) == 0
    assert "made for flux2-klein base" in capsys.readouterr().err  # as of a bare file
    assert load_expert_set(distilled).manifest("frame").rank == 4
    capsys.readouterr()
    own = ("--data", str(rows), "--base", str(distilled), "--name", "again", "--out", str(tmp_path / "again"))
    assert main(["train", "expert", *own, "--dtype", "float32"]) == 2
    assert "is distilled to a few steps" in capsys.readouterr().err
