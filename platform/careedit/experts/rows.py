"""The rows of a batch: grouping them by expert, and taking some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_SHARED = frozenset({"img_ids", "txt_ids"})
"""Inputs of `FluxTransformer2DModel` that all rows share."""


def group_rows(rows: Sequence[str]) -> dict[str, list[int]]:
    """Row indices per name, names in the order of their first row."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(rows):
        groups.setdefault(name, []).append(index)
    return groups


def take_rows(inputs: Mapping[str, Any], indices: Sequence[int], rows: int) -> dict[str, Any]:
    """The transformer inputs of some rows of a batch of `rows` rows, in the order of `indices`."""
    taken: dict[str, Any] = {}
    picks: dict[torch.device, Tensor] = {}
    for key, value in inputs.items():
        if isinstance(value, Tensor) and key not in _SHARED and value.ndim and value.shape[0] == rows:
            if value.device not in picks:
                picks[value.device] = torch.tensor(indices, dtype=torch.long, device=value.device)
            value = value.index_select(0, picks[value.device])
        taken[key] = value
    return taken
