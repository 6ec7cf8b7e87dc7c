"""LoRA files in the existing layouts, read as one: module path -> (A, B, alpha) for the transformer of a family.

All that the family's `load_lora_weights` accepts for the transformer is accepted, by diffusers' own converters:

* diffusers (`transformer.<module>.lora_A.weight`), alpha from `<module>.alpha` keys or from the file's
  `lora_adapter_metadata`, else alpha = rank; ICEdit's released normal LoRA is of this layout (rank = alpha = 32);
* the older `<module>.lora.down.weight`, kohya / ComfyUI (`lora_unet_...lora_down`), XLabs (`processor.qkv_lora1...`),
  ai-toolkit (`diffusion_model.`), Lightning's bare `<module>.lora_down.weight`.

peft's own files (`base_model.model.<module>.lora_A.weight`) are accepted too; they state no alpha, but the manifest does.
Unlike diffusers, careedit also uses an alpha that is only in a plain header field (`careedit.experts.alphas`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from careedit.errors import AdapterError
from careedit.experts.alphas import (
    Config,
    OutsideAlpha,
    agreed,
    config_of_fields,
    config_of_metadata,
    resolved_keys,
    unread_fields,
)
from careedit.experts.conversion import Pair, pairs_of, with_alpha
from careedit.experts.layouts import (
    Layer,
    check_alpha_keys,
    folds_alpha,
    is_flux1,
    layers_of,
    module_of,
    name_of_layout,
)
from careedit.families import Facts


@dataclass(frozen=True)
class LoraModule:
    """The update of one linear module: W + (alpha / rank) * up @ down."""

    down: Tensor
    """The matrix A, shape [rank, in features]."""
    up: Tensor
    """The matrix B, shape [out features, rank]."""
    alpha: float
    """LoRA's alpha: the update is scaled by alpha / rank."""

    @property
    def rank(self) -> int:
        """Number of rows of A."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    def added_to(self, weight: Tensor) -> Tensor:
        """`weight` [out features, in features] with this update, computed in float32 on the weight's device."""
        down, up = (side.to(weight.device, torch.float32) for side in (self.down, self.up))
        return torch.addmm(weight.float(), up, down, alpha=self.scale)


@dataclass(frozen=True)
class Found:
    """Description of a file, as commands show it."""

    layout: str
    """Name of the layout of its keys."""
    layers: int
    """Number of pairs of matrices in the file. A fused pair becomes several modules."""
    alpha: str
    """The place that states the alphas."""
    ranks: tuple[int, int]
    """Smallest and largest rank of the layers in the file."""
    scales: tuple[float, float]
    """Smallest and largest alpha / rank of the layers in the file."""
    asked: bool = False
    """Whether the file needs an alpha from outside, from a manifest or `--alpha`."""
    warnings: tuple[str, ...] = ()
    """Sentences about properties of the file that may surprise the user."""

    def __str__(self) -> str:
        def span(values: tuple[float, float]) -> str:
            low, high = (f"{value:.4g}" for value in values)
            return low if low == high else f"{low} to {high}"

        return (
            f"layout {self.layout}, {self.layers:,} layers, rank {span(self.ranks)}, alpha from {self.alpha}, "
            f"scale {span(self.scales)}"
        )


@dataclass(frozen=True)
class LoraState:
    """One adapter, ready to be applied."""

    modules: Mapping[str, LoraModule]
    """Update of each module by its path in the transformer, e.g. `transformer_blocks.0.attn.to_q`."""
    found: Found | None = field(default=None, compare=False)
    """Description of the file; None for an adapter that was not read from a file."""

    @cached_property
    def rank(self) -> int:
        """The largest rank of its modules."""
        return max(module.rank for module in self.modules.values())

    @cached_property
    def alpha(self) -> float:
        """The most common alpha of its modules."""
        return Counter(module.alpha for module in self.modules.values()).most_common(1)[0][0]

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(module.down.numel() + module.up.numel() for module in self.modules.values())


