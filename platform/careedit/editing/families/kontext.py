"""FLUX.1 Kontext: the source's tokens stand behind the target's, with another number on the first rotary axis.

Every number equals `FluxKontextPipeline`'s for the same picture, prompt and seed; with a mask `FluxKontextInpaintPipeline`'s
at strength 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from careedit.editing.families.family import Row, settings
from careedit.editing.families.flux1 import Flux1
from careedit.editing.families.sequence import Grid, SequenceFamily, tokens_behind
from careedit.editing.latents import position_ids, unpack
from careedit.errors import ExpertError
from careedit.experts.applier import Inputs
from careedit.families import FLUX_KONTEXT, Facts


@dataclass(frozen=True, eq=False)
class FluxKontext(Flux1, SequenceFamily):
    """The components of a `FluxKontextPipeline`."""

    facts: ClassVar[Facts] = FLUX_KONTEXT
    """Facts of the family, which need no weights."""

    def check_channels(self) -> None:
        """The transformer takes the latents' channels alone (64 in FLUX.1-Kontext)."""
        channels = settings(self.transformer).in_channels
        if channels != 4 * self.latent_channels:
            raise ExpertError(
                f"The base's transformer takes {channels} channels, but with its vae a Kontext transformer takes "
                f"{4 * self.latent_channels}; give a FLUX.1-Kontext base."
            )

    def positions(self, grids: Sequence[Grid], texts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """Picture n has n on the first axis; the target has 0."""
        ids = []
        for number, (rows, columns) in enumerate(grids):
            own = position_ids(2 * rows, 2 * columns)
            own[:, 0] = number
            ids.append(own)
        return self.make_shared(torch.cat(ids))

    def inputs(self, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """The pictures' tokens stand behind the target's."""
        return self.flux_inputs(tokens_behind(rows), rows, timesteps, shared)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Targets [B, 3, height, width] in about -1..1."""
        return self.decode_latents(unpack(tokens, 2 * grid[0], 2 * grid[1]))
