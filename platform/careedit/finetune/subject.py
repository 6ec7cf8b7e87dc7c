"""The base that an expert is trained for: found by its name, checked before its weights are read, loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from careedit.editing import Family, Start, load_base
from careedit.errors import ExpertError, InputError
from careedit.experts import PanelSpec, load_expert_set
from careedit.experts.manifest import SET_FILE
from careedit.experts.set import packaged_set
from careedit.families import facts_of_pipeline, read_index
from careedit.files import is_url

PANELS = {"canvas": 512, "sequence": 1024}
"""Default panel side, in pixels, for a base without an expert set, by the family's layout."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The base that an expert is trained for."""

    path: str
    """The base, as `load_base` reads it."""
    name: str
    """Name of the base for cards and manifests."""
    max_sequence_length: int | None = None
    """Maximum text tokens per prompt. Default: the family's maximum."""
    revision: str | None = None
    """Revision of a hub id. Default: the newest one."""
    panel: PanelSpec | None = None
    """Panel size and fitting of the expert set. None for a base without a set."""
    start: Start = "noise"
    """What the expert set's edits start from. Default: noise."""
    noise_scale: float = 1.0
    """Standard deviation of the noise at that start. Default: 1."""


def find_subject(ref: str, *, panel: int | None = None, max_sequence_length: int | None = None) -> Subject:
    """The base that `ref` names: an expert set's name or folder, a model's folder, or a hub id.

    Raises `InputError` or `ExpertError`.
    """
    if not (is_url(ref) or (Path(ref) / SET_FILE).is_file() or packaged_set(ref) is not None):
        return Subject(ref, ref, max_sequence_length)
    if panel or max_sequence_length:
        raise InputError(
            f"{ref!r} is an expert set, which has its own panel size and sequence length; leave these options out."
        )
    loaded = load_expert_set(ref)
    spec = loaded.spec
    return Subject(
        path=loaded.base_path,
        # As few-step LoRAs are used: the expert is trained on the base itself and applied with the LoRA.
        name=f"the base of {loaded.name} {loaded.version}" + (", without its LoRA" if spec.base.lora else ""),
        max_sequence_length=spec.base.max_sequence_length,
        revision=spec.base.revision,
        panel=spec.panel,
        start=spec.defaults.start,
        noise_scale=spec.defaults.noise_scale,
    )


def load_subject(subject: Subject, device: str, dtype: torch.dtype) -> Family:
    """The base with frozen weights. Raises `ExpertError` for a base that cannot be loaded, or is distilled."""
    _, index = read_index(subject.path, revision=subject.revision)
    facts = facts_of_pipeline(index.get("_class_name"), subject.path)
    if index.get("is_distilled") or facts.guidance == "none":
        raise ExpertError(
            f"{subject.name} is distilled to a few steps, and training on it destroys that; train on the base model that "
            "it was distilled from, such as black-forest-labs/FLUX.2-klein-base-4B, and use the expert here."
        )
    base = load_base(
        subject.path,
        revision=subject.revision,
        max_sequence_length=subject.max_sequence_length,
        device=device,
        dtype=dtype,
    )
    for name in base.facts.components:
        module = getattr(base, name)
        if isinstance(module, nn.Module):
            module.requires_grad_(False)
    return base
