"""How good the tiny DINO is: nearest neighbours of test scenes among training scenes, compared with raw pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTModel

from careedit.errors import CareEditError
from careedit.finetune.card import Card, write_card
from careedit.finetune.curve import save_report
from careedit.finetune.loop import TrainConfig, TrainReport
from careedit_tiny.models.dino import SIDE, save_dino, to_pixels
from careedit_tiny.recipes.clip.data import pictures
from careedit_tiny.recipes.dino.crops import dino_scene, main_object
from careedit_tiny.recipes.dino.train import DEFAULT, train_dino
from careedit_tiny.world.scene import Scene

POOL = 8_000
"""Scenes drawn once and shown in changing crops."""
GALLERY = 4_000
"""Training scenes among which neighbours are looked for."""
NEIGHBOURS, TEMPERATURE = 10, 0.07
"""Neighbours that vote, and how much more the nearer ones count (arXiv 2104.14294, section 4.1)."""
LEAST_SPREAD = 0.05
"""A backbone whose features spread less than this has collapsed."""
PROPERTIES = ("shape", "colour", "background", "look")


@dataclass(frozen=True, slots=True)
class DinoQuality:
    """Accuracy of nearest neighbours, 0 to 1, per property of a scene."""

    count: int
    """Number of test scenes measured."""
    features: Mapping[str, float]
    """Accuracy by the model's features."""
    pixels: Mapping[str, float]
    """Accuracy by raw pixels, the baseline."""
    spread: float
    """How far the features of different scenes lie apart: 0 = collapsed, 1 = in all directions alike."""


def labels_of(scenes: Sequence[Scene]) -> dict[str, list[str | None]]:
    """What is asked of each scene; None where a look hides it: a look changes colours and outlines."""
    main = [main_object(scene) for scene in scenes]
    plain = [scene.look is None for scene in scenes]
    return {
        "shape": [thing.shape if p else None for thing, p in zip(main, plain, strict=True)],
        "colour": [thing.colour if p else None for thing, p in zip(main, plain, strict=True)],
        "background": [scene.background if p else None for scene, p in zip(scenes, plain, strict=True)],
        "look": [scene.look or "none" for scene in scenes],
    }


def neighbour_accuracy(
    gallery: Tensor, known: Sequence[str | None], queries: Tensor, right: Sequence[str | None]
) -> float:
    """The share of `queries` [Q, d] whose label the nearest of `gallery` [G, d] name, by cosine; None is left out."""
    inside = [i for i, label in enumerate(known) if label is not None]
    asked = [i for i, label in enumerate(right) if label is not None]
    names = sorted({label for label in (*known, *right) if label is not None})
    index = {name: i for i, name in enumerate(names)}
    classes = torch.tensor([index[str(known[i])] for i in inside])
    answers = torch.tensor([index[str(right[i])] for i in asked])
    similar = F.normalize(queries[asked], dim=-1) @ F.normalize(gallery[inside], dim=-1).T
    near = similar.topk(min(NEIGHBOURS, len(inside)), dim=1)
    votes = torch.zeros(len(asked), len(names))
    votes.scatter_add_(1, classes[near.indices], (near.values / TEMPERATURE).exp())
    return float((votes.argmax(dim=1) == answers).float().mean())


def spread_of(features: Tensor) -> float:
    """Root mean square distance of unit vectors [N, d] from their mean: 0 where all are one, 1 where they cancel out."""
    unit = F.normalize(features, dim=-1)
    return float((unit - unit.mean(dim=0)).square().sum(dim=-1).mean().sqrt())


def check_spread(spread: float) -> None:
    """Raises `CareEditError` for a backbone that says the same of every scene."""
    if not spread >= LEAST_SPREAD:
        raise CareEditError(
            f"The DINO has collapsed: its features spread {spread:.3f}, and {LEAST_SPREAD} is the least; train for longer "
            "or at another learning rate."
        )


@torch.inference_mode()
def features_of(model: ViTModel, drawn: np.ndarray) -> Tensor:
    """Class tokens [N, d] of drawn scenes, bytes [N, SIDE, SIDE, 3]."""
    chunks = (to_pixels(drawn[i : i + 200]) for i in range(0, len(drawn), 200))
    return torch.cat([model(pixel_values=chunk).last_hidden_state[:, 0] for chunk in chunks])


def measure(model: ViTModel, drawn: np.ndarray, count: int) -> DinoQuality:
    """Nearest neighbours of `count` test scenes among `drawn`, the first scenes of the training split."""
    tests = [dino_scene(index, "test") for index in range(count)]
    known, right = labels_of([dino_scene(index, "train") for index in range(len(drawn))]), labels_of(tests)
    shown = pictures(tests)
    seen, asked = features_of(model, drawn), features_of(model, shown)
    flat, flat_asked = to_pixels(drawn).flatten(1), to_pixels(shown).flatten(1)
    middle, flat_middle = seen.mean(dim=0), flat.mean(dim=0)  # what all have in common tells none of them apart
    return DinoQuality(
        count,
        {p: neighbour_accuracy(seen - middle, known[p], asked - middle, right[p]) for p in PROPERTIES},
        {p: neighbour_accuracy(flat - flat_middle, known[p], flat_asked - flat_middle, right[p]) for p in PROPERTIES},
        spread_of(asked),
    )


def make_dino(
    folder: Path, config: TrainConfig = DEFAULT, *, pool: int = POOL, count: int = 1_000, licence: str = "Apache-2.0"
) -> tuple[TrainReport, DinoQuality]:
    """Train, measure on `count` test scenes, and write `folder/dino` with its card.

    Raises `CareEditError`, and writes no model, where it has collapsed.
    """
    drawn = pictures([dino_scene(index, "train") for index in range(pool)], folder / "dino-scenes.npy")
    model, report = train_dino(folder, drawn, config)
    figures = measure(model, drawn[:GALLERY], count)
    check_spread(figures.spread)
    save_dino(model, folder / "dino")
    save_report(report, folder / "dino.json")
    card = Card(
        title="careedit tiny DINO",
        summary=f"A transformers ViT for drawn scenes of {SIDE} x {SIDE} pixels, trained by DINO self-distillation: the picture "
        "features of the tiny family's metrics.",
        recipe="careedit train dino",
        data=f"{pool:,} drawn scenes of the tiny world's training split, without labels.",
        quality={
            f"{name.capitalize()} by {NEIGHBOURS} nearest neighbours ({count:,} test scenes among "
            f"{min(pool, GALLERY):,} training scenes)": f"{figures.features[name]:.1%}; by raw pixels {figures.pixels[name]:.1%}"
            for name in PROPERTIES
        }
        | {"Spread of the features (0 = collapsed, 1 = widest)": f"{figures.spread:.2f}"},
        limits=(
            "Knows drawn scenes of the tiny world, not photographs.",
            "Shape, colour and background are measured on scenes without a look, of the largest object.",
        ),
    )
    write_card(folder / "dino", card, report, licence=licence)
    return report, figures
