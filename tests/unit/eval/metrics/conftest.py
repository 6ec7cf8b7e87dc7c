"""Small random backbones on disk, and edits to be measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

from careedit.files import png_bytes
from careedit_eval.metrics import ScoreItem
from careedit_eval.pictures import PictureRef
from careedit_eval.records import EditRow, Sample

CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    "quick_gelu": True,
}
"""ViT-B/32's input and text, with next to nothing behind them."""


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP in open_clip's hub layout, which sees pictures as OpenAI's ViT-B/32 does."""
    folder = tmp_path_factory.mktemp("backbones") / "clip"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = open_clip.CLIP(
            CLIP["embed_dim"], open_clip.CLIPVisionCfg(**CLIP["vision_cfg"]), CLIP["text_cfg"], quick_gelu=True
        )
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    shown = {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": shown}))
    return folder


def save_vit(folder: Path, **config: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        ViTModel(ViTConfig(**config), add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random ViT that reads pictures of 224 x 224, as `facebook/dino-vits16` does."""
    folder = tmp_path_factory.mktemp("backbones") / "small"
    return save_vit(folder, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)


@pytest.fixture(scope="session")
def vits16_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ViT-S/16 of the true size, to be loaded and not to be run."""
    folder = tmp_path_factory.mktemp("backbones") / "dino-vits16"
    return save_vit(folder, hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)


@pytest.fixture(scope="session")
def make_item() -> Callable[..., ScoreItem]:
    """`make_item(source, edited, target=, mask=, rival=, texts=, ...)`; bytes stand for themselves."""

    def data(picture: Image.Image | bytes) -> bytes:
        return picture if isinstance(picture, bytes) else png_bytes(picture)

    def make(
        source: Any,
        edited: Any,
        *,
        target: Any = None,
        mask: Any = None,
        rival: Any = None,
        edit: Any = None,
        **fields: Any,
    ) -> ScoreItem:
        given = {name: PictureRef.of(data(p)) for name, p in (("target", target), ("mask", mask)) if p is not None}
        fields = {"id": "a", "kind": "Add", "instruction": "add a red circle", "group": "g"} | fields | given
        sample = Sample(source=PictureRef.of(data(source)), **fields)
        row = {"edit_key": "k", "sample_id": "a", "kind": "Add", "group": "g", "arm": "A", "seed": 0}
        made = EditRow(picture="a.png", picture_sha256="0" * 64, **row, **(edit or {}))
        return ScoreItem(sample, made, data(edited), None if rival is None else data(rival))

    return make


@pytest.fixture(scope="session")
def inverted(draw_picture) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.point(lambda value: 255 - value)
