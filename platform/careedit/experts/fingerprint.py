"""The shape of a base transformer: what an adapter must fit, known without reading a weight."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from diffusers import FluxTransformer2DModel
from torch import device, nn

from careedit.errors import ExpertError


@dataclass(frozen=True)
class BaseShapes:
    """Names and shapes of a base's parameters."""

    parameters: Mapping[str, tuple[int, ...]]
    """Shape per parameter name, adapters left out."""
    linear: Mapping[str, tuple[int, int]]
    """(out features, in features) per linear module: what a LoRA can be added to."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the sorted parameter names and shapes, one `name d0xd1` per line."""
        lines = (f"{name} {'x'.join(map(str, shape))}\n" for name, shape in sorted(self.parameters.items()))
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()

    @cached_property
    def count(self) -> int:
        """Number of parameters."""
        total = 0
        for shape in self.parameters.values():
            size = 1
            for side in shape:
                size *= side
            total += size
        return total


def shapes_of(transformer: nn.Module) -> BaseShapes:
    """The shapes of a built transformer; adapters that peft has added to it are looked through."""
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


def plain_name(name: str) -> str:
    """A module or parameter name without the wrapper that peft puts around a targeted module."""
    return ".".join(part for part in name.split(".") if part != "base_layer")


def _is_adapter(parts: Iterable[str]) -> bool:
    return any(part.startswith("lora_") for part in parts)
