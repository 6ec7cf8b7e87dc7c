from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from careedit.errors import AdapterError
from careedit.experts import ICEDIT_TARGETS, LoraState, load_adapter

ATTENTION = r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)"


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def assert_same(state: LoraState, expected: LoraState) -> None:
    assert state.modules.keys() == expected.modules.keys()
    for name, module in state.modules.items():
        other = expected.modules[name]
        torch.testing.assert_close(module.up @ module.down * module.scale, other.up @ other.down * other.scale)


@pytest.mark.parametrize("prefix", ["transformer.", "", "base_model.model.", "base_model.model.transformer."])
def test_every_prefix_of_diffusers_and_peft_is_understood(tmp_path, shapes, lora, keys, prefix):
    state = lora(1)
    path = write(tmp_path / "a.safetensors", prefixed(prefix, keys(state)))
    assert_same(load_adapter(path, shapes, alpha=8.0), state)


def test_an_icedit_file_is_read_with_alpha_equal_to_rank(tmp_path, shapes, lora, keys):
    state = lora(1, rank=32, alpha=32.0, targets=ICEDIT_TARGETS)
    tensors = {key: tensor.bfloat16() for key, tensor in prefixed("transformer.", keys(state)).items()}
    read = load_adapter(write(tmp_path / "pytorch_lora_weights.safetensors", tensors, {"format": "pt"}), shapes)
    assert read.rank == 32
    assert {module.scale for module in read.modules.values()} == {1.0}
    assert {"x_embedder", "transformer_blocks.0.norm1.linear", "single_transformer_blocks.3.norm.linear"} <= set(
        read.modules
    )


def test_alpha_keys_scale_their_module_and_the_first_one_the_rest_as_in_diffusers(tmp_path, shapes, lora, keys):
    state = lora(1, targets=ATTENTION)
    alphas = {f"transformer.{name}.alpha": torch.tensor(4.0) for name in list(state.modules)[1:-1]}
    first, last = next(iter(state.modules)), list(state.modules)[-1]
    alphas[f"transformer.{first}.alpha"] = torch.tensor(16.0)
    read = load_adapter(write(tmp_path / "a.safetensors", prefixed("transformer.", keys(state)) | alphas), shapes)
    assert read.modules[first].scale == 2.0
    assert read.modules[last].scale == 0.5
    assert read.alpha == 4.0


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": 8, "lora_alpha": 24}, 3.0),
        ({"r": 8, "lora_alpha": 24, "alpha_pattern": {"attn.to_q": 4}}, 0.5),
        ({"r": 8, "lora_alpha": 8, "use_rslora": True}, 8**0.5),
    ],
)
def test_the_metadata_of_diffusers_scales_as_peft_does(tmp_path, shapes, lora, keys, config, scale):
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in config.items()})}
    path = write(tmp_path / "a.safetensors", prefixed("transformer.", keys(lora(1, targets=ATTENTION))), metadata)
    read = load_adapter(path, shapes)
    assert read.modules["transformer_blocks.0.attn.to_q"].scale == pytest.approx(scale)


def test_the_older_down_and_up_keys_are_understood(tmp_path, shapes, lora, keys):
    state = lora(1)
    tensors = {
        key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): tensor
        for key, tensor in prefixed("transformer.", keys(state)).items()
    }
    assert_same(load_adapter(write(tmp_path / "a.safetensors", tensors), shapes), state)


def test_a_kohya_file_is_converted_with_its_alpha(tmp_path, shapes, lora):
    state = lora(1, alpha=4.0, targets=r"transformer_blocks\.\d+\.(attn\.to_out\.0|ff\.net\.2)")
    names = {"attn.to_out.0": "img_attn_proj", "ff.net.2": "img_mlp_2"}
    tensors: dict[str, Tensor] = {}
    for name, module in state.modules.items():
        _, block, rest = name.split(".", 2)
        key = f"lora_unet_double_blocks_{block}_{names[rest]}"
        tensors |= {f"{key}.lora_down.weight": module.down, f"{key}.lora_up.weight": module.up}
        tensors[f"{key}.alpha"] = torch.tensor(module.alpha)
    assert_same(load_adapter(write(tmp_path / "a.safetensors", tensors), shapes), state)


