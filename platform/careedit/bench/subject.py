"""The subject of `careedit bench engine`: a base with several experts, from an expert set or with random weights."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from PIL import Image, ImageDraw

from careedit import plugins
from careedit.bench.stock import stock_pipeline
from careedit.editing import EditJob, Engine, Family
from careedit.editing.base_model import load_base_of
from careedit.errors import ExpertError, InputError
from careedit.experts import AdapterLibrary, BaseShapes, MergedApplier, SharedApplier, load_expert_set
from careedit.experts.set import packaged_set
from careedit.loading import default_dtype, find_device

UNTRAINED = "untrained"
"""Name of the subject without trained weights: the tiny architecture with random ones. Times do not depend on values."""

INSTRUCTIONS = (
    "remove the red circle",
    "add a small blue star at the top",
    "replace the green square with a yellow triangle",
    "make it look like a pencil sketch",
    "turn the arrow to point left",
    "there should be three red circles",
    "change the background to a blue checkerboard",
    "make the purple heart large",
)
"""One instruction per edit of a batch."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A base, its experts, and example edits."""

    name: str
    """Name of the expert set, or `UNTRAINED`."""
    base: Family
    """Components of the base model."""
    library: AdapterLibrary
    """The experts that are measured; at least two."""
    shapes: BaseShapes
    """Parameter shapes of the base's transformer."""
    panel: int
    """Length of a panel's side, in pixels."""
    steps: int
    """Denoising steps of an edit unless the caller gives another number."""

    @cached_property
    def merged(self) -> Engine:
        """An engine that merges experts, on the base's own transformer."""
        return Engine(self.base, MergedApplier(self.base.transformer, self.library))

    @cached_property
    def shared(self) -> Engine:
        """An engine that mixes experts in a batch, on a copy of the transformer, because it changes the transformer."""
        base = dataclasses.replace(self.base, transformer=copy.deepcopy(self.base.transformer))
        return Engine(base, SharedApplier(base.transformer, self.library))

    @cached_property
    def pipeline(self) -> Any:
        """diffusers' own loop over the same components as `merged`, including the transformer."""
        return stock_pipeline(self.base)

    def job(self, index: int, expert: str, steps: int) -> EditJob:
        """Edit number `index` by `expert`, with its own image, instruction and seed."""
        return example_job(index, expert, steps, side=self.panel)


def example_job(index: int, expert: str, steps: int, *, side: int) -> EditJob:
    """Edit number `index` on a panel of `side` pixels, with its own image, instruction and seed."""
    return EditJob(
        source=_draw(index, side),
        instruction=INSTRUCTIONS[index % len(INSTRUCTIONS)],
        seed=index,
        steps=steps,
        weights={expert: 1.0},
    )


def load_subject(
    expert_set: str | None = None, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Subject:
    """The subject of an expert set (a name, a folder, an address), or the untrained subject for the name `UNTRAINED`.

    None: the packaged tiny set, or the untrained subject if it is not installed. `device` and `dtype` default as in
    `load_editor`. Raises `ExpertError`, also for a set of fewer than two experts.
    """
    device = find_device(device)
    dtype = dtype or default_dtype(device)
    name = expert_set or ("tiny" if packaged_set("tiny") is not None else UNTRAINED)
    build = plugins.load(plugins.BENCH_SUBJECTS, name, error=ExpertError)
    if build is not None:
        return cast(Subject, build(device=device, dtype=dtype))
    loaded = load_expert_set(name)
    if len(loaded.names) < 2:
        raise ExpertError(
            f"The expert set {loaded.name!r} has {len(loaded.names)} experts, but switching needs two; measure another set."
        )
    spec, base = loaded.spec, load_base_of(loaded, device=device, dtype=dtype)
    return Subject(loaded.name, base, loaded, loaded.shapes, spec.panel.size, spec.defaults.steps)


def random_subject(
    family: str, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Subject:
    """A small base with random weights of one of the families that `careedit bench gpu` measures, with four experts.

    Raises `InputError` for another name.
    """
    from careedit.bench.gpu import NAMES, build_base

    if family not in NAMES:
        raise InputError(f"The family {family!r} cannot be measured; choose one of {', '.join(NAMES)}.")
    device = find_device(device)
    made = build_base(family, reduced=True, experts=4, rank=8, device=device, dtype=dtype or default_dtype(device))
    return Subject(f"{family}, small, {UNTRAINED}", made.family, made.library, made.shapes, 64, made.kind.steps)


def _draw(index: int, side: int) -> Image.Image:
    """A simple image, a different one for every index."""
    shade = index * 37 % 256
    picture = Image.new("RGB", (side, side), (shade, 255 - shade, 90))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((side // 8, side // 6, side // 2, side // 2 + index % (side // 4)), fill=(200, 40, shade))
    pen.rectangle((side // 2, side // 2, side - side // 8, side - side // 8), fill=(20, shade, 90))
    return picture
