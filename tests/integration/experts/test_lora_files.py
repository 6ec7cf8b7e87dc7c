"""Files as users have them, on the packaged tiny base: the effect of `load_lora_weights`, merged and shared."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from careedit.experts import (
    BaseShapes,
    LoraState,
    MemoryLibrary,
    load_adapter,
    load_expert_set,
    make_applier,
    shapes_of,
)
from velocities import velocity_inputs

Tensors = dict[str, Tensor]
DOUBLE, SINGLE = "lora_unet_double_blocks_0_", "lora_unet_single_blocks_0_"
Q, K, V = (f"transformer_blocks.0.attn.to_{name}" for name in "qkv")


@pytest.fixture(scope="module")
def pristine() -> Any:
    return FluxFillPipeline.from_pretrained(load_expert_set("tiny").base_path, dtype=torch.float32)


@pytest.fixture(scope="module")
def shapes() -> BaseShapes:
    return load_expert_set("tiny").shapes


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def inputs(pristine: Any) -> dict[str, Any]:
    return velocity_inputs(pristine, rows=4, columns=8, words=8)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) / shape[-1] ** 0.5


def pair(
    layer: str, inner: int, outer: int, *, rank: int = 16, alpha: float | None = None, sides: str = "lora_A lora_B"
) -> Tensors:
    """The two matrices of a layer under a layout's names, and its alpha."""
    down, up = sides.split()
    tensors = {f"{layer}.{down}.weight": drawn(rank, inner), f"{layer}.{up}.weight": drawn(outer, rank) * 0.5}
    return tensors | ({} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)})


def kohya(layer: str, inner: int, outer: int, *, rank: int = 16, alpha: float | None = 8.0) -> Tensors:
    return pair(layer, inner, outer, rank=rank, alpha=alpha, sides="lora_down lora_up")


def block_diagonal(layer: str, inner: int, outers: tuple[int, ...], *, rank: int, alpha: float) -> Tensors:
    """A fused layer as kohya writes it after training one LoRA of `rank` for each part."""
    up = torch.block_diag(*(drawn(outer, rank, seed=index) for index, outer in enumerate(outers)))
    down = drawn(rank * len(outers), inner)
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up, f"{layer}.alpha": torch.tensor(alpha)}


def diffusers(*layers: tuple[str, int, int], **options: Any) -> Tensors:
    return {
        key: value for layer in layers for key, value in pair(f"transformer.{layer[0]}", *layer[1:], **options).items()
    }


def outside_the_blocks(alpha: float | None = None) -> Tensors:
    """Every linear module that is in no block, and the modulations of the first ones."""
    found = {}
    for name, (outer, inner) in load_expert_set("tiny").shapes.linear.items():
        if "blocks" not in name or name.endswith("norm.linear") or "norm1" in name:
            found |= pair(f"transformer.{name}", inner, outer, alpha=alpha)
    return found


def metadata(**fields: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in fields.items()})}


