"""A wider transformer that begins as a narrower, trained one: Net2Net (arXiv 1511.05641) for FLUX's blocks.

The first channels of the stream, heads and hidden units are the old ones. New ones write nothing at first and are read
with small weights, so they learn from the first step. Layer norms see the same channels among more; their gain is undone
where they are read. Their mean is not undone, so a difference remains: the stream's mean relative to its deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor

from careedit.editing import FluxFill
from careedit.errors import InputError

READERS = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "net.0.proj", "proj_mlp")
"""Layers that read the normalised stream."""
WRITERS = ("x_embedder", "context_embedder", "to_out.0", "to_add_out", "net.2")
"""Layers that write to the stream; a single block's `proj_out` does so, too."""
MODULATION: Mapping[str, tuple[str, ...]] = {
    "norm1.linear": ("shift", "scale", "gate", "shift", "scale", "gate"),
    "norm1_context.linear": ("shift", "scale", "gate", "shift", "scale", "gate"),
    "norm.linear": ("shift", "scale", "gate"),
    "norm_out.linear": ("scale", "shift"),
}
"""What the rows of adaptive layer norms are, part by part, as diffusers has them."""


def with_heads(base: FluxFill, heads: int) -> FluxFill:
    """`base` with `heads` attention heads: wider, narrower, or as it is."""
    own = cast(Any, base.transformer).config.num_attention_heads
    return base if heads == own else widen(base, heads) if heads > own else narrow(base, heads)


def widen(base: FluxFill, heads: int, *, seed: int = 0) -> FluxFill:
    """`base` with `heads` attention heads per block and a stream and hidden layers as much wider; the rest is shared.

    Raises `InputError` where that is not more than it has.
    """
    old = cast(Any, base.transformer)
    if heads <= old.config.num_attention_heads:
        raise InputError(f"The base has {old.config.num_attention_heads} heads; give more than that to widen it.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = FluxTransformer2DModel.from_config({**old.config, "num_attention_heads": heads})
    state = {name: value.float() for name, value in old.state_dict().items()}
    new.load_state_dict({name: _grown(name, state, value) for name, value in new.state_dict().items()})
    return replace(base, transformer=new)


def _grown(name: str, state: Mapping[str, Tensor], new: Tensor) -> Tensor:
    """A parameter of the wide transformer from the narrow one's; `new` is as it was drawn."""
    old, layer = state[name], name.rsplit(".", 1)[0]
    width = len(state["x_embedder.bias"])
    parts = next((parts for end, parts in MODULATION.items() if layer.endswith(end)), ())
    if old.shape == new.shape:
        return old.clone()
    if parts:
        return _modulation(old, new, parts, width)
    if old.ndim == 1:
        return _put(torch.zeros_like(new), old)
    gain = math.sqrt(new.shape[1] / old.shape[1])  # of a layer norm's output when zeros are added to its input
    if layer == "proj_out":
        return _put(torch.zeros_like(new), old / gain)
    if layer.endswith("proj_out"):  # of a single block: its attention's channels and its hidden ones, side by side
        wide = new.shape[1] // 5
        grown = _put(torch.zeros_like(new), old[:, :width])
        grown[:width, wide : wide + 4 * width] = old[:, width:]
        return grown
    if layer.endswith(WRITERS):
        return _put(torch.zeros_like(new), old)
    grown = new.clone()
    if layer.endswith("linear_2"):  # new channels of the modulation's input are drawn, the old ones are what they were
        grown[: len(old)] = 0
    return _put(grown, old / gain if layer.endswith(READERS) else old)


def _modulation(old: Tensor, new: Tensor, parts: tuple[str, ...], width: int) -> Tensor:
    """Rows of an adaptive norm: new channels are neither shifted nor scaled, and take the gates of existing ones."""
    grown, wide = torch.zeros_like(new), len(new) // len(parts)
    for i, part in enumerate(parts):
        rows = old[i * width : (i + 1) * width]
        if part == "shift":
            rows = rows * math.sqrt(wide / width)
        _put(grown[i * wide : (i + 1) * wide], rows)
        if part == "gate":
            _put(grown[i * wide + width : (i + 1) * wide], rows[torch.arange(width, wide) % width])
    return grown


def _put(into: Tensor, old: Tensor) -> Tensor:
    """`into` with `old` at its beginning."""
    into[tuple(slice(0, size) for size in old.shape)] = old
    return into


def narrow(base: FluxFill, heads: int) -> FluxFill:
    """`base` cut down to `heads` attention heads, as `widen` would have grown it from them; what only the rest knew is lost.

    Raises `InputError` where that is not fewer than it has.
    """
    old = cast(Any, base.transformer)
    if heads >= old.config.num_attention_heads:
        raise InputError(f"The base has {old.config.num_attention_heads} heads; give fewer than that to narrow it.")
    new = FluxTransformer2DModel.from_config({**old.config, "num_attention_heads": heads})
    state = {name: value.float() for name, value in old.state_dict().items()}
    width, wide = cast(Any, new).inner_dim, old.inner_dim
    new.load_state_dict({name: _cut(name, state[name], v, width, wide) for name, v in new.state_dict().items()})
    return replace(base, transformer=new)


def _cut(name: str, old: Tensor, new: Tensor, width: int, wide: int) -> Tensor:
    """The inverse of `_grown`."""
    layer, gain = name.rsplit(".", 1)[0], math.sqrt(wide / width)
    parts = next((parts for end, parts in MODULATION.items() if layer.endswith(end)), ())
    if old.shape == new.shape:
        return old.clone()
    if parts:
        rows = (old[i * wide : i * wide + width] / (gain if part == "shift" else 1) for i, part in enumerate(parts))
        whole = torch.cat(list(rows))
        return whole if whole.ndim == 1 else whole[:, :width].clone()
    if layer.endswith("proj_out") and layer != "proj_out" and old.ndim == 2:
        return torch.cat((old[:width, :width], old[:width, wide : wide + 4 * width]), dim=1)
    cut = old[tuple(slice(0, size) for size in new.shape)].clone()
    return cut * gain if old.ndim == 2 and (layer == "proj_out" or layer.endswith(READERS)) else cut
