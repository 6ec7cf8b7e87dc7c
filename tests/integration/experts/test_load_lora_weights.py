"""Files of every accepted layout do here what `FluxFillPipeline.load_lora_weights` makes of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import FluxFillPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from careedit.experts import (
    DEFAULT_TARGETS,
    ICEDIT_TARGETS,
    MemoryLibrary,
    load_adapter,
    make_applier,
    save_adapter,
    shapes_of,
)
from careedit_tiny.models.family import build_pipeline
from velocities import velocity_inputs

DOUBLE_ATTENTION = r"transformer_blocks\.\d+\.attn\.to_out\.0|transformer_blocks\.\d+\.ff\.net\.2"


@pytest.fixture(scope="module")
def pristine() -> Any:
    return build_pipeline(["a diptych of two scenes"])


@pytest.fixture
def pipeline(pristine: Any) -> Any:
    """The pipeline with a transformer of its own, which a test may change."""
    return type(pristine)(**{**pristine.components, "transformer": copy.deepcopy(pristine.transformer)})


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def trained(pipeline: Any, targets: str, rank: int, alpha: int, **options: Any) -> dict[str, Tensor]:
    """A LoRA as peft leaves it after training: keys `<module>.lora_A.weight`."""
    transformer = copy.deepcopy(pipeline.transformer)
    torch.manual_seed(7)
    transformer.add_adapter(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights=False, **options)
    )
    return {key: tensor * 0.3 for key, tensor in get_peft_model_state_dict(transformer).items()}


def prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"transformer.{key}": tensor.contiguous() for key, tensor in tensors.items()}


def ours_by_save_adapter(pipeline: Any, path: Path) -> None:
    save_adapter(path, trained(pipeline, DEFAULT_TARGETS, 16, 32), rank=16, alpha=32)


def by_save_lora_weights(pipeline: Any, path: Path) -> None:
    config = LoraConfig(r=16, lora_alpha=24, target_modules=DEFAULT_TARGETS, alpha_pattern={"attn.to_q": 8})
    FluxFillPipeline.save_lora_weights(
        path.parent,
        transformer_lora_layers=trained(pipeline, DEFAULT_TARGETS, 16, 24),
        transformer_lora_adapter_metadata=cast(Any, config).to_dict(),
        weight_name=path.name,
    )


def by_icedit(pipeline: Any, path: Path) -> None:
    """As River-Zhang/ICEdit's `save_lora`: no metadata, rank = alpha = 32, x_embedder and norms among the targets."""
    FluxFillPipeline.save_lora_weights(
        path.parent, transformer_lora_layers=trained(pipeline, ICEDIT_TARGETS, 32, 32), weight_name=path.name
    )


def with_alpha_keys(pipeline: Any, path: Path) -> None:
    tensors = prefixed(trained(pipeline, DEFAULT_TARGETS, 8, 8))
    names = {key.split(".lora_")[0] for key in tensors}
    save_file(tensors | {f"{name}.alpha": torch.tensor(4.0 if "attn" in name else 12.0) for name in names}, path)


def with_older_keys(pipeline: Any, path: Path) -> None:
    tensors = prefixed(trained(pipeline, DEFAULT_TARGETS, 8, 8))
    old = {key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): tensor for key, tensor in tensors.items()}
    save_file(old, path)


def by_kohya(pipeline: Any, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for key, tensor in trained(pipeline, DOUBLE_ATTENTION, 8, 8).items():
        match = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)\.lora_(A|B)\.weight", key)
        assert match is not None
        name = {"attn.to_out.0": "img_attn_proj", "ff.net.2": "img_mlp_2"}[match[2]]
        base = f"lora_unet_double_blocks_{match[1]}_{name}"
        tensors[f"{base}.lora_{'down' if match[3] == 'A' else 'up'}.weight"] = tensor.contiguous()
        tensors[f"{base}.alpha"] = torch.tensor(4.0)
    save_file(tensors, path)


def by_xlabs(pipeline: Any, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for key, tensor in trained(pipeline, r"transformer_blocks\.\d+\.attn\.to_q", 8, 8).items():
        block, side = key.split(".")[1], "down" if "lora_A" in key else "up"
        tensors[f"double_blocks.{block}.processor.qkv_lora1.{side}.weight"] = (
            tensor.contiguous() if side == "down" else tensor.repeat(3, 1)
        )
    save_file(tensors, path)


def with_several_ranks(pipeline: Any, path: Path) -> None:
    save_file(prefixed(trained(pipeline, DEFAULT_TARGETS, 16, 16, rank_pattern={"attn.to_q": 8, "proj_mlp": 24})), path)


@pytest.mark.parametrize(
    "write",
    [
        ours_by_save_adapter,
        by_save_lora_weights,
        by_icedit,
        with_alpha_keys,
        with_older_keys,
        by_kohya,
        by_xlabs,
        with_several_ranks,
    ],
)
def test_a_file_has_the_effect_that_load_lora_weights_gives_it(
    pipeline: Any, pristine: Any, tmp_path: Path, write: Any
) -> None:
    path = tmp_path / "pytorch_lora_weights.safetensors"
    write(pipeline, path)
    inputs = velocity_inputs(pipeline)
    plain = pristine.transformer(**inputs, return_dict=False)[0]
    pipeline.load_lora_weights(str(path))
    expected = pipeline.transformer(**inputs, return_dict=False)[0]
    assert (expected - plain).abs().max() > 1e-3

    shapes = shapes_of(pristine.transformer)
    library = MemoryLibrary({"expert": load_adapter(path, shapes)}, shapes)
    for application in ("merged", "shared"):
        applier = make_applier(copy.deepcopy(pristine.transformer), library, application)
        with applier.lease(["expert"]):
            output = applier.velocity(["expert", "expert"], inputs)
        torch.testing.assert_close(output, expected, rtol=0.0, atol=1e-4)


def test_the_icedit_file_has_the_released_one_s_keys(pipeline: Any, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_lora_weights.safetensors"
    by_icedit(pipeline, path)
    tensors = load_file(path)
    assert "transformer.x_embedder.lora_A.weight" in tensors
    assert "transformer.single_transformer_blocks.0.norm.linear.lora_B.weight" in tensors
    assert not any("add_" in key or "context" in key or "alpha" in key for key in tensors)
    assert len(tensors) == 2 * (1 + 6 * 2 + 6 * 4)