def test_an_xlabs_file_is_split_into_its_projections(tmp_path, shapes, lora):
    state = lora(1, targets=r"transformer_blocks\.\d+\.attn\.to_q")
    tensors: dict[str, Tensor] = {}
    for block, module in enumerate(state.modules.values()):
        key = f"double_blocks.{block}.processor.qkv_lora1"
        tensors |= {f"{key}.down.weight": module.down, f"{key}.up.weight": module.up.repeat(3, 1)}
    read = load_adapter(write(tmp_path / "a.safetensors", tensors), shapes)
    assert len(read.modules) == 6
    assert_same(LoraState({name: m for name, m in read.modules.items() if name.endswith("to_q")}), state)


def test_a_peft_file_takes_its_alpha_from_the_configuration_in_its_folder(tmp_path, shapes, lora, keys, describe):
    path = write(tmp_path / "adapter_model.safetensors", prefixed("base_model.model.", keys(lora(1))))
    with pytest.raises(AdapterError, match="states no alpha"):
        load_adapter(path, shapes)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 24}))
    manifest = describe(path)
    assert (manifest.format, manifest.alpha) == ("peft", 24.0)
    read = load_adapter(path, shapes, manifest=manifest)
    assert {module.scale for module in read.modules.values()} == {3.0}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 24, "use_rslora": True}))
    with pytest.raises(AdapterError, match="one alpha cannot state"):
        describe(path)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("transformer.transformer_blocks.0.ff.net.2.experts.0.lora_A.weight", "MoE-LoRA"),
        ("transformer.single_transformer_blocks.0.proj_out.lora_A.experts.1.weight", "MoE-LoRA"),
        ("transformer.single_transformer_blocks.0.proj_out.lora_route.weight", "MoE-LoRA"),
        ("transformer.single_transformer_blocks.0.proj_out.router.weight", "MoE-LoRA"),
        ("transformer.transformer_blocks.0.attn.to_q.dora_scale", "DoRA"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector", "DoRA"),
        ("transformer.transformer_blocks.0.attn.to_q.lokr_w1", "LoKr"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_B.bias", "biases"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", "text encoder"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "text encoder"),
        ("transformer.transformer_blocks.0.attn.norm_q.weight", "control LoRA"),
        ("transformer.something_else", "not a LoRA weight"),
        ("transformer.transformer_blocks.1.attn.to_q.lora_C.weight", "not a LoRA weight"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(tmp_path, shapes, lora, keys, extra, words):
    tensors = prefixed("transformer.", keys(lora(1, targets=ATTENTION))) | {extra: torch.zeros(8, 192)}
    with pytest.raises(AdapterError, match=words):
        load_adapter(write(tmp_path / "a.safetensors", tensors), shapes)


def test_half_a_pair_is_refused(tmp_path, shapes, lora, keys):
    tensors = prefixed("transformer.", keys(lora(1, targets=ATTENTION)))
    del tensors["transformer.transformer_blocks.1.attn.to_q.lora_B.weight"]
    with pytest.raises(AdapterError, match=r"no matching pair.*'transformer_blocks\.1\.attn\.to_q'"):
        load_adapter(write(tmp_path / "a.safetensors", tensors), shapes)


def test_a_file_without_lora_weights_is_refused(tmp_path, shapes):
    with pytest.raises(AdapterError):
        load_adapter(write(tmp_path / "a.safetensors", {}), shapes)


@pytest.mark.parametrize("text", ["no json", "[1]", '{"transformer.r": 8}', '{"lora_alpha": "x", "r": 8}'])
def test_broken_metadata_is_refused(tmp_path, shapes, lora, keys, text):
    tensors = prefixed("transformer.", keys(lora(1, targets=ATTENTION)))
    with pytest.raises(AdapterError, match="metadata"):
        load_adapter(write(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": text}), shapes)
