"""Any vision transformer of transformers (ViT, DINO, DINOv2) as an encoder: one feature vector per picture, for metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel
from transformers.utils import logging as transformers_logging

from careedit.errors import ExpertError
from careedit.hub import split_hub_id, warn_unless_pinned
from careedit.loading import loading

Preprocess = Callable[[Image.Image], Tensor]
"""Turns an RGB picture into normalised pixels [3, H, W]."""

BATCH = 64
"""Default number of pictures in one forward pass."""


class VitEncoder:
    """Class-token features of a vision transformer.

    `model` is what `AutoModel` gives for pictures. `preprocess` decides what the model sees of a picture. It is part of a
    metric's identity, because protocols resize and crop differently.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess, *, batch: int = BATCH) -> None:
        self.model = cast(Any, model.eval().requires_grad_(False))
        self.preprocess, self.batch = preprocess, batch
        self._device = next(model.parameters()).device

    @property
    def width(self) -> int:
        """Length d of a feature vector."""
        return int(self.model.config.hidden_size)

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """The last layer's class token, after its norm: float32 [B, d] on the model's device, not of length 1."""
        parts = [self._states(images[i : i + self.batch]) for i in range(0, len(images), self.batch)]
        return torch.cat(parts) if parts else torch.zeros(0, self.width, device=self._device)

    def _states(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.stack([self.preprocess(image.convert("RGB")) for image in images])
        states: Tensor = self.model(pixel_values=pixels.to(self._device)).last_hidden_state
        return states[:, 0].float()


def load_vit(
    source: str | os.PathLike[str],
    *,
    preprocess: Preprocess | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch: int = BATCH,
) -> VitEncoder:
    """Loads a vision transformer by folder or hub id, e.g. "facebook/dino-vits16@COMMIT"; a warning without the commit.

    Without `preprocess`, pictures are treated as the model's own image processor says, resized by Pillow. Raises
    `ExpertError` if the model cannot be loaded or has no class token.
    """
    name, revision = split_hub_id(os.fspath(source))
    warn_unless_pinned("The vision model", name, revision)
    log: Any = transformers_logging
    bars = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        with loading(f"vision model {name!r}"):
            model = AutoModel.from_pretrained(
                name, revision=revision or "main", dtype=dtype, trust_remote_code=False
            ).to(device)
            if preprocess is None:
                preprocess = _as_configured(
                    cast(Any, AutoImageProcessor).from_pretrained(
                        name, revision=revision or "main", backend="pil", trust_remote_code=False
                    )
                )
    finally:
        if bars:
            log.enable_progress_bar()
    if not hasattr(getattr(getattr(model, "embeddings", None), "cls_token", None), "shape"):
        raise ExpertError(
            f"The model {name!r} has no class token for pictures; give a ViT such as facebook/dino-vits16."
        )
    if getattr(model, "pooler", None) is not None:
        # Features do not pass through it, and most checkpoints lack it: it would be random, and with it a hash of the weights.
        model.pooler = None
    return VitEncoder(model, preprocess, batch=batch)


def _as_configured(processor: Any) -> Preprocess:
    def preprocess(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return preprocess
