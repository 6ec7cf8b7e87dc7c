"""The architecture of the tiny DINO: transformers' own ViT, small."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from careedit_tiny.world.geometry import GEOMETRY

CONFIG: dict[str, Any] = {
    "image_size": GEOMETRY.side,
    "patch_size": GEOMETRY.token,
    "hidden_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""`ViTConfig`: 1.0 million parameters, a patch per token of the editor."""
SIDE: int = CONFIG["image_size"]
MEAN, DEVIATION = 0.5, 0.25
"""Normalisation of all three channels, from 0 to 1 to what the model sees."""


def build_dino(seed: int | None = None) -> ViTModel:
    """The untrained backbone without a pooler: its feature is the class token. `seed` determines its weights."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return ViTModel(ViTConfig(**CONFIG), add_pooling_layer=False)


def image_processor() -> ViTImageProcessor:
    """The preprocessing that is saved with the model: the whole picture, squashed to the native size."""
    return ViTImageProcessor(
        size={"height": SIDE, "width": SIDE}, resample=3, image_mean=[MEAN] * 3, image_std=[DEVIATION] * 3
    )


def to_pixels(drawn: np.ndarray) -> Tensor:
    """Bytes [B, H, W, 3] -> the model's input [B, 3, H, W], as `image_processor` makes it."""
    return (torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255 - MEAN) / DEVIATION


def save_dino(model: ViTModel, folder: Path) -> None:
    """Write the model in float16 with its preprocessing, in transformers' layout, for `load_vit(folder)`.

    The folder is replaced as a whole. `model` is not changed.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    halves = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(temporary, state_dict=halves)
    image_processor().save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
