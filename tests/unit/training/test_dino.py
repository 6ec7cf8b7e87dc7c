"""Self-distillation: what is compared with what, what moves, what is learned, and collapse found out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from careedit.errors import CareEditError
from careedit.finetune import loop
from careedit.finetune.loop import TrainConfig
from careedit_tiny.models.dino import build_dino, to_pixels
from careedit_tiny.recipes.dino import report as dino_report
from careedit_tiny.recipes.dino import train as dino
from careedit_tiny.recipes.dino.crops import crops, dino_scene, main_object
from careedit_tiny.recipes.dino.report import check_spread, features_of, labels_of, neighbour_accuracy, spread_of
from careedit_tiny.recipes.dino.train import Distillation, distillation_loss, momentum_at, train_dino
from careedit_tiny.world.draw import draw_scene

QUICK = TrainConfig(steps=30, learning_rate=1e-3, warmup=3, weight_decay=0.0, clip=1.0, checkpoint_seconds=0.0)


def small_vit() -> ViTModel:
    return ViTModel(
        ViTConfig(
            image_size=64,
            patch_size=16,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )


@pytest.fixture(scope="module")
def drawn():
    return np.stack([np.asarray(draw_scene(dino_scene(index, "train"))) for index in range(24)])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(dino, "build_dino", small_vit)


def test_each_view_of_the_teacher_is_compared_with_every_other_view_of_the_student():
    said = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # two views of one scene
    right = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]).clamp(min=1e-9).log()
    # View against itself would cost about 20 twice; what counts are 0 <- 1, 1 <- 0 (free) and both <- 2.
    assert distillation_loss(said, right, 1).item() == pytest.approx(np.log(2) / 2)


def test_scenes_of_a_batch_are_not_mixed_up():
    said = torch.eye(4).repeat(2, 1)  # four scenes, two views of each
    answers = torch.eye(4).repeat(3, 1).clamp(min=1e-9).log()
    assert distillation_loss(said, answers, 4).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(said, answers.roll(1, dims=0), 4).item() > 10


def test_the_teacher_follows_the_student_and_the_centre_what_the_teacher_says(drawn):
    model = Distillation(small_vit(), 16)
    pixels = to_pixels(drawn[:4])
    targets = model.targets(pixels)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4), atol=1e-4)
    assert model.centre.abs().sum() > 0
    with torch.no_grad():
        model.head.last.add_(1.0)
    before = model.teacher_head.last.clone()
    model.follow(0.75)
    assert torch.allclose(model.teacher_head.last, before + 0.25, atol=1e-5)
    assert not any(p.requires_grad for p in (*model.teacher.parameters(), model.centre))


def test_centring_takes_away_what_is_said_of_everything():
    model = Distillation(small_vit(), 8)
    same = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    first = model.targets(same)
    for _ in range(100):
        last = model.targets(same)
    assert first.max() > 2 / 8
    assert last.max() < 1.3 / 8


def test_small_crops_are_read_with_interpolated_positions():
    model = Distillation(small_vit(), 8)
    answers = model.answers(torch.zeros(2, 3, 64, 64), torch.zeros(6, 3, 32, 32))
    assert answers.shape == (8, 8)
    assert torch.allclose(answers.exp().sum(dim=1), torch.ones(8), atol=1e-4)


def test_the_last_layer_stays_while_it_is_frozen():
    model = Distillation(small_vit(), 8)
    for frozen in (True, False):
        model.zero_grad()
        model.answers(torch.ones(2, 3, 64, 64), frozen=frozen).square().mean().backward()
        assert (model.head.last.grad is None) == frozen
        assert model.head.mlp[0].weight.grad is not None


def test_the_teacher_slows_down_until_it_stands():
    path = [momentum_at(step, 100) for step in range(101)]
    assert path == sorted(path)
    assert (path[0], path[-1]) == (pytest.approx(dino.MOMENTUM), 1.0)


def test_crops_are_parts_of_their_own_picture():
    generator = torch.Generator().manual_seed(0)
    flat = torch.stack([torch.full((3, 64, 64), shade) for shade in (-1.5, 0.0, 1.5)])
    cut = crops(flat, 32, (0.2, 0.9), generator)
    assert cut.shape == (3, 3, 32, 32)
    assert (cut.mean(dim=(1, 2, 3)) - torch.tensor([-1.5, 0.0, 1.5])).abs().max() < 0.5
    slope = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    small, large = (crops(slope.expand(16, -1, -1, -1), 32, (area, area), generator) for area in (0.1, 0.9))
    reach = [cut.mean(dim=2)[:, :, -3:].mean() - cut.mean(dim=2)[:, :, :3].mean() for cut in (small, large)]
    assert reach[0] < 0.6 * reach[1]  # a small crop shows a small part


def test_the_loss_falls_and_the_features_keep_apart(small, drawn, tmp_path):
    teacher, report = train_dino(tmp_path, drawn, replace(QUICK, steps=150), batch=6, outputs=32)
    assert report.curve[-1][1] < report.curve[0][1] - 0.1
    spread = spread_of(features_of(teacher, drawn))
    assert spread > 0.05
    check_spread(spread)


def test_a_run_that_was_killed_goes_on_to_the_same_teacher(small, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CURVE_EVERY", 5)
    config = replace(QUICK, steps=12)
    whole, _ = train_dino(tmp_path / "whole", drawn, config, batch=4, outputs=16)

    def dies(step: int, steps: int) -> float:
        if step == 8:
            raise KeyboardInterrupt
        return momentum_at(step, steps)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dino, "momentum_at", dies)
        train_dino(tmp_path / "killed", drawn, config, batch=4, outputs=16)
    resumed, report = train_dino(tmp_path / "killed", drawn, config, batch=4, outputs=16)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name
    student = sum(p.numel() for p in small_vit().parameters())
    assert student < report.parameters < student + 1e6  # student and head, without the teacher


def test_a_collapsed_backbone_is_found_out():
    generator = torch.Generator().manual_seed(0)
    apart = torch.randn(200, 32, generator=generator)
    collapsed = torch.ones(200, 32) + 0.01 * apart
    assert spread_of(apart) == pytest.approx(1, abs=0.02)
    check_spread(spread_of(apart))
    for spread in (spread_of(collapsed), float("nan")):
        with pytest.raises(CareEditError, match="has collapsed"):
            check_spread(spread)


def test_neighbours_are_right_by_features_that_tell_and_by_chance_otherwise():
    labels = [f"class {i % 4}" for i in range(200)]
    telling = torch.eye(4).repeat(50, 1)
    assert neighbour_accuracy(telling, labels, telling[:20], labels[:20]) == 1.0
    assert neighbour_accuracy(telling, labels, telling[:20].roll(1, dims=0), labels[:20]) == 0.0
    assert neighbour_accuracy(telling[:8], [None, *labels[1:8]], telling[:8], [*labels[:7], None]) > 0


def test_labels_hide_what_a_look_changes():
    scenes = [dino_scene(index, "test") for index in range(40)]
    labels = labels_of(scenes)
    for scene, shape, look in zip(scenes, labels["shape"], labels["look"], strict=True):
        assert look == (scene.look or "none")
        assert shape == (main_object(scene).shape if scene.look is None else None)
    assert 0 < labels["shape"].count(None) < 40


def test_the_recipe_writes_the_model_its_card_and_its_curve(tmp_path, monkeypatch):
    monkeypatch.setattr(dino_report, "LEAST_SPREAD", 0.0)  # an untrained model says nearly the same of everything
    monkeypatch.setattr(dino_report, "train_dino", lambda folder, drawn, config: trained(folder, drawn, config))

    def trained(folder: Path, drawn: np.ndarray, config: TrainConfig):
        with monkeypatch.context() as patch:
            patch.setattr(dino, "build_dino", small_vit)
            _, report = train_dino(folder, drawn, config, batch=2, outputs=8)
        return build_dino(seed=0), report

    _, figures = dino_report.make_dino(tmp_path, replace(QUICK, steps=2), pool=40, count=20)
    card = (tmp_path / "dino/README.md").read_text()
    assert set(figures.features) == set(figures.pixels) == set(dino_report.PROPERTIES)
    assert f"{figures.features['look']:.1%}; by raw pixels {figures.pixels['look']:.1%}" in card
    assert (tmp_path / "dino/model.safetensors").is_file()
    assert (tmp_path / "dino/loss.png").is_file()
    assert (tmp_path / "dino.json").is_file()
