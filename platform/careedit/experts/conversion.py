"""The pairs of a LoRA file as updates of a transformer's modules, by diffusers' own converters.

For FLUX.1, `FluxLoraLoaderMixin.lora_state_dict` converts the whole file. It drops keys that it does not know without a
warning; `owners_of` refuses them. For the other families each pair is converted alone: a pair with diffusers' own name needs
no conversion, and the family's mixin converts Black Forest Labs' and kohya's names. Their alphas stay out of the matrices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import loaders
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from torch import Tensor

from careedit.errors import AdapterError
from careedit.experts.layouts import (
    BFL_PREFIX,
    KEY,
    KOHYA_PREFIX,
    PEFT_PREFIX,
    PREFIX,
    Layer,
    is_flux1,
    is_own,
    layers_of,
    layout_of,
    module_of,
    name_of_layout,
    with_prefix,
)
from careedit.families import FLUX_FILL, Facts

_KEY = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


@dataclass(frozen=True)
class Pair:
    """The matrices of one module of the transformer."""

    down: Tensor
    """The matrix A, shape [rank, in features]."""
    up: Tensor
    """The matrix B, shape [out features, rank]."""
    layer: str | None
    """Name of the pair in the file that they come from; None where the whole file was converted at once."""


def pairs_of(state: Mapping[str, Tensor], family: Facts, where: str) -> dict[str, Pair]:
    """The update of each module, by its path. Raises `AdapterError` for a file that cannot be converted."""
    if not is_flux1(family):
        return _each_alone(layers_of(state, where), family, where)
    return {module: Pair(*sides, None) for module, sides in _sides(_whole(state, where), where).items()}


def owners_of(state: Mapping[str, Tensor], family: Facts, where: str) -> dict[str, str]:
    """The file's own name of the layer that each module comes from, by module path.

    Raises `AdapterError` for a layer that does not reach the transformer, and for two layers of the same module. For FLUX.1
    each layer is also converted alone: its modules must be in the whole conversion, and no other layer may have them.
    """
    if name_of_layout(state, family) == "fal":
        return {}  # that conversion needs all layers at once, and raises for unknown ones
    stray = next((key for key in state if not key.startswith(PEFT_PREFIX)), None)
    if layout_of(state, family) == "peft" and stray is not None:
        raise AdapterError(f"{where} holds {stray[:120]!r} and keys of peft's layout; keep one of the two layouts.")
    if not is_flux1(family):
        return {module: cast(str, pair.layer) for module, pair in pairs_of(state, family, where).items()}
    owners: dict[str, str] = {}
    keys: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        keys.setdefault(cast(re.Match[str], KEY.match(key))["layer"], {})[key] = tensor
    converted = {layer: [key for key in _whole(own, where, layer) if ".lora_" in key] for layer, own in keys.items()}
    whole = _whole(state, where)
    for layer, given in converted.items():
        if not given or not set(given) <= whole.keys():
            raise AdapterError(
                f"{where} holds the layer {layer[:120]!r}, which load_lora_weights drops in this layout; export it "
                f"with {family.pipeline}.save_lora_weights, or without this layer."
            )
        for module in {key.split(".lora_")[0] for key in given}:
            _refuse_second(owners.setdefault(module, layer), layer, module, where)
    return owners


def with_alpha(state: Mapping[str, Tensor], layers: Mapping[str, Layer], alpha: float) -> dict[str, Tensor]:
    """`state` with `alpha` as the alpha of every layer that states none."""
    missing = {f"{name}.alpha": torch.tensor(alpha) for name, layer in layers.items() if layer.alpha is None}
    return {**state, **missing}


def _each_alone(layers: Mapping[str, Layer], family: Facts, where: str) -> dict[str, Pair]:
    """The pairs of a file for a family other than FLUX.1."""
    pairs: dict[str, Pair] = {}
    for name, layer in layers.items():
        module = module_of(name)
        found = {module: (layer.down, layer.up)} if is_own(module, family) else _by_mixin(name, layer, family, where)
        for module, sides in found.items():
            if module in pairs:
                _refuse_second(cast(str, pairs[module].layer), name, module, where)
            pairs[module] = Pair(*sides, name)
    return pairs


def _by_mixin(name: str, layer: Layer, family: Facts, where: str) -> dict[str, tuple[Tensor, Tensor]]:
    """The modules of a layer whose name is not diffusers' own; kohya's fused layers and BFL's become several."""
    if name.startswith(KOHYA_PREFIX):
        state = {f"{name}.lora_down.weight": layer.down, f"{name}.lora_up.weight": layer.up}
        state[f"{name}.alpha"] = torch.tensor(float(layer.rank))  # the real alpha stays out of the matrices
    else:
        own = BFL_PREFIX + module_of(name)
        state = {f"{own}.lora_A.weight": layer.down, f"{own}.lora_B.weight": layer.up}
    try:
        mixin: Any = getattr(loaders, family.lora_mixin) if family.lora_mixin else None
        converted = {} if mixin is None else mixin.lora_state_dict(state)
    except Exception as error:  # the converters raise whatever their assumptions break on
        raise _cannot_convert(error, name, family, where) from error
    found = {key.removeprefix(PREFIX): value for key, value in converted.items() if key.startswith(PREFIX)}
    if not found:
        raise AdapterError(
            f"{where} holds the layer {name[:120]!r}, which is not a layer of {family.name}; use an adapter for this "
            f"family, or export it without this layer."
        )
    return _sides(found, where)


