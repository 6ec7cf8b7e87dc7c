"""LoRA files for each family do here what the family's `load_lora_weights` makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import small_bases
from careedit.errors import AdapterError, BaseMismatchError
from careedit.experts import BaseShapes, LoraState, MemoryLibrary, check_adapter, load_adapter, make_applier
from careedit.experts.applier import Inputs
from lora_files import (
    BUILDERS,
    Tensors,
    drawn,
    inputs_of,
    layers,
    load_as_diffusers,
    own,
    pair,
    prefixed,
    several_ranks,
    shapes_of_pipe,
    targets,
    write,
)

pytestmark = pytest.mark.usefixtures("small_bases_only")


def flat(module: str) -> str:
    return "lora_unet_" + module.replace(".", "_")


def block_diagonal(layer: str, inner: int, outer: int, *, rank: int, alpha: float) -> Tensors:
    up = torch.block_diag(*(drawn(outer, rank + part)[:, :rank] for part in range(3)))
    return {
        f"{layer}.lora_down.weight": drawn(3 * rank, inner),
        f"{layer}.lora_up.weight": up,
        f"{layer}.alpha": torch.tensor(alpha),
    }


def bfl_klein(prefix: str, **options: Any) -> Tensors:
    """Black Forest Labs' names for the small klein: width 64, gated feed-forward layers of 3 x 64, text of width 48."""
    sizes = {
        "double_blocks.0.img_attn.qkv": (64, 192), "double_blocks.1.txt_attn.qkv": (64, 192),
        "double_blocks.0.img_attn.proj": (64, 64), "double_blocks.0.txt_attn.proj": (64, 64),
        "double_blocks.0.img_mlp.0": (64, 384), "double_blocks.1.txt_mlp.2": (192, 64),
        "single_blocks.0.linear1": (64, 576), "single_blocks.1.linear2": (256, 64),
        "img_in": (16, 64), "txt_in": (48, 64), "final_layer.linear": (64, 16), "time_in.in_layer": (64, 64),
        "double_stream_modulation_img.lin": (64, 384), "single_stream_modulation.lin": (64, 192),
    }  # fmt: skip
    return {k: v for layer, size in sizes.items() for k, v in pair(prefix + layer, *size, **options).items()}


def kohya_klein(alpha: float | None) -> Tensors:
    down = {"alpha": alpha, "sides": "down up"}
    return (
        block_diagonal("lora_unet_double_blocks_0_img_attn_qkv", 64, 64, rank=2, alpha=3.0)
        | pair("lora_unet_double_blocks_0_txt_attn_qkv", 64, 192, rank=5, **down)  # type: ignore[arg-type]
        | pair("lora_unet_single_blocks_1_linear1", 64, 576, rank=1, **down)  # type: ignore[arg-type]
        | pair("lora_unet_single_blocks_0_linear2", 256, 64, **down)  # type: ignore[arg-type]
        | pair("lora_unet_double_blocks_1_img_mlp_0", 64, 384, **down)  # type: ignore[arg-type]
        | pair("lora_unet_final_layer_linear", 64, 16, **down)  # type: ignore[arg-type]
        | pair("lora_unet_img_in", 16, 64, **down)  # type: ignore[arg-type]
    )


def metadata(rank: int, alpha: float) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({"transformer.r": rank, "transformer.lora_alpha": alpha, "transformer.target_modules": ["to_q"]})}  # fmt: skip


