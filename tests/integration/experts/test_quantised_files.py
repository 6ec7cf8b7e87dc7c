"""Bases whose transformer is one file of fp8 or nvfp4 weights, in the layouts that are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import BFLQuantizationConfig
from diffusers.quantizers.bfl.utils import dequantize_nvfp4, quantize_fp8r, quantize_nvfp4
from safetensors.torch import load_file, save_file
from torch import Tensor

from careedit.cli.main import main
from careedit.editor import Editor
from careedit.errors import AdapterError, ExpertError, InputError
from careedit.experts import Defaults, PanelSpec, load_expert_set
from careedit.experts.manifest import BaseTransformer
from careedit.experts.set import ExpertSet
from careedit.experts.transformer_file import check_transformer_file
from careedit.files import file_digest
from careedit_deployments.app import check_quantised
from careedit_deployments.config import Arm
from lora_files import edit, engine, load_as_diffusers, own, shapes_of_pipe
from random_sets import make_random_set

pytestmark = pytest.mark.usefixtures("small_bases_only")

TOP = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "proj_out": "final_layer.linear",
}
DOUBLE = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
NORMS = {"norm_q": "norm.query_norm", "norm_k": "norm.key_norm"}


def in_bfl_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """klein's weights under the names of Black Forest Labs' files, with fused queries, keys and values."""
    found = {f"{TOP[name]}.weight": state.pop(f"{name}.weight") for name in TOP}
    scale, shift = state.pop("norm_out.linear.weight").chunk(2)
    found["final_layer.adaLN_modulation.1.weight"] = torch.cat([shift, scale])
    for block in sorted({name.rsplit(".", 1)[0].split(".attn")[0].split(".ff")[0] for name in state}):
        kind, number = block.split(".")
        ours = {name.removeprefix(f"{block}."): state.pop(name) for name in list(state) if name.startswith(f"{block}.")}
        place = f"{'double' if kind == 'transformer_blocks' else 'single'}_blocks.{number}"
        if kind == "transformer_blocks":
            for side, names in {"img": "to_q to_k to_v", "txt": "add_q_proj add_k_proj add_v_proj"}.items():
                fused = torch.cat([ours.pop(f"attn.{name}.weight") for name in names.split()])
                found[f"{place}.{side}_attn.qkv.weight"] = fused
                middle = "" if side == "img" else "added_"
                for norm, theirs in NORMS.items():
                    value = ours.pop(f"attn.{norm.replace('_', '_' + middle)}.weight")
                    found[f"{place}.{side}_attn.{theirs}.scale"] = value
        else:
            for norm, theirs in NORMS.items():
                found[f"{place}.{theirs}.scale"] = ours.pop(f"attn.{norm}.weight")
        table = DOUBLE if kind == "transformer_blocks" else SINGLE
        found |= {f"{place}.{table[name.removesuffix('.weight')]}.weight": value for name, value in ours.items()}
    assert not state
    return found


def quantise(tensors: dict[str, Tensor], scheme: str) -> dict[str, Tensor]:
    """The layers of the blocks in the scheme: a scale per output or per layer, or four bits."""
    found = {}
    for name, weight in tensors.items():
        if weight.dim() != 2 or "blocks." not in name:
            found[name] = weight
            continue
        place = name.removesuffix(".weight")
        if scheme == "nvfp4":
            found[name], found[f"{place}.weight_scale"], found[f"{place}.weight_scale_2"] = quantize_nvfp4(weight)
            found[f"{place}.input_scale"] = torch.tensor(1.0)
        elif scheme == "rows":
            found[name], found[f"{place}.weight_scale"] = quantize_fp8r(weight)
        else:
            scale = weight.abs().max() / 448
            found[name] = (weight / scale).to(torch.float8_e4m3fn)
            found[f"{place}.scale_weight"], found[f"{place}.scale_input"] = scale, torch.tensor(1.0)
            found[f"{place}.comfy_quant"] = torch.zeros(3, dtype=torch.uint8)
    return found


def write(path: Path, pipe: Any, scheme: str) -> Path:
    state = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    tensors = in_bfl_layout(state) if "Flux2" in type(pipe).__name__ else state
    prefix = "model.diffusion_model." if scheme == "layer" else ""
    save_file({prefix + name: value.contiguous() for name, value in quantise(tensors, scheme).items()}, path)
    return path


def make_set(folder: Path, pipe: Any) -> Path:
    return make_random_set(
        folder,
        pipe,
        {"erase": ("remove",)},
        length=512,
        panel=PanelSpec(size=64, fit="bucket", multiple=32),
        defaults=Defaults(steps=3),
    )


def with_file(folder: Path, file: Path) -> ExpertSet:
    """The set whose base has the transformer in `file`, which is in the set's folder."""
    spec = load_expert_set(folder).spec
    stated = BaseTransformer(file=file.name, sha256=file_digest(file))
    spec.model_copy(update={"base": spec.base.model_copy(update={"transformer": stated, "sha256": None})}).write(
        folder / "expert_set.yaml"
    )
    return load_expert_set(folder)