def canonical(
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    where: str,
    *,
    family: Facts,
    outside: OutsideAlpha | None = None,
) -> LoraState:
    """Converts the tensors of a file, in any layout that is known for the family, to one form.

    `outside` is an alpha from outside the file; a file in peft's layout needs one unless its header states it. Raises
    `AdapterError` naming `where` for a layout that is unknown or cannot be applied, and for alphas or ranks that
    contradict each other. Tensors keep their number format; nothing is checked against a base here.
    """
    layers = layers_of(state, where)
    layout = name_of_layout(state, family)
    check_alpha_keys(layers, layout, family, where)
    source, alpha_source = agreed(layers, metadata, outside, where)
    folded, without = folds_alpha(state, family), any(layer.alpha is None for layer in layers.values())
    if folded and source is not None and _is_one_alpha(source):
        state = with_alpha(state, layers, _value(source))
        layers = layers_of(state, where)
    pairs = pairs_of(state, family, where)
    ranks = {module: int(pair.down.shape[0]) for module, pair in pairs.items()}
    own = {name: layer.rank for name, layer in layers.items()}
    for config in (config_of_metadata(metadata, where), config_of_fields(metadata, where)):
        if config is not None:
            config.check_ranks(ranks, own, where)
    if layout == "peft" and source is None and all(layer.alpha is None for layer in layers.values()):
        raise AdapterError(f"{where} is a peft file, which states no alpha; give it in the manifest or with --alpha.")
    if is_flux1(family):
        alphas = _alphas(state, ranks, source, where, folded=folded)
    else:
        alphas = {module: _alpha(module, pair, layers, source) for module, pair in pairs.items()}
    modules = {name: LoraModule(pair.down, pair.up, alphas[name]) for name, pair in sorted(pairs.items())}
    if folded and (source is None or _is_one_alpha(source)):
        scales = [(layer.rank if layer.alpha is None else float(layer.alpha)) / layer.rank for layer in layers.values()]
    else:
        scales = [module.scale for module in modules.values()]
    found = Found(
        layout,
        len(layers),
        alpha_source,
        (min(own.values()), max(own.values())),
        (min(scales), max(scales)),
        isinstance(source, OutsideAlpha) and without,
        tuple(_warnings(modules, layers, metadata, as_rank=folded or not is_flux1(family))),
    )
    return LoraState(modules, found)


def _is_one_alpha(source: Config | OutsideAlpha) -> bool:
    """Whether a source other than the keys states one plain alpha for all layers, as a key would."""
    return isinstance(source, OutsideAlpha) or not (source.strict or source.alpha_pattern or source.rslora)


def _value(source: Config | OutsideAlpha) -> float:
    value = source.value if isinstance(source, OutsideAlpha) else source.alpha
    assert value is not None  # every source that `agreed` returns has one
    return value


def _alphas(
    state: Mapping[str, Tensor],
    ranks: Mapping[str, int],
    source: Config | OutsideAlpha | None,
    where: str,
    *,
    folded: bool,
) -> dict[str, float]:
    """Alpha per module of the converted matrices of a file for FLUX.1."""
    if folded:
        whole = isinstance(source, Config) and not _is_one_alpha(source)
        return {
            m: source.alpha_of(m, r) if whole and isinstance(source, Config) else float(r) for m, r in ranks.items()
        }
    keys = {module_of(key.removesuffix(".alpha")): tensor for key, tensor in state.items() if key.endswith(".alpha")}
    if keys and source is None:
        return resolved_keys(ranks, keys, where)
    if isinstance(source, OutsideAlpha):
        return dict.fromkeys(ranks, source.value)
    if source is not None:
        return {module: source.alpha_of(module, rank) for module, rank in ranks.items()}
    return {module: float(rank) for module, rank in ranks.items()}


def _alpha(module: str, pair: Pair, layers: Mapping[str, Layer], source: Config | OutsideAlpha | None) -> float:
    """Alpha of a module of a file for a family other than FLUX.1: its layer's own, else the source's, else the rank.

    A fused layer may become modules of smaller ranks; all of them have the layer's scale.
    """
    layer, rank = layers[cast(str, pair.layer)], int(pair.down.shape[0])
    if layer.alpha is not None:
        return float(layer.alpha) / layer.rank * rank
    if source is None:
        return float(rank)
    return _value(source) / layer.rank * rank if _is_one_alpha(source) else cast(Config, source).alpha_of(module, rank)


def _warnings(
    modules: Mapping[str, LoraModule], layers: Mapping[str, Layer], metadata: Mapping[str, str], *, as_rank: bool
) -> Iterator[str]:
    without = sum(layer.alpha is None for layer in layers.values())
    if 0 < without < len(layers):
        taken = "their rank" if as_rank else "that of the first layer that does"
        yield f"{without} of {len(layers)} layers state no alpha; as in diffusers they use {taken}."
    for name in unread_fields(metadata):
        yield f"The header field {name!r} is not read; if it states this LoRA's alpha, give it with --alpha."
    if not any(bool(module.up.any()) and bool(module.down.any()) for module in modules.values()):
        yield "All its updates are zero: this file changes nothing."