Make = Callable[[BaseShapes], Tensors]
ALL: dict[str, Make] = {
    "diffusers": lambda shapes: targets(shapes, "transformer."),
    "every linear layer, other ranks": several_ranks,
    "older diffusers": lambda shapes: {
        key.replace("lora_", "lora."): value
        for key, value in targets(shapes, "transformer.", sides="down up", rank=2).items()
    },
}
QWEN: dict[str, Make] = {
    "Lightning": lambda shapes: targets(shapes, "", alpha=2.0, sides="down up"),
    "diffusion_model": lambda shapes: targets(shapes, "diffusion_model."),
    "diffusion_model, alpha": lambda shapes: targets(shapes, "diffusion_model.", alpha=1.0, rank=3),
    "default": lambda shapes: {
        key.replace(".weight", ".default.weight"): value for key, value in targets(shapes, "").items()
    },
    "kohya": lambda shapes: layers(shapes, r".*(attn|mlp|mod).*|img_in|txt_in|proj_out", flat, alpha=3.0, sides="down up"),
    "kohya in bfloat16, some alphas": lambda shapes: {
        key: value.bfloat16()
        for key, value in (
            layers(shapes, r".*0\.attn\.to_q", flat, alpha=2.0, sides="down up")
            | layers(shapes, r".*1\.attn\.to_q", flat, sides="down up")
        ).items()
    },
}  # fmt: skip
CASES: dict[str, dict[str, Make]] = {
    "kontext": ALL | {
        "kohya": lambda _: block_diagonal("lora_unet_double_blocks_0_img_attn_qkv", 128, 128, rank=2, alpha=3.0)
        | pair("lora_unet_single_blocks_0_linear2", 640, 128, alpha=2.0, sides="down up"),
    },
    "klein": ALL | {
        "ai-toolkit": lambda _: bfl_klein("diffusion_model."),
        "ai-toolkit, diffusers' names": lambda shapes: layers(shapes, r".*blocks.*", prefixed("diffusion_model.")),
        "peft, Black Forest Labs' names": lambda _: bfl_klein("base_model.model.", rank=1),
        "kohya": lambda _: kohya_klein(alpha=3.0),
        "kohya without alpha": lambda _: kohya_klein(alpha=None),
        "kohya in float16": lambda _: {key: value.half() for key, value in kohya_klein(alpha=2.0).items()},
    },
    "qwen 2509": QWEN,
    "qwen 2511": ALL | {"kohya": QWEN["kohya"]},
    "longcat": ALL,
}  # fmt: skip


def velocities(pipe: Any, state: LoraState, inputs: Inputs) -> Iterator[torch.Tensor]:
    """Both rows with the expert, merged and shared."""
    library = MemoryLibrary({"expert": state}, shapes_of_pipe(pipe))
    for application in ("merged", "shared"):
        applier = make_applier(own(pipe).transformer, library, application)  # type: ignore[arg-type]
        with applier.lease(["expert"]):
            yield applier.velocity(["expert", "expert"], inputs)


