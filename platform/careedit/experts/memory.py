"""What one more expert costs in memory, counted without allocating any."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from careedit.errors import InputError
from careedit.experts.fingerprint import BaseShapes, shapes_of_config
from careedit.experts.make import DEFAULT_TARGETS

FLUX_FILL_CONFIG: Mapping[str, Any] = {"in_channels": 384, "out_channels": 64, "guidance_embeds": True}
"""How FLUX.1-Fill-dev's transformer differs from `FluxTransformer2DModel`'s defaults."""


@dataclass(frozen=True)
class AdapterShare:
    """Parameters of one adapter beside its base's."""

    base: int
    """Parameters of the base transformer."""
    adapter: int
    """Parameters of one adapter."""
    modules: int
    """Linear modules that it targets."""

    @property
    def share(self) -> float:
        """adapter / base."""
        return self.adapter / self.base


def adapter_share(
    base: Mapping[str, Any] | BaseShapes = FLUX_FILL_CONFIG, *, rank: int = 32, targets: str = DEFAULT_TARGETS
) -> AdapterShare:
    """Counts a LoRA of `rank` on the modules whose whole path matches the pattern `targets`.

    `base` is a `FluxTransformer2DModel` configuration, built on the meta device, or known shapes. A linear module of
    i inputs and o outputs adds rank * (i + o) parameters. Raises `InputError` if nothing matches.
    """
    shapes = base if isinstance(base, BaseShapes) else shapes_of_config(base)
    pattern = re.compile(targets)
    hit = [(outer, inner) for name, (outer, inner) in shapes.linear.items() if pattern.fullmatch(name)]
    if not hit:
        raise InputError(f"No linear module of the base matches {targets!r}; give patterns of module paths.")
    return AdapterShare(base=shapes.count, adapter=sum(rank * sum(pair) for pair in hit), modules=len(hit))
