"""The parameter shapes of a base transformer: what a LoRA must fit, and how large it becomes. No weight is read."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from diffusers import (
    DiffusionPipeline,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    LongCatImageTransformer2DModel,
    QwenImageTransformer2DModel,
)
from torch import device, nn

from careedit.errors import ExpertError, InputError
from careedit.families import FACTS, FLUX_FILL, Facts, facts_of_pipeline

DEFAULT_TARGETS = FLUX_FILL.targets
"""Every attention and feed-forward projection of a FLUX.1 transformer; for peft's `LoraConfig(target_modules=...)`."""

ICEDIT_TARGETS = (
    r"x_embedder|transformer_blocks\.\d+\.(norm1\.linear|attn\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.(to_q|to_k|to_v))"
)
"""What ICEdit's released normal LoRA targets (River-Zhang/ICEdit, train/train/config/normal_lora.yaml)."""

FLUX_FILL_CONFIG: Mapping[str, Any] = {"in_channels": 384, "out_channels": 64, "guidance_embeds": True}
"""How FLUX.1-Fill-dev's transformer differs from `FluxTransformer2DModel`'s defaults."""

_TRANSFORMERS: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        FluxTransformer2DModel,
        Flux2Transformer2DModel,
        QwenImageTransformer2DModel,
        LongCatImageTransformer2DModel,
    )
}
"""The transformer classes of all families. It is fixed: a downloaded configuration must not decide which code runs."""


@dataclass(frozen=True)
class BaseShapes:
    """Names and shapes of a base's parameters, and the family and variant that decide what they do."""

    parameters: Mapping[str, tuple[int, ...]]
    """Shape of each parameter by its name, without those of adapters."""
    linear: Mapping[str, tuple[int, int]]
    """(out features, in features) of each linear module by its path. A LoRA can be added to these modules."""

    family: Facts = FLUX_FILL
    """The family of the base."""
    switches: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    """The base's value of each switch in `Facts.variants`."""

    @property
    def label(self) -> str:
        """Family and variant of the base, as messages show them, e.g. "flux2-klein distilled"."""
        variants = (names[self.switches[switch]] for switch, names in self.family.variants.items())
        return " ".join((self.family.name, *variants))

    @property
    def siblings(self) -> Iterator[BaseShapes]:
        """The other variants of the base that have its shapes."""
        for values in product((False, True), repeat=len(self.family.variants)):
            switches = MappingProxyType(dict(zip(self.family.variants, values, strict=True)))
            if switches != self.switches:
                yield replace(self, switches=switches)

    @property
    def takes_guidance(self) -> bool:
        """Whether edits may state a guidance scale."""
        if self.family.guidance == "embedded":
            return any("guidance_embedder" in parameter for parameter in self.parameters)
        return self.family.guidance == "branches" and not self.switches.get("is_distilled", False)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the sorted parameter names and shapes, one `name d0xd1` per line.

        For all families except FLUX.1-Fill the family's name and the switches come first: two bases may have the same
        shapes and still need different experts.
        """
        lines = [f"{name} {'x'.join(map(str, shape))}\n" for name, shape in sorted(self.parameters.items())]
        if self.family is not FLUX_FILL:
            switches = (f"{name}={value}\n" for name, value in sorted(self.switches.items()))
            lines = [f"family {self.family.name}\n", *switches, *lines]
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


def shapes_of(
    transformer: nn.Module, family: Facts | None = None, options: Mapping[str, Any] = MappingProxyType({})
) -> BaseShapes:
    """The shapes of a built transformer; adapters that peft has added to it are ignored.

    `family` is by default the first family with this class of transformer (FLUX.1-Fill for unknown classes), and
    `options` are plain values of the pipeline's configuration, such as `is_distilled`.
    """
    kind = type(transformer).__name__
    known = (facts for facts in FACTS.values() if facts.components["transformer"] == kind)
    family = family or next(known, FLUX_FILL)
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
    config = {**getattr(transformer, "config", {}), **options}
    switches = {name: bool(config.get(name, False)) for name in family.variants}
    return BaseShapes(parameters, linear, family, MappingProxyType(switches))


def shapes_of_config(
    config: Mapping[str, Any], family: Facts = FLUX_FILL, options: Mapping[str, Any] = MappingProxyType({})
) -> BaseShapes:
    """The shapes of the family's transformer that `config` describes, built on the meta device.

    Raises `ExpertError` if the class does not take this configuration.
    """
    kind = family.components["transformer"]
    stated = config.get("_class_name", kind)
    if stated != kind:
        raise ExpertError(f"The base's transformer is a {stated}, but a {family.pipeline} has a {kind} there.")
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    try:
        with device("meta"):
            transformer = _TRANSFORMERS[kind](**known)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ExpertError(f"The base's transformer/config.json does not describe a {kind}: {reason}.") from error
    return shapes_of(cast(nn.Module, transformer), family, options)


def shapes_of_base(path: str, *, revision: str | None = None) -> BaseShapes:
    """The shapes of a pipeline folder's or hub id's transformer, from its `transformer/config.json` alone.

    `model_index.json` names the family. A FLUX.1 transformer without an index is FLUX.1-Fill's.
    """
    try:
        config = FluxTransformer2DModel.load_config(path, subfolder="transformer", revision=revision)
    except (OSError, ValueError) as error:
        raise ExpertError(
            f"The base {path!r} has no readable transformer/config.json; give a diffusers pipeline folder or a hub id."
        ) from error
    try:
        index = DiffusionPipeline.load_config(path, revision=revision)
    except (OSError, ValueError) as error:
        if (Path(path) / "model_index.json").exists():
            raise ExpertError(f"The base {path!r} has a model_index.json that cannot be read; get it again.") from error
        index = {"_class_name": FLUX_FILL.pipeline}
    return shapes_of_config(config, facts_of_pipeline(index.get("_class_name"), path), index)


def adapter_share(
    base: Mapping[str, Any] | BaseShapes = FLUX_FILL_CONFIG, *, rank: int = 32, targets: str | None = None
) -> AdapterShare:
    """Counts a LoRA of `rank` on the modules whose whole path matches the pattern `targets`; allocates nothing.

    `base` is a `FluxTransformer2DModel` configuration, built on the meta device, or known shapes; `targets` are by
    default the family's. A linear module of i inputs and o outputs adds rank * (i + o) parameters. Raises `InputError`
    if nothing matches.
    """
    shapes = base if isinstance(base, BaseShapes) else shapes_of_config(base)
    targets = shapes.family.targets if targets is None else targets
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