ATTENTION = ((Q, 192, 192), (K, 192, 192), (V, 192, 192))
ACCEPTED: dict[str, Callable[[], tuple[Tensors, dict[str, str]]]] = {
    "kohya, fused, block-diagonal": lambda: (
        block_diagonal(f"{DOUBLE}img_attn_qkv", 192, (192, 192, 192), rank=16, alpha=16.0),
        {"ss_network_dim": "16", "ss_network_alpha": "16"},
    ),
    "kohya, fused, full": lambda: (kohya(f"{DOUBLE}txt_attn_qkv", 192, 576, rank=48, alpha=16.0), {}),
    "kohya, fused, a rank that no three share": lambda: (kohya(f"{DOUBLE}img_attn_qkv", 192, 576, rank=16), {}),
    "kohya, other ranks per layer": lambda: (
        block_diagonal(f"{DOUBLE}img_attn_qkv", 192, (192, 192, 192), rank=4, alpha=3.0)
        | kohya(f"{DOUBLE}img_mlp_0", 192, 768, rank=32, alpha=1.0)
        | kohya(f"{DOUBLE}txt_mlp_2", 768, 192, rank=5, alpha=None)
        | kohya(f"{SINGLE}linear2", 960, 192, rank=1, alpha=0.5),
        {"ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic"},
    ),
    "kohya, modulations": lambda: (
        kohya(f"{DOUBLE}img_mod_lin", 192, 1152)
        | kohya(f"{DOUBLE}txt_mod_lin", 192, 1152)
        | kohya(f"{SINGLE}modulation_lin", 192, 576),
        {"ss_network_alpha": "8.0"},
    ),
    "ComfyUI": lambda: (
        kohya("diffusion_model.double_blocks.1.img_attn.proj", 192, 192)
        | block_diagonal("diffusion_model.double_blocks.0.txt_attn.qkv", 192, (192, 192, 192), rank=2, alpha=6.0),
        {},
    ),
    "kohya, diffusers' names": lambda: (
        kohya("lora_transformer_transformer_blocks_0_attn_to_q", 192, 192)
        | kohya("lora_transformer_single_transformer_blocks_1_attn_to_v", 192, 192)
        | kohya("lora_transformer_x_embedder", 128, 192)
        | kohya("lora_transformer_context_embedder", 128, 192)
        | kohya("lora_transformer_norm_out_linear", 192, 384)
        | kohya("lora_transformer_proj_out", 192, 32)
        | kohya("lora_transformer_time_text_embed_timestep_embedder_linear_1", 256, 192),
        {},
    ),
    "diffusers with lora_down": lambda: (pair(f"transformer.{Q}", 192, 192, sides="lora_down lora_up"), {}),
    "older diffusers, alpha keys": lambda: (
        {
            key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value
            for key, value in diffusers(*ATTENTION, alpha=4.0).items()
        },
        {},
    ),
    "rank 1": lambda: (diffusers(*ATTENTION, rank=1), {}),
    "rank 300": lambda: (diffusers((Q, 192, 192), rank=300), {}),
    "ranks per layer": lambda: (diffusers((Q, 192, 192), rank=4) | diffusers((K, 192, 192), (V, 192, 192), rank=9), {}),
    "alphas of some layers": lambda: (
        diffusers((K, 192, 192), alpha=4.0) | diffusers((Q, 192, 192), alpha=8.0) | diffusers((V, 192, 192), rank=8),
        {},
    ),
    "outside the blocks": lambda: (outside_the_blocks(), {}),
    "outside the blocks, alpha keys": lambda: (outside_the_blocks(4.0), {}),
    "metadata": lambda: (diffusers(*ATTENTION), metadata(r=16, lora_alpha=40, target_modules=["to_q", "to_k", "to_v"])),
    "metadata with patterns": lambda: (
        diffusers((Q, 192, 192), rank=4) | diffusers((K, 192, 192), (V, 192, 192), rank=8),
        metadata(
            r=8,
            lora_alpha=24,
            target_modules=["to_q", "to_k", "to_v"],
            rank_pattern={"attn.to_q": 4},
            alpha_pattern={"attn.to_v": 2},
        ),
    ),
    "kohya and metadata": lambda: (
        kohya(f"{DOUBLE}img_attn_proj", 192, 192, alpha=None), metadata(r=16, lora_alpha=48, target_modules=["to_out.0"])
    ),
    "alpha keys in bfloat16, which peft divides as such": lambda: (
        {
            key: value.bfloat16()
            for key, value in (diffusers((Q, 192, 192), (K, 192, 192), rank=7, alpha=3.0) | diffusers((V, 192, 192), rank=9)).items()
        },
        {},
    ),
    "float16": lambda: ({key: value.half() for key, value in diffusers(*ATTENTION, alpha=None).items()}, {}),
    "bfloat16, kohya": lambda: (
        {key: value.bfloat16() for key, value in kohya(f"{DOUBLE}img_attn_qkv", 192, 576, alpha=3.0).items()}, {}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_file_has_the_effect_of_load_lora_weights(
    name: str, pristine: Any, shapes: BaseShapes, inputs: dict[str, Any], tmp_path: Path
) -> None:
    tensors, header = ACCEPTED[name]()
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=header)
    pipeline = type(pristine)(**{**pristine.components, "transformer": copy.deepcopy(pristine.transformer)})
    plain = pristine.transformer(**inputs, return_dict=False)[0]
    with warnings.catch_warnings():  # peft says that names such as "proj_out" would also match other modules
        warnings.simplefilter("ignore")
        pipeline.load_lora_weights(str(path))
    expected = pipeline.transformer(**inputs, return_dict=False)[0]
    assert (expected - plain).abs().max() > 1e-3
    library = MemoryLibrary({"expert": load_adapter(path, shapes)}, shapes)
    for application in ("merged", "shared"):
        applier = make_applier(copy.deepcopy(pristine.transformer), library, application)
        with applier.lease(["expert"]):
            output = applier.velocity(["expert", "expert"], inputs)
        torch.testing.assert_close(output, expected, rtol=0.0, atol=1e-4)


@pytest.fixture(scope="module")
def flux() -> BaseShapes:
    """A FLUX.1 of the real width and number of blocks, without weights."""
    with torch.device("meta"):
        return shapes_of(FluxTransformer2DModel(in_channels=384, out_channels=64, guidance_embeds=True))


def updates(state: LoraState) -> Tensors:
    return {name: module.up.float() @ module.down.float() * module.scale for name, module in state.modules.items()}


@pytest.mark.parametrize("diagonal", [True, False])
def test_the_fused_layer_of_a_single_block_is_split_at_flux_width(
    flux: BaseShapes, tmp_path: Path, diagonal: bool
) -> None:
    outers = (3072, 3072, 3072, 12288)
    layer = f"{SINGLE}linear1"
    tensors = block_diagonal(layer, 3072, outers, rank=4, alpha=8.0) if diagonal else kohya(layer, 3072, sum(outers))
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    state = load_adapter(path, flux)
    assert state.rank == (4 if diagonal else 16)
    found = updates(state)
    names = [f"single_transformer_blocks.0.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    whole = tensors[f"{layer}.lora_up.weight"] @ tensors[f"{layer}.lora_down.weight"] * 0.5
    torch.testing.assert_close(torch.cat([found[name] for name in names]), whole, rtol=0.0, atol=1e-5)


def fal_kontext() -> Tensors:
    """Every layer that fal's trainer writes, at rank 1."""
    width, mlp = 3072, 12288
    sizes = {f"double_blocks.{i}.{side}_{part}": size for i in range(19) for side in ("img", "txt") for part, size in {
        "mod.lin": (width, 6 * width), "attn.qkv": (width, 3 * width), "attn.proj": (width, width),
        "mlp.0": (width, mlp), "mlp.2": (mlp, width)}.items()}  # fmt: skip
    sizes |= {f"single_blocks.{i}.{part}": size for i in range(38) for part, size in {
        "modulation.lin": (width, 3 * width), "linear1": (width, 3 * width + mlp), "linear2": (width + mlp, width)
    }.items()}  # fmt: skip
    sizes |= {"final_layer.linear": (width, 64)}
    return {
        key: value.bfloat16()
        for layer, (inner, outer) in sizes.items()
        for key, value in pair(f"base_model.model.{layer}", inner, outer, rank=1).items()
    }


def test_a_file_with_black_forest_labs_names_by_fal_is_read_whole(flux: BaseShapes, tmp_path: Path) -> None:
    tensors = fal_kontext()
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    state = load_adapter(path, flux)
    assert len(state.modules) == 19 * 14 + 38 * 6 + 1
    q, k, v = (updates(LoraState({name: state.modules[name]}))[name] for name in (Q, K, V))
    fused = "base_model.model.double_blocks.0.img_attn.qkv"
    whole = tensors[f"{fused}.lora_B.weight"].float() @ tensors[f"{fused}.lora_A.weight"].float()
    torch.testing.assert_close(torch.cat([q, k, v]), whole)
