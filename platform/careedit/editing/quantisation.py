"""The weights of a loaded transformer in 8 or 4 bits. Only the linear layers of its blocks change: nearly all its weights.

Activations, experts, embeddings and the last layers keep the base's number format. Every output depends on its own row
alone, so edits that share a batch do not change each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, cast

import torch
from diffusers.quantizers.bfl.utils import BFLFP8RLinear, quantize_fp8r
from torch import nn

from careedit.errors import ExpertError
from careedit.experts.applier import compute_dtype
from careedit.families import Quantisation, in_blocks

PACKAGES: Mapping[str, str] = MappingProxyType({"int8": "torchao", "nf4": "bitsandbytes"})
"""The package that a kind of quantisation needs; fp8 needs none."""


def check_quantisation(kind: Quantisation) -> None:
    """Raise `ExpertError` if the package of `kind` is not installed."""
    package = PACKAGES.get(kind)
    if package is not None and find_spec(package) is None:
        raise ExpertError(
            f"The quantisation {kind} needs the package {package}, which is not installed; run pip install "
            "'careedit[quantisation]', or use fp8, which needs no package."
        )


def version_of(kind: Quantisation) -> str:
    """The package that computes with `kind`, and its version."""
    package = PACKAGES.get(kind, "diffusers")
    return f"{package} {metadata.version(package)}"


@torch.no_grad()
def quantise(transformer: nn.Module, kind: Quantisation, device: torch.device) -> None:
    """Quantise the linear layers of the blocks, one after the other on `device`, where they stay.

    Raises `ExpertError` for a device that cannot do it, or on which the quantised layers do not compute.
    """
    check_quantisation(kind)
    convert = _KINDS[kind]
    layers = {name: one for name, one in transformer.named_modules() if isinstance(one, nn.Linear) and in_blocks(name)}
    dtype = compute_dtype(transformer)
    try:
        for number, (name, layer) in enumerate(layers.items()):
            made = convert(layer.to(device), dtype)
            if number == 0:
                made(torch.ones(1, layer.in_features, dtype=dtype, device=device))
            transformer.set_submodule(name, made)
        cast(Any, transformer).quantisation = kind  # for `MergedApplier`
    except (RuntimeError, NotImplementedError, ImportError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ExpertError(f"The quantisation {kind} does not work on {device.type} here ({reason}).") from error


def _fp8(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    """Eight-bit floats with a scale per output, as in Black Forest Labs' fp8 files (diffusers' `BFLFP8RLinear`).

    A GPU of compute capability 8.9 or higher multiplies in fp8; elsewhere the weight is converted for each product.
    """
    weight, scale = quantize_fp8r(layer.weight)
    with torch.device("meta"):
        made = cast(Any, BFLFP8RLinear)(
            layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype
        )
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.weight_scale, made.bias = scale, layer.bias
    return cast(nn.Module, made)


def _int8(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    """Eight-bit integers with a scale per output; products are in the base's number format (torchao)."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(layer, Int8WeightOnlyConfig(version=2))
    return layer


def _nf4(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    """Four-bit normal floats with a scale per 64 weights, as in QLoRA (bitsandbytes)."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    device = layer.weight.device
    with torch.device("meta"):
        made: Any = Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            compute_dtype=dtype,
            compress_statistics=False,
            quant_type="nf4",
        )
    weight = layer.weight.detach()
    made.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=False, module=made)
    made.bias = layer.bias
    return cast(nn.Module, made.to(device))  # quantises


_KINDS: Mapping[str, Callable[[nn.Linear, torch.dtype], nn.Module]] = {"fp8": _fp8, "int8": _int8, "nf4": _nf4}
