"""The kind "transformer": registered here without torch; the model is imported when a set asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from careedit.record import Record
from careedit.routing.base import RoutableExpert, Router, read_options, register_router

KIND = "transformer"
"""The name of the learned router in an expert set's file."""


class TransformerOptions(Record):
    """Options of the learned router, files and folders as paths on this machine.

    In an expert set's file they are named with their hashes, `{file: router/router.json, sha256: ...}` and `{folder:
    clip, sha256: ...}`; `careedit.experts.router_options` checks them and puts paths in their place.
    """

    config: str = Field(min_length=1)
    """The router's `router.json`."""
    weights: str = Field(min_length=1)
    """The router's `router.safetensors`."""
    encoder: str = Field(min_length=1)
    """The encoder: a folder in open_clip's hub layout, an open_clip architecture, or "hf-hub:organisation/name"."""
    pretrained: str | None = None
    """The weights' tag, for an architecture."""


@register_router(KIND)
def _build(experts: Sequence[RoutableExpert], options: Mapping[str, Any]) -> Router:
    chosen = read_options(KIND, TransformerOptions, options)
    from careedit.routing.transformer import load_router  # torch, and the encoder's library

    return load_router(
        chosen.config, chosen.weights, experts=experts, encoder=chosen.encoder, pretrained=chosen.pretrained
    )
