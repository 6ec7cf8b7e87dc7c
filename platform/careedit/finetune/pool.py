"""Training items as latents on disk: encoded once, used many times.

Encoding a canvas costs about as much as a training step on it, so each pool is written as safetensors shards. Existing
shards are reused, and several processes may make different shards. Drawn items come from `careedit.finetune.drawing`, whose
processes draw the next ones while the device encodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from careedit.editing import FluxFill, Start
from careedit.errors import CareEditError
from careedit.files import atomic_path
from careedit.finetune.drawing import in_order
from careedit.finetune.precision import products
from careedit.images import compose_canvas
from careedit.progress import counted

SHARD = 512
"""Default number of items per file."""
CLIP_LENGTH = 40
"""Default number of CLIP tokens. CLIP's attention is causal, so padding after the end token changes nothing."""
CHUNK_PIXELS = 2**17
"""Number of canvas pixels that the VAE encodes at once on a CPU: with more, its features leave the cache."""
GPU_CHUNK_PIXELS = 2**22
"""The same on a GPU, which small chunks leave idle."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One training canvas."""

    canvas: Image.Image
    """[source | target] or [reference | source | target], RGB."""
    start: Image.Image
    """The same with the source as last panel: what an edit that starts from its source encodes."""
    mask: Image.Image
    """Mode "L", the canvas's size: 255 where the model fills in."""
    prompt: str
    """The in-context prompt, as the text encoders receive it."""
    labels: NDArray[np.uint8] | None = None
    """Labels [A, T] of the canvas's tokens for an auxiliary loss. Default: none. Either all items of a pool have them, or no item."""

    @classmethod
    def of_panels(
        cls, panels: Sequence[Image.Image], mask: Image.Image, prompt: str, labels: NDArray[np.uint8] | None = None
    ) -> Item:
        """The item of [source, target] or [reference, source, target], all of one size."""
        return cls(compose_canvas(panels), compose_canvas([*panels[:-1], panels[-2]]), mask, prompt, labels)


Items = Callable[[int], Item]
"""A function from an index to a training item. Equal indices give equal items."""


def encode_canvases(base: FluxFill, canvases: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> normalised latents [B, C, h, w], float16.

    Equal canvases are encoded once. Features are channels last, which convolutions of few channels need on a CPU; this may
    change the last bit of a latent.
    """
    vae: Any = base.vae
    digests = [hashlib.sha256(canvas.numpy().tobytes()).digest() for canvas in canvases]
    place = {digest: i for i, digest in enumerate(dict.fromkeys(digests))}
    distinct = canvases[[digests.index(digest) for digest in place]]
    size = GPU_CHUNK_PIXELS if base.device.type == "cuda" else CHUNK_PIXELS
    chunks = torch.split(distinct, max(1, size // canvases[0, 0].numel()))
    with torch.no_grad(), products(base.device, base.dtype):
        means = [
            vae.encode(chunk.to(base.device, vae.dtype, memory_format=torch.channels_last))
            .latent_dist.mean.float()
            .cpu()
            for chunk in chunks
        ]
    mean = torch.cat(means).contiguous()[[place[digest] for digest in digests]]
    config: Any = base.vae.config
    latents: Tensor = (mean - config.shift_factor) * config.scaling_factor
    return latents.half()


def _encode(chosen: Sequence[Item], base: FluxFill, clip_length: int, start: Start) -> dict[str, Tensor]:
    pixels = _pixels([item.canvas for item in chosen])
    masks = torch.from_numpy(np.stack([np.asarray(item.mask) for item in chosen]))[:, None] > 127
    prompts = [item.prompt for item in chosen]
    lengths: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    tensors = {
        "clean": encode_canvases(base, pixels),
        "given": encode_canvases(base, pixels * ~masks),
        "mask": masks.to(torch.uint8),
        "t5": _ids(base.tokenizer_2(prompts, max_length=base.max_sequence_length, **lengths)),
        "clip": _ids(base.tokenizer(prompts, max_length=clip_length, **lengths)),
    }
    if start == "source":
        tensors["start"] = encode_canvases(base, _pixels([item.start for item in chosen]))
    labels = [item.labels for item in chosen if item.labels is not None]
    if labels:
        tensors["labels"] = torch.from_numpy(np.stack(labels))
    return tensors


def _pixels(canvases: Sequence[Image.Image]) -> Tensor:
    """[B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.stack([np.asarray(canvas) for canvas in canvases])).permute(0, 3, 1, 2) / 127.5 - 1


def _ids(encoded: Any) -> Tensor:
    """Token ids as int16 if they fit, otherwise as int32."""
    ids: Tensor = encoded.input_ids
    return ids.to(torch.int16 if int(ids.max()) < 2**15 else torch.int32)


def build_pool(
    name: str,
    items: Items,
    size: int,
    base: FluxFill,
    folder: Path,
    *,
    shard_size: int | None = None,
    clip_length: int = CLIP_LENGTH,
    workers: int = 0,
    start: Start = "noise",
) -> None:
    """Write the missing shards of a pool of `size` items. `workers` processes make the items; 0 makes them in this one.

    With `start="source"` the pool has what such edits start from, too. It is encoded by itself: in the canvas of the pair
    the latents of the source depend on the target next to it, which an edit does not know. Raises `CareEditError` if the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    per_shard = shard_size or SHARD
    paths = {first: folder / f"{name}-{first // per_shard:04d}.safetensors" for first in range(0, size, per_shard)}
    missing = [first for first, path in paths.items() if not path.exists()]
    wanted = [range(first, min(first + per_shard, size)) for first in missing]
    made = in_order(items, wanted, workers)
    shown = counted(zip(missing, made, strict=True), f"pool {name}", len(missing))
    with closing(cast(Any, shown)):  # ends the bar before an error is printed
        for first, chosen in shown:
            write_tensors(_encode(chosen, base, clip_length, start), paths[first])


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file of training data through a temporary name. Raises `CareEditError` if the disk is full."""
    try:
        with atomic_path(path) as temporary:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
    except (OSError, SafetensorError) as error:
        raise CareEditError(
            f"The training data {path} cannot be written ({error}); free some space and rerun."
        ) from error


def load_pool(name: str, folder: Path) -> Mapping[str, Tensor]:
    """All items of a pool: "clean" and "given" [N, C, h, w], "mask" [N, 1, H, W], token ids "t5" and "clip" [N, L],
    "start" [N, C, h, w] if it was built for edits that start from the source, and "labels" [N, A, T] if the items have labels."""
    shards = [load_file(path) for path in sorted(folder.glob(f"{name}-*.safetensors"))]
    if not shards:
        raise FileNotFoundError(f"The pool {name} in {folder} has no shards; build it first.")
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
