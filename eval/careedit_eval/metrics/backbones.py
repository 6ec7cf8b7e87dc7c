"""The models of CLIP and DINO metrics. Each is loaded once per process, and each image and text is embedded once.

All batches have one fixed size and are padded to it. So the bits of an embedding do not depend on the rest of its batch, and
a resumed run gives the same table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
from cachetools import LRUCache
from open_clip.model import get_model_preprocess_cfg
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from transformers import AutoConfig, AutoImageProcessor

from careedit import plugins
from careedit.encoders import load_encoder
from careedit.encoders.vit import load_vit
from careedit.errors import ExpertError, InputError
from careedit.files import json_digest
from careedit.hub import split_hub_id
from careedit.images import image_sha256
from careedit_eval.errors import MetricError, reason_of
from careedit_eval.records import Weights

Vector = np.ndarray[Any, np.dtype[np.float64]]
BATCH = 16
"""The number of images or texts per forward pass."""
MEMORY = 8192
"""The number of embeddings that are cached: targets and captions occur again with every expert set."""
MAGICBRUSH_CLIP = ("ViT-B-32-quickgelu", "openai")
"""OpenAI's own ViT-B/32 was trained with the quick GELU, for which open_clip has its own architecture."""
MAGICBRUSH_DINO = "facebook/dino-vits16"

Thing = TypeVar("Thing")


class Embedder(Generic[Thing]):
    """Embeds images or texts as float64 vectors, cached by content."""

    def __init__(self, embed: Callable[[list[Thing]], Tensor], key: Callable[[Thing], str], batch: int) -> None:
        self._embed, self._key, self.batch = embed, key, batch
        self._known: LRUCache[str, Vector] = LRUCache(MEMORY)

    def __call__(self, things: Sequence[Thing]) -> list[Vector]:
        """One vector per item, in order; equal items are embedded once."""
        keys = [self._key(thing) for thing in things]
        wanted = {key: thing for key, thing in zip(keys, things, strict=True) if key not in self._known}
        found = {key: self._known[key] for key in keys if key in self._known}
        new = list(wanted)
        for first in range(0, len(new), self.batch):
            part = new[first : first + self.batch]
            full = [wanted[key] for key in part] + [wanted[part[0]]] * (self.batch - len(part))
            vectors = self._embed(full).cpu().numpy().astype(np.float64)
            found.update(zip(part, vectors, strict=False))
        self._known.update(found)
        return [found[key] for key in keys]

    def forget(self) -> None:
        """Forget all embeddings; what follows is embedded again."""
        self._known.clear()


@dataclass(frozen=True)
class VitBackbone:
    """A model that embeds images, for metrics."""

    name: str
    """The name of the model, and the library that runs it."""
    revision: str
    """The sha256 of the model's weights."""
    preprocessing: str
    """How images are resized and normalised, in words."""
    images: Embedder[Image.Image]
    """Embeds images and remembers their embeddings."""
    weights: Weights = field(default="", kw_only=True)
    """Whether the weights are known as those that a protocol names; empty without such a protocol."""


@dataclass(frozen=True)
class ClipBackbone(VitBackbone):
    """A CLIP model for metrics, which also embeds texts."""

    texts: Embedder[str]
    """Embeds texts. A longer text is truncated to the context, and the end token is kept."""
    is_cut: Callable[[str], bool]
    """Whether a text is longer than the context."""