@pytest.mark.parametrize(("name", "scheme"), [("klein", "rows"), ("klein", "layer"), ("klein", "nvfp4"), ("qwen 2511", "rows")])  # fmt: skip
def test_edits_equal_those_of_the_weights_that_the_file_represents(
    name: str, scheme: str, bases: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe = bases(name)
    folder = make_set(tmp_path / "set", pipe)
    file = write(folder / "quantised.safetensors", pipe, scheme)
    for weights in (folder / "base" / "transformer").glob("*.safetensors"):
        weights.unlink()  # only its configuration is read
    loaded = with_file(folder, file)
    edits = Editor(loaded, device="cpu", application="shared").engine
    represented = own(pipe)
    for path, layer in edits.base.transformer.named_modules():
        if hasattr(layer, "weight_scale"):
            weight = represented.transformer.get_submodule(path).weight
            value = (
                dequantize_nvfp4(layer.weight, layer.weight_scale, layer.weight_scale_2)
                if scheme == "nvfp4"
                else layer.weight.float() * layer.weight_scale[:, None]
            )
            assert (value - weight).norm() / weight.norm() < (0.15 if scheme == "nvfp4" else 0.05)
            weight.copy_(value)
    jobs = [edit(number, weights=weights) for number, weights in enumerate(({"base": 1.0}, {"erase": 1.0}))]
    states = [edits.prepare(job) for job in jobs]
    edits.advance(states)
    plain = engine(represented)
    expected = plain.prepare(jobs[0])
    plain.advance([expected])
    torch.testing.assert_close(states[0].latents, expected.latents, rtol=0.0, atol=1e-5)
    load_as_diffusers(represented, loaded.adapter_path("erase"))
    adapted = engine(represented)
    expected = adapted.prepare(edit(1))
    adapted.advance([expected])
    torch.testing.assert_close(states[1].latents, expected.latents, rtol=0.0, atol=1e-4)


def test_an_edit_equals_the_stock_pipeline_with_diffusers_own_loading(
    bases: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe = bases("klein")
    folder = make_set(tmp_path / "set", pipe)
    file = write(folder / "klein-fp8.safetensors", pipe, "rows")
    stock = own(pipe)
    stock.transformer = type(pipe.transformer).from_single_file(
        str(file),
        config=str(folder / "base"),
        subfolder="transformer",
        dtype=torch.float32,
        quantization_config=BFLQuantizationConfig(compute_dtype=torch.float32),
    )
    stock.set_progress_bar_config(disable=True)
    job = edit(instruction="make it red")
    latents = stock(
        image=job.source,
        prompt=job.instruction,
        height=64,
        width=64,
        num_inference_steps=job.steps,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        output_type="latent",
    ).images
    edits = Editor(with_file(folder, file), device="cpu", application="shared").engine
    state = edits.prepare(job)
    edits.advance([state])
    assert torch.equal(edits.base.vae_latents(state.latents, state.encoded.grid), latents)


def test_the_command_writes_a_set_of_such_a_base_and_its_hash_follows_the_content(
    bases: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = bases("klein")
    plain = load_expert_set(make_set(tmp_path / "plain", pipe))
    file = write(tmp_path / "klein-fp8.safetensors", pipe, "layer")
    monkeypatch.chdir(tmp_path)
    initialise = ["init", "mine", "--base", str(tmp_path / "plain" / "base"), "--size", "64"]
    assert main([*initialise, "--transformer", "missing.safetensors"]) == 2
    assert main([*initialise, "--transformer", file.name]) == 0
    assert "klein-fp8.safetensors replaces the transformer" in capsys.readouterr().out
    made = load_expert_set("mine")
    assert (tmp_path / "mine" / file.name).read_bytes() == file.read_bytes()
    assert main(["doctor", "mine/serve.yaml"]) == 0
    assert "klein-fp8.safetensors: the transformer's weights take less memory" in capsys.readouterr().out
    assert "transformer:" not in (tmp_path / "plain" / "expert_set.yaml").read_text()
    other = with_file(Path("mine"), write(tmp_path / "mine" / "other.safetensors", pipe, "rows"))
    assert len({plain.sha256, made.sha256, other.sha256}) == 3
    (tmp_path / "mine" / "other.safetensors").rename(tmp_path / "mine" / "renamed.safetensors")
    assert with_file(Path("mine"), tmp_path / "mine" / "renamed.safetensors").sha256 == other.sha256

    with pytest.raises(ExpertError, match="cannot be merged into fp8 or nvfp4 weights"):
        Editor(made, device="cpu", application="merged")
    with pytest.raises(ExpertError, match="quantised already, by its file klein-fp8"):
        Editor(made, device="cpu", application="shared", quantisation="fp8")
    with pytest.raises(InputError, match="quantised already, by its set's file klein-fp8"):
        check_quantised("main", Arm(expert_set="mine", quantisation="fp8"), made, ())
    with pytest.raises(InputError, match="'erase' would be merged into them"):
        check_quantised("main", Arm(expert_set="mine"), made, ("erase",))
    (tmp_path / "mine" / "klein-fp8.safetensors").write_bytes((tmp_path / "mine" / "renamed.safetensors").read_bytes())
    with pytest.raises(AdapterError, match="the set's file says"):
        Editor(made, device="cpu", application="shared")
    made.spec.write(tmp_path / "mine" / "expert_set.yaml")
    assert main(["experts", "verify", "--expert-set", "mine"]) == 1
    assert "base-transformer" in capsys.readouterr().out


def test_a_file_that_does_not_fit_is_refused_by_name(bases: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = bases("klein")
    shapes = shapes_of_pipe(pipe)
    whole = load_file(write(tmp_path / "whole.safetensors", pipe, "rows"))

    def refused(tensors: dict[str, Tensor], match: str) -> None:
        save_file(tensors, tmp_path / "changed.safetensors")
        with pytest.raises((AdapterError, ExpertError), match=match):
            check_transformer_file(tmp_path / "changed.safetensors", shapes)

    refused({name: one for name, one in whole.items() if not name.startswith("img_in")}, "lacks the weight x_embedder")
    refused(whole | {"extra.weight": torch.ones(2)}, "does not have, extra.weight")
    refused(whole | {"img_in.weight": torch.ones(2, 3)}, r"x_embedder.weight of shape \[2, 3\]")
    refused(whole | {"double_blocks.0.new.weight": torch.ones(2)}, "made for another base")
    refused({name: one.float() for name, one in whole.items() if not name.endswith("_scale")}, "has no scales")
    refused(whole | {"img_in.weight": torch.ones(2, dtype=torch.int64)}, "stores 'img_in.weight' as I64")
    with pytest.raises(ExpertError, match="does not read single files of longcat"):
        check_transformer_file(tmp_path / "whole.safetensors", shapes_of_pipe(bases("longcat")))
