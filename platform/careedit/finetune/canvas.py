"""Own rows of a base that edits on a canvas: encoded into pools, and their flow loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from careedit.editing import FluxFill, Start
from careedit.finetune.data import Row, RowRules, row_item
from careedit.finetune.pool import Item, build_pool, load_pool

_SHARD_PIXELS = 2**23
"""Number of canvas pixels per file of latents."""


@dataclass(frozen=True, eq=False)
class CanvasRows:
    """The encoded rows of one bucket, whose canvases have one size."""

    base: FluxFill
    """The base that encoded them."""
    pool: Mapping[str, Tensor]
    """Their tensors, as `load_pool` reads them."""
    panels: int
    """Number of panels per canvas."""
    flow: Callable[..., Tensor]
    """`careedit.finetune.flow.flow_loss`, with the start of the expert set's edits."""

    def __len__(self) -> int:
        return len(self.pool["t5"])

    def loss(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The flow loss on the rows `chosen` (indices, [B]); a scalar."""
        return self.flow(self.base, self.pool, chosen, generator, panels=self.panels)


def encode_canvas_rows(
    bucket: str,
    row: Callable[[int], Row],
    count: int,
    rules: RowRules,
    base: FluxFill,
    folder: Path,
    flow: Callable[..., Tensor],
    start: Start,
) -> CanvasRows:
    """The `count` rows of a bucket as latents, kept in `folder`. Existing files are reused."""
    panels, width, height = (int(side) for side in bucket.rpartition("-")[2].split("x"))
    shard = max(1, min(512, _SHARD_PIXELS // (3 * width * height)))

    def item(index: int) -> Item:
        return row_item(row(index), rules)

    clip_length = min(77, int(base.tokenizer.model_max_length))
    build_pool(bucket, item, count, base, folder, shard_size=shard, clip_length=clip_length, start=start)
    return CanvasRows(base, load_pool(bucket, folder), panels, flow)
