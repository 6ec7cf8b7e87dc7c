"""Experts of each family in mixed batches equal edits with `load_lora_weights`, merged, in spans and in slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from careedit.editing import EditJob, Engine
from careedit.experts import MemoryLibrary, MergedApplier, NoExperts, SharedApplier, load_adapter
from careedit.experts.applier import Inputs
from careedit.experts.slots import SlotApplier
from lora_files import edit, engine, load_as_diffusers, own, several_ranks, shapes_of_pipe, targets, write

pytestmark = pytest.mark.usefixtures("small_bases_only")


class StockExperts(NoExperts):
    """Experts as diffusers and peft apply them, one row at a time: each is loaded by the stock pipeline."""

    def __init__(self, pipe: Any, files: dict[str, Path]) -> None:
        super().__init__(pipe.transformer)
        self.loaded = {}
        for name, path in files.items():
            one = own(pipe)
            load_as_diffusers(one, path)
            self.loaded[name] = one.transformer

    def velocity(self, rows: Sequence[str], inputs: Inputs) -> Tensor:
        parts = []
        for index, name in enumerate(rows):
            one = inputs.take([index])
            parts.append(self.loaded[name](**one.per_row, **one.shared, return_dict=False)[0])
        return torch.cat(parts)

    def lease(self, names: Any) -> Any:
        return super().lease(())


def latents(engine: Engine, jobs: Sequence[EditJob], *, together: bool) -> list[Tensor]:
    states = [engine.prepare(job) for job in jobs]
    for group in [states] if together else [[state] for state in states]:
        engine.advance(group)
    return [state.latents for state in states]


@pytest.mark.parametrize("name", ["kontext", "klein", "qwen 2509", "qwen 2511", "longcat"])
def test_experts_in_one_batch_equal_edits_with_load_lora_weights(
    name: str, bases: Callable[[str], Any], tmp_path: Path
) -> None:
    """One expert on every linear layer, which Qwen 2511 shows some rows twice, one on attention, and both mixed."""
    pipe = bases(name)
    shapes = shapes_of_pipe(pipe)
    files = {
        "a": write(tmp_path / "a.safetensors", several_ranks(shapes)),
        "b": write(tmp_path / "b.safetensors", targets(shapes, "transformer.", rank=6)),
    }
    guidance = {"kontext": 2.5, "klein": None, "longcat": 3.0}.get(name, 1.0)
    jobs = [
        edit(number, weights=weights, guidance=guidance)
        for number, weights in enumerate(({"a": 1.0}, {"b": 1.0}, {"a": 0.3, "b": 0.7}))
    ]
    expected = latents(engine(own(pipe), StockExperts(own(pipe), files)), jobs, together=False)
    plain = latents(engine(pipe), [edit(number, guidance=guidance) for number in range(3)], together=False)
    assert all((one - other).abs().max() > 1e-2 for one, other in zip(expected, plain, strict=True))
    library = MemoryLibrary({key: load_adapter(path, shapes) for key, path in files.items()}, shapes)
    for kind in (MergedApplier, SharedApplier, SlotApplier):
        batched = own(pipe)
        applier = kind(batched.transformer, library)
        for one, other in zip(latents(engine(batched, applier), jobs, together=True), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0.0, atol=1e-4)
