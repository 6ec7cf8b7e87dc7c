"""A transformer's weights in one quantised file, as Black Forest Labs publishes them (FLUX.2-klein-4b-fp8 and similar).

A quantised layer has the tensors `NAME.weight` and `NAME.weight_scale`: 8-bit floats with a scale per layer or per output
("fp8"), or two 4-bit floats per byte with a scale per 16 weights ("nvfp4", with `weight_scale_2` and `input_scale` too).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from diffusers import BFLQuantizationConfig
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors.torch import load_file
from torch import Tensor, nn

from careedit.errors import AdapterError, ExpertError
from careedit.experts.layouts import DTYPES, read_header
from careedit.experts.manifest import BaseSpec
from careedit.experts.shapes import BaseShapes
from careedit.experts.store import Folder
from careedit.families import Facts
from careedit.files import file_digest

FORMATS = "fp8 or nvfp4"
"""The formats of such files, for messages."""
_PREFIX = "model.diffusion_model."
_SCALES = ("weight_scale", "weight_scale_2", "input_scale")
_SPELLINGS = {"scale_weight": "weight_scale", "scale_input": "input_scale"}
"""Other names of scales that are in use, and BFL's."""
_NOTES = ("scaled_fp8", "comfy_quant")
"""Tensors that say how a file was made and hold no weights."""


def base_transformer(
    base: BaseSpec, folder: Folder, shapes: BaseShapes, digest_of: Callable[[Path], str] = file_digest
) -> Path | None:
    """The local file of quantised weights of a set's base, checked; None if the set names none.

    Raises `AdapterError` for another hash, and as `check_transformer_file`.
    """
    stated = base.transformer
    if stated is None:
        return None
    path = folder.fetch(stated.file, stated.sha256)
    check_transformer_file(path, shapes)
    if (digest := digest_of(path)) != stated.sha256:
        raise AdapterError(
            f"{path.name} has the hash {digest[:12]}, the set's file says {stated.sha256[:12]}; restore it or correct the "
            "set's file."
        )
    return path


def check_transformer_file(path: Path, shapes: BaseShapes) -> None:
    """Check names and shapes from the header of `path` alone.

    Raises `AdapterError` for a file that cannot be read, that has no quantised layer, or in which a weight of the base is
    missing, surplus or of another shape; `ExpertError` for a family whose single files diffusers does not read.
    """
    header = read_header(path, (*DTYPES, "F8_E4M3", "U8"))
    names = {_plain(name): shape for name, shape in header.tensors.items() if _plain(name)}
    packed = {name.removesuffix("_scale_2") for name in names if name.endswith(".weight_scale_2")}
    if not any(name.endswith(".weight_scale") for name in names):
        raise AdapterError(
            f"{path.name} has no scales, so its weights are not quantised in Black Forest Labs' fp8 or nvfp4; use a "
            "diffusers folder for ordinary weights."
        )
    weights = {
        name: torch.empty((*shape[:-1], 2 * shape[-1]) if name in packed else shape, device="meta")
        for name, shape in names.items()
        if name.rpartition(".")[2] not in _SCALES
    }
    found = {name: tuple(tensor.shape) for name, tensor in _as_diffusers(weights, shapes, path.name).items()}
    for text, wrong in (
        ("lacks the weight", sorted(shapes.parameters.keys() - found.keys())),
        ("has a tensor that the base does not have,", sorted(found.keys() - shapes.parameters.keys())),
    ):
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise AdapterError(
                f"{path.name} {text} {wrong[0]}{more}; it was made for another base than {shapes.label}."
            )
    for name, shape in found.items():
        if shape != shapes.parameters[name]:
            raise AdapterError(
                f"{path.name} has {name} of shape {list(shape)}, the base has {list(shapes.parameters[name])}; it was made "
                f"for another base than {shapes.label}."
            )


def load_transformer_file(
    path: Path, family: Facts, config: str, *, revision: str | None = None, dtype: torch.dtype = torch.bfloat16
) -> nn.Module:
    """The transformer with the quantised weights of `path`, on the CPU.

    `config` is the folder or hub id with `transformer/config.json`, `dtype` the format of products and of the weights that
    are not quantised. Raises `AdapterError` for weights that diffusers does not accept.
    """
    try:
        made = _kind(family).from_single_file(
            _with_row_scales(load_file(path)),
            config=config,
            subfolder="transformer",
            config_revision=revision,
            dtype=dtype,
            quantization_config=cast(Any, BFLQuantizationConfig)(compute_dtype=dtype),
        )
    except (OSError, ValueError, RuntimeError, NotImplementedError, KeyError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise AdapterError(f"The quantised weights of {path.name} cannot be loaded: {reason}.") from error
    made.quantisation = FORMATS  # for `MergedApplier`
    return cast(nn.Module, made)


def _with_row_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under BFL's names, with a scale per output where a file has one per layer: diffusers splits layers."""
    named = {_plain(name): tensor for name, tensor in tensors.items() if _plain(name)}
    for name, weight in list(named.items()):
        scale = named.get(f"{name}_scale")
        if weight.dtype is torch.float8_e4m3fn and scale is not None and scale.numel() == 1:
            named[f"{name}_scale"] = scale.float().reshape(1).repeat(len(weight))
    return named


def _plain(name: str) -> str:
    """A tensor's name in BFL's spelling; "" for a note on how the file was made."""
    place, _, end = name.removeprefix(_PREFIX).rpartition(".")
    if end in _NOTES:
        return ""
    end = _SPELLINGS.get(end, end)
    return f"{place}.{end}" if place else end


def _as_diffusers(weights: dict[str, Tensor], shapes: BaseShapes, name: str) -> dict[str, Tensor]:
    if weights.keys() & shapes.parameters.keys():  # the file has diffusers' names already
        return weights
    convert = cast("dict[str, Any]", SINGLE_FILE_LOADABLE_CLASSES)[_kind(shapes.family).__name__][
        "checkpoint_mapping_fn"
    ]
    try:
        return cast("dict[str, Tensor]", convert(checkpoint=dict(weights), config={}))
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise AdapterError(
            f"{name} has tensors whose names are not those of {shapes.label} ({error}); it was made for another base."
        ) from error


def _kind(family: Facts) -> Any:
    kind = family.components["transformer"]
    if kind not in SINGLE_FILE_LOADABLE_CLASSES:
        raise ExpertError(f"Diffusers does not read single files of {family.name}; remove transformer from the base.")
    return getattr(diffusers, kind)
