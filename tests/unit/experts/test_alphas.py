"""Alpha and rank of a LoRA file: every place that states them is used, and contradictions are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from careedit.cli.main import main
from careedit.errors import AdapterError, BaseMismatchError, CareEditError
from careedit.experts import load_adapter, load_expert_set

Q = "transformer.transformer_blocks.0.attn.to_q"
K = "transformer.transformer_blocks.0.attn.to_k"
PROJ, FUSED = "lora_unet_double_blocks_0_img_attn_proj", "lora_unet_double_blocks_0_img_attn_qkv"


def pair(
    layer: str, rank: int = 16, *, outer: int = 192, inner: int = 192, alpha: float | None = None
) -> dict[str, Tensor]:
    down, up = (
        ("lora_down", "lora_up") if layer.startswith("lora_") or "double_blocks" in layer else ("lora_A", "lora_B")
    )
    tensors = {f"{layer}.{down}.weight": torch.ones(rank, inner), f"{layer}.{up}.weight": torch.ones(outer, rank)}
    return tensors | ({} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)})


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> Path:
    save_file(dict(tensors), path, metadata=dict(header or {}))
    return path


def adapter_metadata(**fields: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in fields.items()})}


@pytest.mark.parametrize(
    ("header", "alpha", "scale"),
    [
        ({"lora_alpha": "64"}, None, 4.0),
        ({"network_alpha": "64.0"}, None, 4.0),
        ({"transformer.lora_alpha": "64", "format": "pt"}, None, 4.0),
        ({"ss_network_alpha": "64", "ss_network_dim": "16"}, None, 4.0),
        ({"alpha": "64", "rank": "16"}, 64.0, 4.0),
        ({"lora_alpha": "64", "use_rslora": "true"}, None, 16.0),
        ({"lora_alpha": "64", "alpha_pattern": '{"to_q": 8}'}, None, 0.5),
        ({"LORA_ALPHA": "64"}, None, 4.0),
        ({"networkAlpha": "64"}, None, 4.0),
        ({"lora_config.lora-alpha": "64", "text_encoder.lora_alpha": "8"}, None, 4.0),
        ({"lora_alpha": "64", "use_rslora": "yes"}, None, 16.0),
        ({"ss_network_alpha": "None", "ss_network_dim": "Dynamic"}, None, 1.0),
        ({"lora_alpha": "64"} | adapter_metadata(r=16, lora_alpha=64), 64.0, 4.0),
        ({}, 64.0, 4.0),
        ({}, None, 1.0),
    ],
)
def test_an_alpha_is_used_from_every_place_that_states_it(tmp_path, shapes, header, alpha, scale):
    state = load_adapter(write(tmp_path / "a.safetensors", pair(Q), header), shapes, alpha=alpha)
    assert {module.scale for module in state.modules.values()} == {scale}


@pytest.mark.parametrize(
    ("header", "alpha", "scale"),
    [({"ss_network_alpha": "8"}, None, 0.5), ({}, 4.0, 0.25), ({"lora_alpha": "8"}, 8.0, 0.5)],
)
def test_an_alpha_outside_the_keys_scales_a_kohya_file_as_a_key_would(tmp_path, shapes, header, alpha, scale):
    whole = write(tmp_path / "keys.safetensors", pair(PROJ, alpha=16 * scale))
    state = load_adapter(write(tmp_path / "a.safetensors", pair(PROJ), header), shapes, alpha=alpha)
    (module,), (expected,) = state.modules.values(), load_adapter(whole, shapes).modules.values()
    assert torch.equal(module.up @ module.down * module.scale, expected.up @ expected.down * expected.scale)
    assert state.found is not None and state.found.scales == (scale, scale)


@pytest.mark.parametrize(
    ("tensors", "header", "alpha", "words"),
    [
        (pair(Q, alpha=4.0), {"lora_alpha": "64"}, None, ["to_q.alpha' says 4", "header field 'lora_alpha' says 64"]),
        (pair(Q, alpha=4.0), {}, 8.0, ["to_q.alpha' says 4", "--alpha) says 8"]),
        (pair(PROJ, alpha=4.0), {"ss_network_alpha": "8"}, None, ["proj.alpha' says 4", "'ss_network_alpha' says 8"]),
        (
            pair(Q),
            {"lora_alpha": "64", "network_alpha": "32"},
            None,
            ["'lora_alpha' says 64", "'network_alpha' says 32"],
        ),
        (pair(Q), {"lora_alpha": "64"}, 16.0, ["'lora_alpha' says 64", "--alpha) says 16"]),
        (pair(Q), adapter_metadata(r=16, lora_alpha=8), 16.0, ["lora_adapter_metadata) says 8", "--alpha) says 16"]),
        (
            pair(Q),
            {"lora_alpha": "64"} | adapter_metadata(r=16, lora_alpha=8),
            None,
            ["lora_adapter_metadata) says 8", "'lora_alpha' says 64"],
        ),
        (pair(Q, alpha=4.0), adapter_metadata(r=16, lora_alpha=4), None, ["alpha twice", "to_q.alpha'"]),
        (
            pair(Q),
            adapter_metadata(r=8, lora_alpha=8),
            None,
            ["rank 16 for 'transformer_blocks.0.attn.to_q'", "says 8"],
        ),
        (
            pair(Q) | pair(K, 8),
            adapter_metadata(r=16, lora_alpha=8, rank_pattern={"to_k": 4}),
            None,
            ["rank 8 for 'transformer_blocks.0.attn.to_k'", "says 4"],
        ),
        (pair(Q), {"r": "8"}, None, ["rank 16", "header field 'r' says 8"]),
        (pair(PROJ), {"ss_network_dim": "32"}, None, ["rank 16", "'ss_network_dim' says 32"]),
        (pair(Q), {"lora_alpha": "many"}, None, ["'lora_alpha' is 'many', which is not a number"]),
        (pair(Q), {"lora_alpha": "nan"}, None, ["'nan' as its header field 'lora_alpha'"]),
        (pair(Q), {"lora_alpha": "-4"}, None, ["as its header field 'lora_alpha'"]),
        (pair(Q), {"alpha_pattern": "{"}, None, ["'alpha_pattern' is not JSON"]),
        (pair(Q), {"rank": "16.5"}, None, ["'16.5' as its header field 'rank'"]),
        (pair(Q), {"use_rslora": "true"}, None, ["header field 'use_rslora' needs a lora_alpha, which is missing"]),
        (
            pair(Q),
            {"use_rslora": "maybe", "lora_alpha": "8"},
            None,
            ["'use_rslora' is 'maybe', neither true nor false"],
        ),
        (pair(Q), {"lora_adapter_metadata": "[1]"}, None, ["lora_adapter_metadata) is not a JSON object"]),
        (pair(Q), adapter_metadata(r=16), None, ["lora_adapter_metadata) needs a lora_alpha, which is missing"]),
        (pair(Q), adapter_metadata(r=16, lora_alpha=[8]), None, ["'[8]' as lora_alpha in its metadata"]),
        (pair(Q), adapter_metadata(r=16.5, lora_alpha=8), None, ["'16.5' as r in its metadata"]),
        (
            pair(Q),
            adapter_metadata(r=16, lora_alpha=8, alpha_pattern={"to_(q": 4}),
            None,
            ["as alpha_pattern in its metadata"],
        ),
        (pair(Q), {"use_dora": "true"}, None, ["DoRA"]),
        (pair(PROJ, alpha=-4.0), {}, None, ["the alpha -4 for 'lora_unet_double_blocks_0_img_attn_proj'"]),
        (pair(Q) | {f"{Q}.alpha": torch.ones(2)}, {}, None, ["2 values as the alpha"]),
        (
            pair("transformer.context_embedder", inner=128, alpha=2.0)
            | pair("transformer.proj_out", outer=32, alpha=4.0)
            | pair("transformer.single_transformer_blocks.0.proj_out", inner=960, alpha=8.0),
            {},
            None,
            ["the alpha 8 for 'single_transformer_blocks.0.proj_out'", "would use 4"],
        ),
    ],
)
def test_what_contradicts_itself_is_refused_and_both_are_named(tmp_path, shapes, tensors, header, alpha, words):
    with pytest.raises(AdapterError) as caught:
        load_adapter(write(tmp_path / "a.safetensors", tensors, header), shapes, alpha=alpha)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("modules_to_save", ["proj_out"]),
        ("alora_invocation_tokens", [1]),
        ("layer_replication", [[0, 1]]),
        ("peft_type", "LOHA"),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("a_later_method", True),
    ],
)
def test_metadata_of_a_method_that_is_not_plain_lora_is_refused_by_its_field(tmp_path, shapes, field, value):
    header = adapter_metadata(r=16, lora_alpha=8, **{field: value})
    with pytest.raises(AdapterError, match=rf"{field} in its metadata \(lora_adapter_metadata\)"):
        load_adapter(write(tmp_path / "a.safetensors", pair(Q), header), shapes)


def test_metadata_about_training_alone_is_accepted(tmp_path, shapes):
    header = adapter_metadata(
        r=16, lora_alpha=8, init_lora_weights="gaussian", lora_dropout=0.1, bias="none", peft_type="LORA",
        use_dora=False, modules_to_save=None, megatron_core="megatron.core", peft_version="0.21",
    )  # fmt: skip
    state = load_adapter(write(tmp_path / "a.safetensors", pair(Q), header), shapes)
    assert {module.scale for module in state.modules.values()} == {0.5}


@pytest.mark.parametrize("field", ["network_alphas", "lora_config", "conv_alpha"])
def test_a_header_field_that_mentions_an_alpha_and_is_not_read_gives_a_warning(tmp_path, shapes, field):
    text = json.dumps({"lora_alpha": 64}) if field == "lora_config" else "64"
    state = load_adapter(write(tmp_path / "a.safetensors", pair(Q), {field: text, "ss_tag_frequency": "{}"}), shapes)
    assert state.found is not None and [field in warning for warning in state.found.warnings] == [True]


@pytest.mark.parametrize("layer", [Q, PROJ])
def test_a_key_in_half_precision_agrees_with_the_number_that_it_was_rounded_from(tmp_path, shapes, layer):
    tensors = {key: tensor.bfloat16() for key, tensor in pair(layer, alpha=1.1).items()}
    path = tmp_path / "a.safetensors"
    state = load_adapter(write(path, tensors, {"ss_network_alpha": "1.1"}), shapes, alpha=1.1)
    assert state.found is not None and state.found.scales == (1.1015625 / 16,) * 2
    with pytest.raises(AdapterError, match=r"'ss_network_alpha' says 1\.2"):
        load_adapter(write(path, tensors, {"ss_network_alpha": "1.2"}), shapes)


OUTSIDE = {
    "final_layer_linear": (192, 32), "final_layer_adaLN_modulation_1": (192, 384), "img_in": (128, 192), "txt_in": (128, 192),
    "time_in_in_layer": (256, 192), "time_in_out_layer": (192, 192), "vector_in_in_layer": (64, 192),
    "vector_in_out_layer": (192, 192), "guidance_in_in_layer": (256, 192), "guidance_in_out_layer": (192, 192),
}  # fmt: skip


@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize("layer", OUTSIDE)
def test_a_kohya_layer_outside_the_blocks_is_refused_because_diffusers_drops_it(tmp_path, shapes, layer, alpha):
    inner, outer = OUTSIDE[layer]
    tensors = pair(PROJ, alpha=8.0) | pair(f"lora_unet_{layer}", inner=inner, outer=outer, alpha=alpha)
    with pytest.raises(AdapterError, match=rf"'lora_unet_{layer}', which load_lora_weights drops"):
        load_adapter(write(tmp_path / "a.safetensors", tensors), shapes)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({f"{PROJ}.diff_b": torch.ones(192)}, "changes weights or biases directly"),
        ({f"{PROJ}.diff": torch.ones(192, 192)}, "changes weights or biases directly"),
        ({"diffusion_model.double_blocks.0.img_attn.norm.key_norm.diff": torch.ones(64)}, "changes weights or biases"),
        ({"diffusion_model.double_blocks.0.img_attn.proj.set_weight": torch.ones(1)}, "changes weights or biases"),
        ({f"{PROJ}.lora_bias": torch.ones(192)}, "biases"),
        ({f"{PROJ}.lora_up.bias": torch.ones(192)}, "biases"),
        ({f"{PROJ}.dora_scale": torch.ones(192, 1)}, "DoRA"),
        ({f"{FUSED}.lokr_w1": torch.ones(4, 4)}, "LoKr, LoHa"),
        ({f"{FUSED}.hada_w1_a": torch.ones(4, 4)}, "LoKr, LoHa"),
        ({f"{PROJ}.lora_mid.weight": torch.ones(4, 4)}, "LoKr, LoHa"),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(4, 4)}, "text encoder"),
        ({"lora_te2_encoder_block_0_layer_0.lora_up.weight": torch.ones(4, 4)}, "text encoder"),
        ({"text_encoders.t5xxl.transformer.shared.lora_up.weight": torch.zeros(4, 4)}, "text encoder"),
        ({"text_encoder_2.shared.lora_A.weight": torch.ones(4, 4)}, "text encoder"),
        ({f"{PROJ}.scale": torch.ones(1)}, "not a LoRA weight"),
        (pair("transformer.transformer_blocks.0.attn.to_q"), "'lora_unet_double_blocks_0_img_attn_proj', which .* drops"),
        (pair("diffusion_model.double_blocks.0.img_attn.proj"), "twice, as .*diffusion_model.* and as .*lora_unet"),
        (pair("double_blocks.0.img_attn.proj"), "'double_blocks.0.img_attn.proj', which .* drops"),
        (pair("lora_unet_double_blocks_0_img_attn_to_q"), r"img_attn_to_q' \(ValueError: Incompatible keys detected: lora_"),
        (pair("lora_unet_double_blocks_0_img_attn_norm"), "img_attn_norm"),
        (pair("lora_unet_double_blocks_19_img_attn_proj"), "double_blocks_19"),
        (pair("lora_unet_double_blocks_5_img_attn_proj"), r"no linear module 'transformer_blocks\.5\.attn\.to_out\.0'"),
        (pair("lora_unet_single_blocks_0_linear1", outer=1344), "single_blocks_0_linear1"),  # FLUX's width is built in
        ({f"{FUSED}.lora_down.weight": torch.ones(16, 192)}, "no matching pair of LoRA weights for 'lora_unet_double"),
        ({f"{FUSED}.alpha": torch.tensor(8.0)}, "no matching pair of LoRA weights for 'lora_unet_double"),
        (pair(FUSED, inner=192, outer=192), "does not fit this base: 'transformer_blocks.0.attn.to_"),
        ({f"{FUSED}.lora_down.weight": torch.ones(192, 16), f"{FUSED}.lora_up.weight": torch.ones(16, 576)}, "no matching"),
        ({f"{PROJ}.lora_A.weight": torch.ones(16, 192)}, "twice, in two layouts"),
    ],
)  # fmt: skip
def test_a_key_next_to_a_good_layer_is_never_dropped_silently(tmp_path, shapes, tensors, words):
    path = write(tmp_path / "a.safetensors", pair(PROJ, alpha=8.0) | tensors)
    with pytest.raises((AdapterError, BaseMismatchError), match=words):
        load_adapter(path, shapes)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (pair("diffusion_model.transformer_blocks.0.attn.to_q"), "'diffusion_model.transformer_blocks.0.attn.to_q'"),
        (pair("base_model.model.x_embedder") | pair(Q), "'transformer.transformer_blocks.0.attn.to_q.*' and keys of peft"),
        (pair(Q) | pair("transformer_blocks.0.attn.to_k"), "the layer 'transformer_blocks.0.attn.to_k', which .* drops"),
        (pair("lora_transformer_transformer_blocks_0_ff_net_2", alpha=4.0), r"\(the file's 'lora_transformer_.*_ff_net_2'\)"),
        ({"transformer_blocks.0.attn.to_q.lora_down.weight": torch.ones(8, 192),
          "transformer_blocks.0.attn.to_q.lora_up.weight": torch.ones(192, 8),
          "transformer_blocks.0.attn.to_q.alpha": torch.tensor(4.0)}, r"to_q\.alpha', which load_lora_weights drops"),
        ({f"{Q}.lora_down.weight": torch.ones(8, 192), f"{Q}.lora_up.weight": torch.ones(192, 8),
          f"{Q}.alpha": torch.tensor(4.0)}, r"'.*to_q\.alpha', which load_lora_weights drops"),
        ({"double_blocks.0.processor.proj_lora1.down.weight": torch.ones(8, 192),
          "double_blocks.0.processor.proj_lora1.up.weight": torch.ones(192, 8),
          "double_blocks.0.processor.proj_lora1.alpha": torch.tensor(4.0)}, r"proj_lora1\.alpha', which"),
        ({key: value.to(torch.float8_e4m3fn) for key, value in pair(Q).items()}, "as F8_E4M3; .* F64, F32, F16, BF16 only"),
        (pair(Q) | {f"{Q}.alpha": torch.tensor(8)}, "as I64"),
        ({key: value[..., None, None] for key, value in pair(Q).items()}, "no matching pair"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_known_layout_is_refused_by_name(tmp_path, shapes, tensors, words):
    with pytest.raises((AdapterError, BaseMismatchError), match=words):
        load_adapter(write(tmp_path / "a.safetensors", tensors), shapes)


def test_a_manifest_keeps_an_alpha_that_the_file_does_not_state(tmp_path, shapes, describe):
    for layer in (Q, FUSED, PROJ):
        path = write(tmp_path / "a.safetensors", pair(layer, outer=576 if layer == FUSED else 192))
        plain = describe(path)
        assert "alpha_source" not in plain.to_yaml() and "alpha_source" not in plain.model_dump()
        manifest = describe(path, alpha=64.0)
        assert (manifest.alpha, manifest.alpha_source) == (64.0, "manifest")
        again = load_adapter(path, shapes, manifest=type(manifest).from_yaml(manifest.to_yaml(), "expert.yaml"))
        assert again.found is not None and again.found.scales == (4.0, 4.0)


def test_the_rank_of_a_fused_layer_is_read_from_its_weights(tmp_path, shapes, describe):
    up = torch.block_diag(*(torch.ones(192, 16) for _ in range(3)))
    tensors = {f"{FUSED}.lora_down.weight": torch.ones(48, 192), f"{FUSED}.alpha": torch.tensor(16.0)}
    path = write(tmp_path / "a.safetensors", tensors | {f"{FUSED}.lora_up.weight": up})
    manifest = describe(path)
    assert (manifest.rank, manifest.alpha) == (16, 16.0)
    load_adapter(path, shapes, manifest=manifest)
    for rank in (8, 48, 64):
        with pytest.raises(AdapterError, match=f"its manifest says {rank}"):
            load_adapter(path, shapes, manifest=manifest.model_copy(update={"rank": rank}))


def test_a_peft_configuration_in_the_files_folder_must_fit_the_tensors(tmp_path, describe):
    path = write(tmp_path / "a.safetensors", pair(Q.replace("transformer.", "base_model.model.", 1)))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 24}))
    with pytest.raises(AdapterError, match=r"rank 16 for .* r in adapter_config\.json in its folder says 8"):
        describe(path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 24}))
    with pytest.raises(
        AdapterError, match=r"adapter_config\.json in its folder says 24, the alpha given \(--alpha\) says 8"
    ):
        describe(path, alpha=8.0)
    assert describe(path).alpha == 24.0


@pytest.fixture
def copied(tmp_path):
    assert main(["experts", "copy", str(tmp_path / "set")]) == 0
    return tmp_path / "set"


def test_the_command_says_what_it_found_and_warns(copied, tmp_path, capsys):
    add = ("--competence", "style", "--expert-set", str(copied))
    path = write(tmp_path / "a.safetensors", pair(Q) | pair(K, 4), {"conv_alpha": "1"})
    capsys.readouterr()
    assert main(["experts", "add", str(path), "--name", "given", "--alpha", "64", *add]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == (
        "Found in a.safetensors: layout diffusers, 2 layers, rank 4 to 16, alpha from its manifest, scale 4 to 16."
    )
    assert (
        err
        == "warning: The header field 'conv_alpha' is not read; if it states this LoRA's alpha, give it with --alpha.\n"
    )
    assert load_expert_set(copied).manifest("given").alpha == 64.0
    assert main(["experts", "verify", "--expert-set", str(copied)]) == 0
    zero = {key: torch.zeros_like(value) if "lora_B" in key else value for key, value in load_file(path).items()}
    assert main(["experts", "add", str(write(tmp_path / "b.safetensors", zero)), "--name", "zero", *add, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "warning: All its updates are zero: this file changes nothing.\n"
    assert json.loads(out[out.index("{") :])["found"]["warnings"] == [
        "All its updates are zero: this file changes nothing."
    ]
    assert main(["experts", "add", str(copied / "experts/given"), "--alpha", "8", "--replace", *add]) == 2
    assert "manifest says alpha 64, --alpha says 8" in capsys.readouterr().err


def test_an_alpha_that_cannot_be_kept_is_refused_in_a_sentence(tmp_path, describe):
    path = write(tmp_path / "a.safetensors", pair(Q))
    for alpha in (0.0, -1.0, 1e9, float("nan")):
        with pytest.raises(CareEditError, match="alpha"):
            describe(path, alpha=alpha)
