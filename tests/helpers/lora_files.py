"""LoRA files for the small bases, and the engines that edit with them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import small_bases
from careedit.editing import FAMILIES, EditJob, Engine
from careedit.experts import BaseShapes, NoExperts, shapes_of
from careedit.experts.applier import Inputs

Tensors = dict[str, Tensor]
BUILDERS: dict[str, Callable[[], Any]] = {
    "kontext": small_bases.kontext,
    "klein": small_bases.klein,
    "qwen 2509": partial(small_bases.qwen, zero_cond_t=False),
    "qwen 2511": small_bases.qwen,
    "longcat": small_bases.longcat,
}
PER_ROW = ("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask", "pooled_projections", "timestep", "guidance")  # fmt: skip


def own(pipe: Any) -> Any:
    options = {"is_distilled": pipe.config.is_distilled} if "is_distilled" in pipe.config else {}
    return type(pipe)(**{**pipe.components, "transformer": copy.deepcopy(pipe.transformer)}, **options)


def shapes_of_pipe(pipe: Any) -> BaseShapes:
    return shapes_of(pipe.transformer, FAMILIES[type(pipe).__name__].facts, pipe.config)


def engine(pipe: Any, applier: Any = None) -> Engine:
    length = small_bases.TEXT_LENGTH if hasattr(pipe, "text_encoder_2") else None
    base = FAMILIES[type(pipe).__name__].from_pipeline(pipe, max_sequence_length=length)
    return Engine(base, NoExperts(base.transformer) if applier is None else applier)


def load_as_diffusers(pipe: Any, path: Path) -> None:
    """The stock pipeline's own loading; LongCat's has none, but its transformer does."""
    if hasattr(pipe, "load_lora_weights"):
        pipe.load_lora_weights(str(path))
    else:
        pipe.transformer.load_lora_adapter(str(path))


def edit(number: int = 0, **fields: Any) -> EditJob:
    source = Image.new("RGB", (64, 64), (40 * number + 60, 255 - 50 * number, 90))
    return EditJob(**{"source": source, "instruction": "make it " + "red " * (number + 1), "seed": number, "steps": 3} | fields)  # fmt: skip


def inputs_of(pipe: Any) -> Inputs:
    """The transformer's arguments in the first step of two edits."""
    found: list[dict[str, Any]] = []
    hook = pipe.transformer.register_forward_pre_hook(lambda _, __, given: found.append(given), with_kwargs=True)
    one = engine(pipe)
    one.step([one.prepare(edit(1)), one.prepare(edit(2))])
    hook.remove()
    per_row = {name: found[0][name] for name in PER_ROW if found[0].get(name) is not None}
    shared = {name: value for name, value in found[0].items() if name not in (*per_row, "return_dict")}
    return Inputs(per_row, shared)


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5


def pair(layer: str, inner: int, outer: int, *, rank: int = 4, alpha: float | None = None, sides: str = "A B") -> Tensors:  # fmt: skip
    down, up = (f"{layer}.lora_{side}.weight" for side in sides.split())
    tensors = {down: drawn(rank, inner), up: drawn(outer, rank)}
    return tensors | ({} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)})


def layers(shapes: BaseShapes, pattern: str, name: Callable[[str], str], **options: Any) -> Tensors:
    """A pair for every linear module whose path matches, under the name that a layout gives it."""
    found: Tensors = {}
    for module, (outer, inner) in shapes.linear.items():
        if re.fullmatch(pattern, module):
            found |= pair(name(module), inner, outer, **options)
    return found


def prefixed(prefix: str) -> Callable[[str], str]:
    return lambda module: prefix + module


def targets(shapes: BaseShapes, prefix: str, **options: Any) -> Tensors:
    return layers(shapes, shapes.family.targets, prefixed(prefix), **options)


def several_ranks(shapes: BaseShapes) -> Tensors:
    found: Tensors = {}
    for number, module in enumerate(shapes.linear):
        outer, inner = shapes.linear[module]
        found |= pair(f"transformer.{module}", inner, outer, rank=1 + number % 3)
    return found


def write(path: Path, tensors: Tensors, header: dict[str, str] | None = None) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=header)
    return path
