from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from careedit.errors import AdapterError, ManifestError
from careedit.experts import DEFAULT_TARGETS, BaseShapes, load_adapter, make_manifest, save_adapter
from careedit.files import file_digest


def test_a_trained_lora_is_saved_and_read_again(tmp_path: Path, transformer: Any, shapes: BaseShapes) -> None:
    transformer.add_adapter(
        LoraConfig(r=8, lora_alpha=16, target_modules=DEFAULT_TARGETS, init_lora_weights=False), adapter_name="x"
    )
    state = get_peft_model_state_dict(transformer, adapter_name="x")
    path = tmp_path / "deep" / "adapter.safetensors"
    digest = save_adapter(path, state, rank=8, alpha=16)
    assert digest == file_digest(path)
    read = load_adapter(path, shapes)
    assert (read.rank, read.alpha) == (8, 16.0)
    for name, module in read.modules.items():
        assert torch.equal(module.down, state[f"{name}.lora_A.weight"])
        assert torch.equal(module.up, state[f"{name}.lora_B.weight"])


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, lora: Any, keys: Any) -> None:
    state = keys(lora(1))
    first = save_adapter(tmp_path / "a.safetensors", state, 8, 8)
    second = save_adapter(tmp_path / "b.safetensors", dict(reversed(state.items())), 8, 8)
    assert first == second
    assert save_adapter(tmp_path / "c.safetensors", state, 8, 16) != first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_embedder.lora_A.weight": torch.full((8, 128), torch.nan)}, "training has diverged"),
        ({"x_embedder.weight": torch.zeros(8, 8)}, "is not a LoRA weight"),
        ({"x_embedder.lora_A.weight": torch.zeros(4, 128)}, "not rank 8"),
    ],
)
def test_what_is_no_usable_lora_is_not_saved(
    tmp_path: Path, lora: Callable[..., Any], keys: Any, change: dict[str, Tensor], words: str
) -> None:
    with pytest.raises(AdapterError, match=words):
        save_adapter(tmp_path / "a.safetensors", keys(lora(1)) | change, 8, 8)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_saved_in_no_other_format(tmp_path: Path, lora: Any, keys: Any) -> None:
    with pytest.raises(AdapterError, match="safetensors"):
        save_adapter(tmp_path / "a.bin", keys(lora(1)), 8, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"competence": "Not a word!"}, "'competence'"),
        ({"handles": ("Remove It",)}, "'handles.0'"),
        ({"description": ""}, "'description'"),
        ({"name": "../x"}, "cannot be used"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_not_made(
    adapter: Callable[..., Path], shapes: BaseShapes, change: dict[str, Any], words: str
) -> None:
    fields: dict[str, Any] = {
        "name": "erase",
        "competence": "erase",
        "description": "Removes.",
        "handles": ("remove",),
        "base_name": "tiny",
        "licence": "MIT",
        "provenance": "Drawn.",
    }
    with pytest.raises(ManifestError, match=words):
        make_manifest(adapter(), shapes, **(fields | change))
