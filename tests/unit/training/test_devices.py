"""Training on a GPU, pretended on the CPU: no recipe mixes devices, and a checkpoint continues on another device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from careedit.finetune import loop
from careedit.finetune import pool as pool_module
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import NumberFormat, choose, training_device, using
from careedit.finetune.router import fit as router_fit
from careedit_tiny.models.clip import untrained_encoder
from careedit_tiny.recipes import experts, vae
from careedit_tiny.recipes.base import train as base
from careedit_tiny.recipes.base import words
from careedit_tiny.recipes.clip import train as clip
from careedit_tiny.recipes.dino import train as dino
from careedit_tiny.recipes.family import load_vae, make_base, make_lora
from careedit_tiny.recipes.judge import train as judge
from careedit_tiny.recipes.router.run import train_router
from careedit_tiny.world.geometry import GEOMETRY
from elsewhere import pretended_gpu

Recipe = Callable[[Path, TrainConfig], object]


def train_dino(folder: Path, config: TrainConfig) -> object:
    drawn = np.random.default_rng(0).integers(0, 255, (8, GEOMETRY.side, GEOMETRY.side, 3), np.uint8)
    return dino.train_dino(folder, drawn, config, batch=2, outputs=16)


RECIPES: Mapping[str, Recipe] = {
    "vae": lambda folder, config: vae.make_vae(folder, config, pool=8),
    "decoder": lambda folder, config: vae.make_decoder(folder, load_vae(folder), config, pool=8),
    "words": words.make_words,
    "base": make_base,
    "expert-erase": lambda folder, config: make_lora("erase", folder, config),
    "clip": lambda folder, config: clip.train_clip(folder, config, pool=8),
    "router": lambda folder, config: train_router(folder, untrained_encoder(), config=config, per_group=1, measured=1),
    "judge": lambda folder, config: judge.train_judge(folder, config, samples=4),
    "dino": train_dino,
}
"""Every recipe with a loss of its own, each after those whose results it needs."""


@pytest.fixture
def small(monkeypatch):
    """Batches and pools of a few items."""
    monkeypatch.setattr(pool_module, "SHARD", 8)
    monkeypatch.setattr(base, "POOLS", dict.fromkeys(base.POOLS, 8))
    for module in (base, experts, words, router_fit, clip):
        monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(judge, "PAIRS", 2)
    monkeypatch.setattr(words, "SENTENCES", 2)


def test_no_recipe_mixes_devices_and_each_trains_in_the_format_of_the_run(small, tmp_path, monkeypatch):
    formats: dict[str, NumberFormat] = {}
    save = TrainReport.__init__

    def noted(report: TrainReport, name: str, *args: object, **kwargs: object) -> None:
        save(report, name, *args, **kwargs)
        formats[name.split("-")[0] if name.startswith("router") else name] = report.number_format

    monkeypatch.setattr(TrainReport, "__init__", noted)
    gpu = NumberFormat("float32", "requested", "cuda:0")
    for recipe in RECIPES.values():
        with pretended_gpu(), using(gpu):
            assert training_device() == torch.device("cuda:0")
            recipe(tmp_path, TrainConfig(steps=1, learning_rate=1e-3, warmup=1, ema=0.9))
    assert formats == dict.fromkeys([*RECIPES, "eyes"], gpu)
    for checkpoint in tmp_path.glob("*.ckpt"):
        assert all(value.device.type == "cpu" for value in torch.load(checkpoint, weights_only=True)["parameters"])


def test_the_pretended_gpu_refuses_what_cuda_refuses():
    with pretended_gpu() as gpu:
        there, here = torch.ones(3, device=gpu), torch.ones(3)
        assert (there + torch.tensor(1.0)).device == gpu
        with pytest.raises(RuntimeError, match="add mixes tensors of cuda and of the CPU"):
            there + here
        with pytest.raises(RuntimeError, match="takes a generator of cuda"):
            torch.randn(3, device=gpu, generator=torch.Generator())
        with pytest.raises(TypeError, match="call cpu"):
            there.numpy()
        assert (there + here.to(gpu)).cpu().tolist() == [2, 2, 2]


@pytest.mark.parametrize("first", ["cuda:0", "cpu"])
def test_a_checkpoint_of_one_device_continues_on_the_other_to_the_same_weights(tmp_path, first):
    config = TrainConfig(steps=120, learning_rate=0.05, warmup=5, checkpoint_seconds=0.0, ema=0.9)

    def fit(folder: Path, device: str, killed_at: int | None = None) -> tuple[list[float], TrainReport]:
        layer = nn.Linear(4, 4)
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
        layer.to(device)

        def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
            if step == killed_at:
                raise KeyboardInterrupt
            seen = torch.randn(8, 4, generator=generator).to(device)
            return {"loss": (layer(seen) - 2 * seen).square().mean()}

        with using(NumberFormat("float32", "measured", device)):
            report = train("layer", list(layer.parameters()), loss, config, folder, matrices=[layer.weight])
        return layer.weight.detach().flatten().tolist(), report

    second = "cpu" if first != "cpu" else "cuda:0"
    whole = fit(tmp_path / "whole", "cpu")
    with pretended_gpu():
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "moved", first, killed_at=77)
        moved = fit(tmp_path / "moved", second)
    assert moved[0] == pytest.approx(whole[0], abs=1e-6)
    assert [step for step, _ in moved[1].curve] == [50, 100, 120]
    assert moved[1].number_format.device == second


def test_the_format_of_a_checkpoint_of_another_kind_of_device_is_not_kept(monkeypatch):
    monkeypatch.setattr("careedit.finetune.precision.measure", lambda *_: {"float32": 39.0, "bfloat16": 0.5})
    there = NumberFormat("bfloat16", "measured", "cuda")
    assert choose("cpu", kept=there).name == "float32"
    assert choose("cpu", kept=replace(there, device="cpu")).name == "bfloat16"


def test_a_step_is_timed_without_a_checkpoint_and_without_what_comes_after_it(tmp_path):
    weight, steps = nn.Parameter(torch.zeros(())), []

    def loss(step: int, _: torch.Generator) -> Mapping[str, Tensor]:
        steps.append(step)
        return {"loss": (weight - 3).square()}

    def recipe() -> None:
        for name in ("eyes", "judge"):
            train(name, [weight], loss, TrainConfig(steps=100, learning_rate=0.1), tmp_path)
        raise AssertionError("a timed recipe must not go on")

    assert loop.timing("judge", 3, recipe) > 0
    assert steps == [0, 0, 1, 2, 3]
    assert not list(tmp_path.iterdir())