@pytest.mark.parametrize("name", CASES)
def test_every_layout_has_the_effect_of_load_lora_weights(
    name: str, bases: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe = bases(name)
    shapes, inputs = shapes_of_pipe(pipe), inputs_of(pipe)
    plain = pipe.transformer(**inputs.per_row, **inputs.shared, return_dict=False)[0]
    for layout, make in CASES[name].items():
        path = write(tmp_path / "a.safetensors", make(shapes))
        stock = own(pipe)
        load_as_diffusers(stock, path)
        expected = stock.transformer(**inputs.per_row, **inputs.shared, return_dict=False)[0]
        assert (expected - plain).abs().max() > 1e-3, layout
        for output in velocities(pipe, load_adapter(path, shapes), inputs):
            torch.testing.assert_close(output, expected, rtol=0.0, atol=1e-4, msg=lambda text: f"{layout}: {text}")  # noqa: B023


@pytest.mark.parametrize("name", ["klein", "qwen 2511", "longcat"])
def test_alpha_is_used_wherever_it_is_stated(name: str, bases: Callable[[str], Any], tmp_path: Path) -> None:
    shapes = shapes_of_pipe(bases(name))
    one = r"transformer_blocks\.0\.attn\.to_q"
    plain = layers(shapes, one, prefixed("transformer."))
    key = "transformer.transformer_blocks.0.attn.to_q"
    keyed = plain | {f"{key}.alpha": torch.tensor(2.0)}
    peft = layers(shapes, one, prefixed("base_model.model."))
    for tensors, header, alpha in (
        (keyed, None, None),
        (keyed, {"ss_network_alpha": "2"}, 2.0),
        (plain, metadata(4, 2), None),
        (plain, {"lora_alpha": "2"}, None),
        (plain, None, 2.0),
        (peft, None, 2.0),
        (layers(shapes, one, prefixed(""), sides="down up", alpha=2.0), None, None),
        (layers(shapes, one, prefixed("diffusion_model."), alpha=2.0), None, None),
    ):
        (module,) = load_adapter(
            write(tmp_path / "a.safetensors", tensors, header), shapes, alpha=alpha
        ).modules.values()
        assert (module.rank, module.alpha) == (4, 2.0)
    for tensors, header, alpha in (
        (keyed, {"network_alpha": "3"}, None),
        (keyed, metadata(4, 2), None),
        (plain, {"network_alpha": "3"}, 2.0),
        (plain, metadata(8, 2), None),
    ):
        with pytest.raises(AdapterError, match=r"says|twice"):
            load_adapter(write(tmp_path / "a.safetensors", tensors, header), shapes, alpha=alpha)
    with pytest.raises(AdapterError, match="a peft file, which states no alpha"):
        load_adapter(write(tmp_path / "a.safetensors", peft), shapes)


def test_layers_that_diffusers_drops_are_applied(bases: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = bases("klein")
    shapes = shapes_of_pipe(pipe)
    expected = load_adapter(write(tmp_path / "a.safetensors", bfl_klein("diffusion_model.")), shapes).modules
    for tensors in (bfl_klein(""), bfl_klein("diffusion_model.", sides="down up", alpha=4.0)):
        found = load_adapter(write(tmp_path / "a.safetensors", tensors), shapes).modules
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name].up, expected[name].up) for name in found)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"text_encoder.layers.0.q.lora_A.weight": drawn(4, 8)}, "text encoder"),
        ({"lora_te_layers_0_q.lora_down.weight": drawn(4, 8)}, "text encoder"),
        ({"transformer.transformer_blocks.0.attn.to_q.dora_scale": drawn(4, 1)}, "DoRA"),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector": drawn(4, 1)}, "DoRA"),
        ({"lycoris_transformer_blocks_0_attn_to_q.lokr_w1": drawn(4, 4)}, "not a plain LoRA"),
        ({"diffusion_model.double_blocks.0.img_attn.qkv.diff_b": drawn(4, 1)}, "directly"),
        ({"diffusion_model.double_blocks.0.img_attn.qkv.diff": drawn(4, 1)}, "directly"),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_B.bias": drawn(4, 1)}, "biases"),
        (pair("transformer.single_transformer_blocks.0.attn.to_q", 64, 64), "no linear module"),
        (pair("lora_unet_double_blocks_0_img_attn_norm", 64, 64, sides="down up"), "not a layer of flux2-klein"),
        (pair("transformer.x_embedder", 16, 64) | pair("diffusion_model.img_in", 16, 64), "twice"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(
    bases: Callable[[str], Any], tmp_path: Path, extra: Tensors, reason: str
) -> None:
    shapes = shapes_of_pipe(bases("klein"))
    path = write(tmp_path / "a.safetensors", targets(shapes, "transformer.") | extra)
    with pytest.raises((AdapterError, BaseMismatchError), match=reason) as caught:
        load_adapter(path, shapes)
    assert any(part in str(caught.value) for key in extra for part in (key, key.split(".lora_")[0][12:]))


def test_a_klein_file_fits_klein_with_kept_keys_and_values_too(tmp_path: Path) -> None:
    shapes = shapes_of_pipe(small_bases.klein(kv=True))
    assert shapes.label == "flux2-klein-kv"
    assert load_adapter(write(tmp_path / "a.safetensors", bfl_klein("diffusion_model.")), shapes).modules


def test_a_file_for_another_family_is_refused_naming_both(bases: Callable[[str], Any], tmp_path: Path) -> None:
    shapes = {name: shapes_of_pipe(bases(name)) for name in BUILDERS}
    for maker in ("klein", "qwen 2511", "kontext"):
        path = write(tmp_path / "a.safetensors", targets(shapes[maker], "transformer."))
        for name, own_shapes in shapes.items():
            if own_shapes.family is not shapes[maker].family and (maker, name) != ("kontext", "longcat"):
                with pytest.raises(BaseMismatchError) as caught:
                    check_adapter(path, own_shapes)
                assert shapes[maker].family.name in str(caught.value) and own_shapes.label in str(caught.value)


def test_a_header_that_names_another_variant_is_a_warning(bases: Callable[[str], Any], tmp_path: Path) -> None:
    for name, field, text, other in (
        ("qwen 2511", "ss_base_model_version", "qwen_image_edit_2509", "qwen-image-edit-plus 2509"),
        ("klein", "base_model", "black-forest-labs/FLUX.2-klein-base-4B", "flux2-klein base"),
    ):
        shapes = shapes_of_pipe(bases(name))
        tensors = targets(shapes, "transformer.")
        found = load_adapter(write(tmp_path / "a.safetensors", tensors, {field: text}), shapes).found
        assert found is not None and len(found.warnings) == 1
        assert other in found.warnings[0] and shapes.label in found.warnings[0]
        zero = {key: value * 0 if "lora_B" in key else value for key, value in tensors.items()}
        found = load_adapter(write(tmp_path / "a.safetensors", zero, {"other": text}), shapes).found
        assert found is not None and found.warnings == ("All its updates are zero: this file changes nothing.",)
