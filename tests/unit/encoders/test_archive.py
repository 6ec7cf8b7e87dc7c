"""OpenAI's own CLIP files are TorchScript archives with float16 weights; they are read as any other weights are."""

import json
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip import factory
from torch import nn

from careedit.encoders import load_encoder
from careedit.encoders.openclip import is_script_archive
from careedit.errors import ExpertError

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The name of a small architecture, known to open_clip for the time of a test."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/small-clip.json").write_text(json.dumps(SMALL))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(tmp_path / "configs")
    return "small-clip"


class Part(nn.Module):
    def forward(self) -> int:
        return 0


def archive(weights: dict[str, torch.Tensor], path: Path) -> Path:
    """Weights as OpenAI arranged them: a scripted module of the same names, and three numbers among them."""
    root = Part()
    numbers = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    for name, value in {**weights, **numbers}.items():
        part = root
        *folders, last = name.split(".")
        for folder in folders:
            if folder not in part._modules:
                part.add_module(folder, Part())
            part = part.get_submodule(folder)
        part.register_buffer(last, value.half() if value.is_floating_point() else value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(root).save(path)
    return path


def test_an_archive_of_openai_gives_its_weights_in_float32_with_the_quick_gelu(small, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = open_clip.create_model(small, force_quick_gelu=True)
    weights = {name: value for name, value in model.state_dict().items() if name != "attn_mask"}
    file = archive(weights, tmp_path / "ViT-B-32.pt")
    assert is_script_archive(file)
    encoder = load_encoder(small, pretrained=str(file))
    found = encoder.model.state_dict()
    assert all(torch.equal(found[name], value.half().float()) for name, value in weights.items())
    assert {value.dtype for value in found.values() if value.is_floating_point()} == {torch.float32}
    assert type(encoder.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_an_archive_of_another_model_is_refused(small, tmp_path):
    file = archive({"a.b": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ExpertError, match="cannot be loaded"):
        load_encoder(small, pretrained=str(file))


def test_plain_weights_are_no_archive(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("x")
    assert not any(is_script_archive(tmp_path / name) for name in ("plain.pt", "text.pt", "gone.pt"))
