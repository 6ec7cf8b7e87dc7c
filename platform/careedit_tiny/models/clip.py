"""The architecture of the tiny CLIP: open_clip's own class and tokenizer, small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save

from careedit.encoders import OpenClipEncoder
from careedit.encoders.openclip import CONFIG_FILE, WEIGHTS_FILE
from careedit.files import write_atomic
from careedit_tiny.world.geometry import GEOMETRY

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": GEOMETRY.side,
        "layers": 3,
        "width": 128,
        "head_width": 32,
        "patch_size": GEOMETRY.token,
    },
    # Narrow, so that the tokenizer's 49,408 rows take 6 MB in float16, nearly all of them zero.
    "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
"""Configuration of the model, open_clip's `model_cfg`."""

PREPROCESS: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
"""Configuration of the preprocessing, open_clip's `preprocess_cfg`."""


def build_clip(*, vocab_size: int | None = None) -> open_clip.CLIP:
    """The untrained model. `vocab_size` differs from the tokenizer's while only a part of the table is trained."""
    text = CONFIG["text_cfg"] | ({} if vocab_size is None else {"vocab_size": vocab_size})
    model = open_clip.CLIP(CONFIG["embed_dim"], open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"]), text)
    open_clip.model.set_model_preprocess_cfg(model, {"size": CONFIG["vision_cfg"]["image_size"], **PREPROCESS})
    return model


def tokenizer() -> Any:
    """open_clip's `SimpleTokenizer`, at this model's context length."""
    return open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])


def untrained_encoder(seed: int = 0) -> OpenClipEncoder:
    """An encoder of this architecture with random weights, for tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OpenClipEncoder(build_clip(), tokenizer())


def save_clip(model: torch.nn.Module, folder: Path) -> None:
    """Write the model in float16, in open_clip's hub layout, for `load_encoder(folder)`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    write_atomic(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    config = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}, indent=1)
    write_atomic(folder / CONFIG_FILE, f"{config}\n".encode())
