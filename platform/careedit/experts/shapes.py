"""The parameter shapes of a base transformer: what a LoRA must fit, and how large it becomes. No weight is read."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from diffusers import FluxTransformer2DModel
from torch import device, nn

from careedit.errors import ExpertError, InputError

DEFAULT_TARGETS = (
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|transformer_blocks\.\d+\.(ff|ff_context)\.net\.(0\.proj|2)"
    r"|single_transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v)|proj_mlp|proj_out)"
)
"""Every attention and feed-forward projection of a FLUX transformer; for peft's `LoraConfig(target_modules=...)`."""

ICEDIT_TARGETS = (
    r"x_embedder|transformer_blocks\.\d+\.(norm1\.linear|attn\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.(to_q|to_k|to_v))"
)
"""What ICEdit's released normal LoRA targets (River-Zhang/ICEdit, train/train/config/normal_lora.yaml)."""

FLUX_FILL_CONFIG: Mapping[str, Any] = {"in_channels": 384, "out_channels": 64, "guidance_embeds": True}
"""How FLUX.1-Fill-dev's transformer differs from `FluxTransformer2DModel`'s defaults."""


@dataclass(frozen=True)
class BaseShapes:
    """Names and shapes of a base's parameters."""

    parameters: Mapping[str, tuple[int, ...]]
    """Shape of each parameter by its name, without those of adapters."""
    linear: Mapping[str, tuple[int, int]]
    """(out features, in features) of each linear module by its path. A LoRA can be added to these modules."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the sorted parameter names and shapes, one `name d0xd1` per line."""
        lines = (f"{name} {'x'.join(map(str, shape))}\n" for name, shape in sorted(self.parameters.items()))
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()

    @cached_property
    def count(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.parameters.values())


@dataclass(frozen=True)
class AdapterShare:
    """Size of one adapter compared with its base."""

    base: int
    """Number of parameters of the base transformer."""
    adapter: int
    """Number of parameters of one adapter."""
    modules: int
    """Number of linear modules that the adapter changes."""

    @property
    def share(self) -> float:
        """adapter / base."""
        return self.adapter / self.base


def shapes_of(transformer: nn.Module) -> BaseShapes:
    """The shapes of a built transformer; adapters that peft has added to it are ignored."""
    parameters = {
        plain_name(name): tuple(parameter.shape)
        for name, parameter in transformer.named_parameters()
        if not _is_adapter(name.split("."))
    }
    linear = {
        plain_name(name): (module.out_features, module.in_features)
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and not _is_adapter(name.split("."))
    }
    return BaseShapes(parameters=parameters, linear=linear)


def shapes_of_config(config: Mapping[str, Any]) -> BaseShapes:
    """The shapes of the `FluxTransformer2DModel` that `config` describes, built on the meta device."""
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    with device("meta"):
        transformer = FluxTransformer2DModel(**known)  # type: ignore[no-untyped-call]
    return shapes_of(cast(nn.Module, transformer))


def shapes_of_base(path: str, *, revision: str | None = None) -> BaseShapes:
    """The shapes of a pipeline folder's or hub id's transformer, from its `transformer/config.json` alone."""
    try:
        config = FluxTransformer2DModel.load_config(path, subfolder="transformer", revision=revision)
    except (OSError, ValueError) as error:
        raise ExpertError(
            f"The base {path!r} has no readable transformer/config.json; give a diffusers pipeline folder or a hub id."
        ) from error
    return shapes_of_config(config)


def adapter_share(
    base: Mapping[str, Any] | BaseShapes = FLUX_FILL_CONFIG, *, rank: int = 32, targets: str = DEFAULT_TARGETS
) -> AdapterShare:
    """Counts a LoRA of `rank` on the modules whose whole path matches the pattern `targets`; allocates nothing.

    `base` is a `FluxTransformer2DModel` configuration, built on the meta device, or known shapes. A linear module of
    i inputs and o outputs adds rank * (i + o) parameters. Raises `InputError` if nothing matches.
    """
    shapes = base if isinstance(base, BaseShapes) else shapes_of_config(base)
    pattern = re.compile(targets)
    hit = [sides for name, sides in shapes.linear.items() if pattern.fullmatch(name)]
    if not hit:
        raise InputError(f"No linear module of the base matches {targets!r}; give patterns of module paths.")
    return AdapterShare(base=shapes.count, adapter=sum(rank * sum(sides) for sides in hit), modules=len(hit))


def plain_name(name: str) -> str:
    """A module or parameter name without the wrapper that peft puts around a targeted module."""
    return ".".join(part for part in name.split(".") if part != "base_layer")


def _is_adapter(parts: Iterable[str]) -> bool:
    return any(part.startswith("lora_") for part in parts)
