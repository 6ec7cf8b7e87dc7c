"""A subject of `careedit bench engine` that needs no weights: the tiny architecture with random adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from careedit.bench.subject import INSTRUCTIONS, UNTRAINED, Subject
from careedit.editing import FluxFill
from careedit.experts import BaseShapes, LoraModule, LoraState, MemoryLibrary, shapes_of
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, PANEL, build_pipeline

RANK, STEPS = 16, 12
"""Rank of the adapters and steps of an edit: the tiny set's."""


def untrained_subject(
    *, experts: int = 8, rank: int = RANK, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Subject:
    """The tiny architecture with weights and adapters drawn at random, in memory."""
    pipe = build_pipeline(INSTRUCTIONS)
    base = FluxFill.from_pipeline(pipe, max_sequence_length=MAX_SEQUENCE_LENGTH, device=device, dtype=dtype)
    shapes = shapes_of(base.transformer)
    adapters = {f"expert{number}": _adapter(shapes, rank, seed=number) for number in range(experts)}
    return Subject(UNTRAINED, base, MemoryLibrary(adapters, shapes), shapes, PANEL, STEPS)


def _adapter(shapes: BaseShapes, rank: int, *, seed: int) -> LoraState:
    generator = torch.Generator().manual_seed(seed)
    modules: Mapping[str, LoraModule] = {
        name: LoraModule(
            torch.randn(rank, inner, generator=generator) / inner**0.5,
            torch.randn(outer, rank, generator=generator) * 0.02,
            float(rank),
        )
        for name, (outer, inner) in shapes.linear.items()
        if re.fullmatch(shapes.family.targets, name)
    }
    return LoraState(modules)