def _sides(converted: Mapping[str, Tensor], where: str) -> dict[str, tuple[Tensor, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in converted.items():
        match = _KEY.match(key)
        if match is None or tensor.ndim != 2:
            raise AdapterError(f"{where} holds {key!r}, which is not a LoRA weight of a transformer; export it again.")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides:
        raise AdapterError(f"{where} holds no LoRA weights for the transformer; check that it is the right file.")
    return {module: (pair["A"], pair["B"]) for module, pair in sides.items()}


def _whole(state: Mapping[str, Tensor], where: str, layer: str | None = None) -> dict[str, Tensor]:
    """`<module>.lora_A.weight` and `.lora_B.weight` of every module that FLUX.1's `load_lora_weights` would change.

    If no key has the prefix, all get it; if some have it, the other keys are not for the pipeline. Alphas are multiplied
    into the matrices if `folds_alpha`, and left out otherwise. `layer` is the layer in `state`, for the error message.
    """
    if not any(key.startswith(PREFIX) for key in state):
        state = {with_prefix(key, FLUX_FILL): tensor for key, tensor in state.items()}
    try:
        converted = cast(dict[str, Tensor], cast(Any, loaders).FluxLoraLoaderMixin.lora_state_dict(dict(state)))
        # Keys without the prefix are not for the transformer.
        found = {key.removeprefix(PREFIX): value for key, value in converted.items() if key.startswith(PREFIX)}
        found = {key: value for key, value in found.items() if not key.endswith(".alpha")}
        if not any(".lora_A." in key for key in found):
            found = convert_unet_state_dict_to_peft(found)  # type: ignore[no-untyped-call]
        return found
    except Exception as error:  # the converters raise whatever their assumptions break on
        raise _cannot_convert(error, layer, FLUX_FILL, where) from error


def _cannot_convert(error: Exception, layer: str | None, family: Facts, where: str) -> AdapterError:
    named = f" in the layer {layer[:120]!r}" if layer else ""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:160].rstrip(": ")
    return AdapterError(
        f"{where} has a key layout that diffusers cannot convert{named} ({reason}); "
        f"export it with {family.pipeline}.save_lora_weights."
    )


def _refuse_second(first: str, second: str, module: str, where: str) -> None:
    if first != second:
        raise AdapterError(f"{where} states {module!r} twice, as {first!r} and as {second!r}; keep one of them.")
