"""Training items as latents on disk: drawn and encoded once, shown many times.

Encoding a canvas costs about as much as a training step on it, so each pool is written as safetensors shards; a shard
that exists is not made again, and several processes may make different shards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from careedit.editing import EditorBase
from careedit.tiny.family import MAX_SEQUENCE_LENGTH
from careedit.training.items import Items

SHARD = 512
"""Items per file."""
CLIP_LENGTH = 40
"""CLIP tokens kept: its attention is causal, so padding behind the end token changes nothing."""


def encode_canvases(base: EditorBase, canvases: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> normalised latents [B, C, H/4, W/4], float16."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean = base.vae.encode(canvases).latent_dist.mean.float()
    config: Any = base.vae.config
    latents: Tensor = (mean - config.shift_factor) * config.scaling_factor
    return latents.half()


def _encode(items: Items, first: int, count: int, base: EditorBase) -> dict[str, Tensor]:
    drawn = [items(first + i) for i in range(count)]
    pixels = torch.from_numpy(np.stack([np.asarray(item.canvas) for item in drawn])).permute(0, 3, 1, 2) / 127.5 - 1
    masks = torch.from_numpy(np.stack([np.asarray(item.mask) for item in drawn]))[:, None] > 127
    prompts = [item.prompt for item in drawn]
    lengths: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    chunks = list(zip(torch.split(pixels, 64), torch.split(masks, 64), strict=True))
    return {
        "clean": torch.cat([encode_canvases(base, pixel) for pixel, _ in chunks]),
        "given": torch.cat([encode_canvases(base, pixel * ~mask) for pixel, mask in chunks]),
        "mask": masks.to(torch.uint8),
        "t5": base.tokenizer_2(prompts, max_length=MAX_SEQUENCE_LENGTH, **lengths).input_ids.to(torch.int16),
        "clip": base.tokenizer(prompts, max_length=CLIP_LENGTH, **lengths).input_ids.to(torch.int16),
    }


def build_pool(name: str, items: Items, size: int, base: EditorBase, folder: Path) -> None:
    """Write the missing shards of a pool of `size` items (rounded up to whole shards)."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in track(range(-(-size // SHARD)), description=f"pool {name}", console=Console(stderr=True)):
        path = folder / f"{name}-{shard:04d}.safetensors"
        if not path.exists():
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            tensors = {key: value.contiguous() for key, value in _encode(items, shard * SHARD, SHARD, base).items()}
            save_file(tensors, temporary)
            os.replace(temporary, path)


def load_pool(name: str, folder: Path) -> Mapping[str, Tensor]:
    """All items of a pool: "clean", "given" [N, C, h, w], "mask" [N, 1, H, W], "t5", "clip" token ids [N, L]."""
    shards = [load_file(path) for path in sorted(folder.glob(f"{name}-*.safetensors"))]
    if not shards:
        raise FileNotFoundError(f"The pool {name} in {folder} has no shards; build it first.")
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
