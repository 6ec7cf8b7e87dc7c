"""Expert sets of random weights on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from careedit.experts import (
    BaseSpec,
    Defaults,
    ExpertSetFile,
    PanelSpec,
    add_expert,
    create_expert_set,
    make_manifest,
    save_adapter,
    shapes_of_base,
)
from careedit.files import folder_digest


def make_random_set(
    folder: Path,
    pipe: Any,
    experts: Mapping[str, tuple[str, ...]],
    *,
    length: int,
    panel: PanelSpec,
    defaults: Defaults,
    ends: tuple[str, ...] = ("to_q", "to_v", "proj_out"),
) -> Path:
    """The base `pipe` and an expert with visible effect for each name in `experts`, which maps to what it handles."""
    pipe.save_pretrained(folder / "base")
    shapes = shapes_of_base(str(folder / "base"))
    base = BaseSpec(
        path="./base",
        max_sequence_length=length,
        fingerprint=shapes.fingerprint,
        sha256=folder_digest(folder / "base"),
    )
    create_expert_set(folder, ExpertSetFile(name=folder.name, version="1.0", base=base, panel=panel, defaults=defaults))
    for seed, (name, handles) in enumerate(experts.items()):
        generator = torch.Generator().manual_seed(seed)
        weights = {
            f"{module}.lora_{side}.weight": torch.randn(shape, generator=generator) * 0.1
            for module, (outer, inner) in shapes.linear.items()
            if module.endswith(ends)
            for side, shape in (("A", (8, inner)), ("B", (outer, 8)))
        }
        with TemporaryDirectory() as made:
            adapter = Path(made) / f"{name}.safetensors"
            save_adapter(adapter, weights, rank=8, alpha=8.0)
            manifest = make_manifest(
                adapter,
                shapes,
                name=name,
                competence=name,
                description=f"Weights drawn at random, in the place of the {name} expert.",
                handles=handles,
                base_name="untrained tiny base",
                licence="Apache-2.0",
                provenance="Drawn at random for a test.",
            )
            add_expert(folder, manifest, adapter)
    return folder
