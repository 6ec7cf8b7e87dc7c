"""Recipe of the tiny DINO: self-distillation without labels (Caron et al. 2021, arXiv 2104.14294).

A student sees crops of a scene and must say of each what its teacher says of the other large crops of the same scene.
The teacher is the student's moving average. Centring keeps it from saying one thing always, sharpening from saying
everything equally.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTModel

from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import products, training_device
from careedit_tiny.models.dino import SIDE, build_dino, to_pixels
from careedit_tiny.recipes.dino.crops import crops

DEFAULT = TrainConfig(steps=700, learning_rate=1.5e-3, warmup=70, weight_decay=0.04, betas=(0.9, 0.98), clip=1.0)
BATCH = 32
"""Number of scenes per step."""
GLOBAL_SCALE, LOCAL_SCALE = (0.5, 1.0), (0.12, 0.5)
"""Shares of the picture's area that large and small crops show."""
LOCAL_SIDE, LOCALS = SIDE // 2, 4
"""Pixels per side of a small crop, and their number per scene."""
OUTPUTS = 1024
"""What teacher and student may say: the width of the head's output."""
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
MOMENTUM = 0.98
"""The teacher's moving average at the start; it rises to 1 along a cosine."""
CENTRE_MOMENTUM = 0.9
FROZEN = 0.05
"""Share of the steps in which the head's last layer does not learn."""


class DinoHead(nn.Module):
    """Three layers to a bottleneck of length 1, and a last layer of unit rows: [B, d] -> [B, outputs]."""

    def __init__(self, width: int, outputs: int, hidden: int = 512, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last = nn.Parameter(torch.empty(outputs, bottleneck))
        for weight in (*(p for p in self.mlp.parameters() if p.ndim == 2), self.last):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        """`frozen` keeps the last layer from learning."""
        last = self.last.detach() if frozen else self.last
        return F.linear(F.normalize(self.mlp(features), dim=-1), F.normalize(last, dim=-1))


class Distillation(nn.Module):
    """Student, teacher and centre; only the student learns by gradient."""

    def __init__(self, backbone: ViTModel, outputs: int = OUTPUTS) -> None:
        super().__init__()
        self.student, self.head = backbone, DinoHead(backbone.config.hidden_size, outputs)
        self.teacher = ViTModel(backbone.config, add_pooling_layer=False)
        self.teacher_head = DinoHead(backbone.config.hidden_size, outputs)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher_head.load_state_dict(self.head.state_dict())
        self.centre = nn.Parameter(torch.zeros(outputs))
        for still in (*self.teacher.parameters(), *self.teacher_head.parameters(), self.centre):
            still.requires_grad_(False)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        for teacher, student in ((self.teacher, self.student), (self.teacher_head, self.head)):
            torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)

    @torch.no_grad()
    def targets(self, views: Tensor) -> Tensor:
        """What the teacher says of large crops, centred and sharpened, [V, outputs]; the centre then moves on."""
        with products(views.device):
            said = self.teacher_head(_class_token(self.teacher, views))
        said = said.float()
        sharp: Tensor = ((said - self.centre) / TEACHER_TEMPERATURE).softmax(dim=-1)
        self.centre.lerp_(said.mean(dim=0), 1 - CENTRE_MOMENTUM)
        return sharp

    def answers(self, *views: Tensor, frozen: bool = False) -> Tensor:
        """What the student says of crops of each size, log-probabilities [V, outputs]."""
        with products(self.centre.device):
            features = torch.cat([_class_token(self.student, view) for view in views])
            said = self.head(features, frozen=frozen)
        answers: Tensor = (said.float() / STUDENT_TEMPERATURE).log_softmax(dim=-1)
        return answers


def _class_token(model: ViTModel, pixels: Tensor) -> Tensor:
    # Small crops have fewer patches than the table of positions, which is then interpolated.
    small = pixels.shape[-1] != model.config.image_size
    states: Tensor = model(pixel_values=pixels, interpolate_pos_encoding=small).last_hidden_state
    return states[:, 0]


def distillation_loss(targets: Tensor, answers: Tensor, count: int) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student.

    `targets` [2 x count, K] are probabilities, `answers` [V x count, K] log-probabilities, view by view, in which the
    first two views are the teacher's.
    """
    said, heard = (states.reshape(-1, count, states.shape[-1]) for states in (targets, answers))
    pairs = -torch.einsum("tbk,vbk->tv", said, heard) / count
    others = ~torch.eye(len(said), len(heard), dtype=torch.bool, device=pairs.device)
    return pairs[others].mean()


def momentum_at(step: int, steps: int) -> float:
    """The teacher's moving average: from `MOMENTUM` to 1 along a cosine."""
    return 1 - (1 - MOMENTUM) * (math.cos(math.pi * step / steps) + 1) / 2


def train_dino(
    folder: Path,
    drawn: np.ndarray,
    config: TrainConfig = DEFAULT,
    *,
    batch: int = BATCH,
    outputs: int = OUTPUTS,
) -> tuple[ViTModel, TrainReport]:
    """Train on drawn scenes, bytes [N, SIDE, SIDE, 3]; returns the teacher's backbone, on the CPU."""
    batch *= config.batches
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Distillation(build_dino(), outputs)
    model.to(training_device())

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        # Before a step rather than after it, so that a checkpoint, which is made in between, resumes to the same run.
        model.follow(momentum_at(step, config.steps))
        chosen = to_pixels(drawn[torch.randint(len(drawn), (batch,), generator=generator).numpy()]).to(
            model.centre.device
        )
        large = torch.cat([crops(chosen, SIDE, GLOBAL_SCALE, generator) for _ in range(2)])
        small = torch.cat([crops(chosen, LOCAL_SIDE, LOCAL_SCALE, generator) for _ in range(LOCALS)])
        targets = model.targets(large)
        answers = model.answers(large, small, frozen=step < FROZEN * config.steps)
        entropy = -(targets * targets.clamp(min=1e-9).log()).sum(dim=-1).mean()
        return {"loss": distillation_loss(targets, answers, batch), "entropy": entropy}

    # Teacher and centre are among them to be in the checkpoint; without gradients no optimizer moves them.
    report = train("dino", list(model.parameters()), loss, config, folder)
    model.follow(momentum_at(config.steps, config.steps))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return model.teacher.cpu(), replace(report, parameters=trained)
