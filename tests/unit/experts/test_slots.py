"""Experts in slots compute what experts in spans compute, also when they are swapped or need more room."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from careedit.errors import ExpertError
from careedit.experts import BaseShapes, LoraState, MemoryLibrary, SharedApplier, shapes_of
from careedit.experts.slots import SlotApplier
from velocities import velocity

ROWS = ["style", "base", "erase", "type", "style"]
FEW = r".*(attn\.to_q|norm1\.linear|proj_mlp)|x_embedder|proj_out"


@pytest.fixture
def library(lora: Callable[..., LoraState], shapes: BaseShapes) -> MemoryLibrary:
    """Three experts of different ranks, scales and targets."""
    adapters = {
        "erase": lora(1, rank=4, alpha=16.0),
        "style": lora(2, rank=8),
        "type": lora(3, rank=2, alpha=6.0, targets=FEW),
    }
    return MemoryLibrary(adapters, shapes)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def spans(pristine: nn.Module, library: MemoryLibrary, rows: list[str], inputs: dict[str, Any]) -> torch.Tensor:
    return velocity(SharedApplier(copy.deepcopy(pristine), library), rows, inputs)


def test_slots_give_what_spans_give(
    pristine: nn.Module, transformer: nn.Module, library: MemoryLibrary, inputs: Callable[..., Any]
) -> None:
    applier = SlotApplier(transformer, library)
    batch = inputs(len(ROWS))
    expected = spans(pristine, library, ROWS, batch)
    torch.testing.assert_close(velocity(applier, ROWS, batch), expected, rtol=0.0, atol=1e-5)
    assert torch.equal(transformer(**batch, return_dict=False)[0], pristine(**batch, return_dict=False)[0])
    assert shapes_of(transformer) == shapes_of(pristine)


def test_an_expert_takes_the_slot_of_the_one_used_least_recently(
    pristine: nn.Module, transformer: nn.Module, library: MemoryLibrary, inputs: Callable[..., Any]
) -> None:
    size = SlotApplier(copy.deepcopy(pristine), library)._size("")
    applier = SlotApplier(transformer, library, byte_budget=size)
    for name in ("erase", "style", "type", "erase"):
        torch.testing.assert_close(
            velocity(applier, [name, "base"], inputs(2)),
            spans(pristine, library, [name, "base"], inputs(2)),
            rtol=0.0,
            atol=1e-5,
        )
        assert applier.resident == (name,)
        assert applier.resident_bytes == size
    with pytest.raises(ExpertError, match="budget"):
        velocity(applier, ["erase", "style"], inputs(2))


def test_a_later_expert_of_a_larger_rank_and_on_other_layers_gets_room(
    pristine: nn.Module,
    transformer: nn.Module,
    library: MemoryLibrary,
    lora: Callable[..., LoraState],
    inputs: Callable[..., Any],
) -> None:
    applier = SlotApplier(transformer, library)
    velocity(applier, ROWS, inputs(len(ROWS)))
    library.add("large", lora(4, rank=20, targets=r"context_embedder|.*to_k"))
    rows = ["large", *ROWS]
    expected = spans(pristine, library, rows, inputs(len(rows)))
    torch.testing.assert_close(velocity(applier, rows, inputs(len(rows))), expected, rtol=0.0, atol=1e-5)
