"""FLUX.2 [klein] with kept keys and values: the pictures' tokens are computed at an edit's first step only.

It is exact, because these weights were trained so: the pictures attend to themselves alone and are modulated at time 0.
Every number equals `Flux2KleinKVPipeline`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from diffusers.models.transformers.transformer_flux2 import Flux2KVCache
from torch import Tensor

from careedit.editing.families.family import Row
from careedit.editing.families.klein import Flux2Klein
from careedit.experts.applier import Inputs
from careedit.families import FLUX2_KLEIN_KV, Facts, GuidanceKind

_Cache: Any = Flux2KVCache


@dataclass(frozen=True, eq=False)
class Flux2KleinKV(Flux2Klein):
    """The components of a `Flux2KleinKVPipeline`.

    An edit keeps the keys and values of each of its experts until its last step: 2.1 GB per expert and picture of 1024 x 1024
    pixels for the 9B weights in bfloat16.
    """

    facts: ClassVar[Facts] = FLUX2_KLEIN_KV
    """Facts of the family, which need no weights."""
    first_step_apart: ClassVar[bool] = True
    """First steps fill the cache, so they are batches of their own."""

    @property
    def guidance(self) -> GuidanceKind:
        """The base is step-distilled."""
        return "none"

    def inputs(self, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """At the first step the pictures' tokens stand before the target's; later only the target's are computed."""
        count, ids = rows[0].latents.shape[1], shared["img_ids"]
        first = not rows[0].memory
        per_row = {
            "hidden_states": torch.cat(
                [torch.cat((row.condition, row.latents), dim=1) if first else row.latents for row in rows]
            ),
            "encoder_hidden_states": torch.cat([row.text["encoder_hidden_states"] for row in rows]),
            "timestep": timesteps.to(self.dtype) / 1000,
        }
        own = {**shared, "img_ids": torch.cat((ids[count:], ids[:count])) if first else ids[:count]}
        if first:
            own |= {"kv_cache_mode": "extract", "num_ref_tokens": rows[0].condition.shape[1]}
        return Inputs(per_row, own, run=partial(_run, [row.memory for row in rows], first))


def _run(memories: Sequence[dict[str, Any]], first: bool, transformer: Any, inputs: Inputs) -> Tensor:
    """The velocity of the batch's rows `inputs.rows`, whose caches are filled or used."""
    arguments = {**inputs.per_row, **inputs.shared, "return_dict": False}
    own = [memories[row] for row in inputs.rows]
    if not first:
        cache = _joined([memory["kv"] for memory in own])
        return cast(Tensor, transformer(**arguments, kv_cache=cache, kv_cache_mode="cached")[0])
    output, filled = transformer(**arguments)
    for position, memory in enumerate(own):
        memory["kv"] = _picked(filled, position)
    return cast(Tensor, output)


def _layers(cache: Any) -> list[Any]:
    return [*cache.double_block_caches, *cache.single_block_caches]


def _empty(like: Any) -> Any:
    cache = _Cache(len(like.double_block_caches), len(like.single_block_caches))
    cache.num_ref_tokens = like.num_ref_tokens
    return cache


def _picked(cache: Any, row: int) -> Any:
    """One row of a batch's cache, copied so that it does not keep the whole batch's in memory."""
    picked = _empty(cache)
    for target, layer in zip(_layers(picked), _layers(cache), strict=True):
        target.store(layer.k_ref[row : row + 1].clone(), layer.v_ref[row : row + 1].clone())
    return picked


def _joined(caches: Sequence[Any]) -> Any:
    """The caches of several rows as one batch's."""
    joined = _empty(caches[0])
    for target, *layers in zip(_layers(joined), *map(_layers, caches), strict=True):
        target.store(torch.cat([layer.k_ref for layer in layers]), torch.cat([layer.v_ref for layer in layers]))
    return joined