@lru_cache(maxsize=4)
def clip_backbone(model: str | None, pretrained: str | None, device: str, batch: int = BATCH) -> ClipBackbone:
    """An open_clip model by name (with `pretrained`, a tag or a file) or folder; None means the tiny CLIP of the package."""
    try:
        encoder = load_encoder(
            packaged("tiny_clip") if model is None else model, pretrained=pretrained, device=device, cache_entries=0
        )
    except ExpertError as error:
        raise MetricError(str(error)) from error
    config = get_model_preprocess_cfg(encoder.model)
    sides = [config["size"]] if isinstance(config["size"], int) else list(config["size"])
    size = "x".join(map(str, dict.fromkeys(sides)))
    shape = {"shortest": f"shorter side to {size}, centre crop"}.get(config["resize_mode"], config["resize_mode"])
    return ClipBackbone(
        name=f"open_clip {'tiny' if model is None else _named(model)} {pretrained or ''}".strip(),
        revision=hash_weights(encoder.model),
        preprocessing=f"{shape} {size}, {config['interpolation']} by Pillow; mean {config['mean']}, std {config['std']}",
        images=Embedder(encoder.image_embeddings, image_sha256, batch),
        texts=Embedder(encoder.text_embeddings, str, batch),
        is_cut=lru_cache(MEMORY)(encoder.is_cut),
    )


@lru_cache(maxsize=4)
def vit_backbone(model: str | None, magicbrush: bool, device: str, batch: int = BATCH) -> VitBackbone:
    """A transformers ViT by hub id or folder; None means the tiny DINO of the package.

    With `magicbrush`, images are preprocessed as in MagicBrush's script, otherwise by the model's own image processor.
    """
    source = str(packaged("tiny_dino")) if model is None else model
    try:
        encoder = load_vit(source, preprocess=dino_preprocess() if magicbrush else None, device=device, batch=batch)
    except ExpertError as error:
        raise MetricError(str(error)) from error
    how = "shorter side to 256, bicubic by Pillow, centre crop 224; ImageNet mean and std"
    if not magicbrush:
        name, revision = split_hub_id(source)
        processor = (
            cast(Any, AutoImageProcessor)
            .from_pretrained(name, revision=revision or "main", backend="pil", trust_remote_code=False)
            .to_dict()
        )
        how = f"its own image processor, {json_digest({k: v for k, v in processor.items() if k[0] != '_'})[:16]}"
    return VitBackbone(
        name=f"transformers {'tiny' if model is None else _named(model)}",
        revision=hash_weights(encoder.model),
        preprocessing=how,
        images=Embedder(encoder.features, image_sha256, batch),
    )


def check_dino_vits16(model: str) -> None:
    """Raises `MetricError` if a folder or hub id is not a ViT-S/16, because MagicBrush's protocol uses that model."""
    try:
        name, revision = split_hub_id(model)
        found = AutoConfig.from_pretrained(name, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MetricError(
            f"The vision model {model!r} cannot be loaded ({reason_of(error)}); check its files."
        ) from error
    shape = tuple(getattr(found, name, None) for name in ("hidden_size", "num_hidden_layers", "patch_size"))
    if shape != (384, 12, 16):
        raise MetricError(
            f"{model!r} is not a ViT-S/16, which magicbrush-v1 uses for DINO; give facebook/dino-vits16, or use the protocol own."
        )


def dino_preprocess() -> Callable[[Image.Image], Tensor]:
    """MagicBrush's preprocessing (`evaluation/image_eval.py`), with ImageNet's mean and standard deviation."""
    return cast(
        Callable[[Image.Image], Tensor],
        transforms.Compose(
            [
                transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        ),
    )


def hash_weights(model: nn.Module) -> str:
    """`hash_tensors` of a model."""
    return hash_tensors(model.state_dict())


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 over names, shapes and float32 values. Equal weights have equal hashes, in whatever file they are."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        data = value.detach().cpu()
        data = data.float() if data.is_floating_point() else data
        digest.update(f"{name} {list(data.shape)}\n".encode())
        digest.update(data.contiguous().numpy().tobytes())
    return digest.hexdigest()


def packaged(name: str) -> Path:
    """The folder of the encoder that an installed package provides as `name`. Raises `MetricError` if no package does."""
    provider = plugins.load(plugins.BACKBONES, name, error=MetricError)
    if provider is None:
        raise MetricError(f"No installed package has the encoder {name!r}; name another model by folder or hub id.")
    try:
        return Path(provider())
    except InputError as error:
        raise MetricError(str(error)) from error


def _named(model: str) -> str:
    return Path(model).resolve().name if Path(model).is_dir() else model
