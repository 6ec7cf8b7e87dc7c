"""One untrained tiny transformer for the layer, and adapters drawn for it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from careedit.experts import (
    DEFAULT_TARGETS,
    BaseReference,
    BaseSpec,
    Defaults,
    ExpertManifest,
    ExpertSetFile,
    LoraModule,
    LoraState,
    PanelSpec,
    create_expert_set,
    make_manifest,
    save_adapter,
    shapes_of,
)
from careedit_tiny.models.family import build_transformer

TOKENS, TEXT = 32, 8


@pytest.fixture(scope="session")
def pristine():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cast(nn.Module, build_transformer()).eval()


@pytest.fixture
def transformer(pristine):
    return copy.deepcopy(pristine)


@pytest.fixture(scope="session")
def shapes(pristine):
    return shapes_of(pristine)


@pytest.fixture(scope="session")
def lora(shapes):
    """Draws a LoRA: `lora(seed, rank=8, alpha=8.0, targets=DEFAULT_TARGETS)`."""

    def draw(seed: int, rank: int = 8, alpha: float = 8.0, targets: str = DEFAULT_TARGETS) -> LoraState:
        generator = torch.Generator().manual_seed(seed)
        return LoraState(
            {
                name: LoraModule(
                    torch.randn(rank, inner, generator=generator) / inner**0.5,
                    torch.randn(outer, rank, generator=generator) * 0.05,
                    alpha,
                )
                for name, (outer, inner) in shapes.linear.items()
                if re.fullmatch(targets, name)
            }
        )

    return draw


@pytest.fixture(scope="session")
def inputs():
    """Transformer inputs for a batch; row i is the same in every batch size."""

    def draw(rows: int) -> dict[str, Any]:
        generators = [torch.Generator().manual_seed(100 + row) for row in range(rows)]
        ids = torch.zeros(TOKENS, 3)
        ids[:, 1], ids[:, 2] = torch.arange(TOKENS) // 8, torch.arange(TOKENS) % 8

        def noise(*shape: int) -> Tensor:
            return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])

        return {
            "hidden_states": noise(TOKENS, 128),
            "encoder_hidden_states": noise(TEXT, 128),
            "pooled_projections": noise(64),
            "timestep": torch.linspace(0.9, 0.4, 8)[:rows],
            "img_ids": ids,
            "txt_ids": torch.zeros(TEXT, 3),
            "guidance": None,
        }

    return draw


@pytest.fixture(scope="session")
def keys():
    """A LoRA's tensors under the keys of peft's `get_peft_model_state_dict`."""

    def state_dict(state: LoraState) -> dict[str, Tensor]:
        pairs = {f"{name}.lora_A.weight": module.down for name, module in state.modules.items()}
        return pairs | {f"{name}.lora_B.weight": module.up for name, module in state.modules.items()}

    return state_dict


@pytest.fixture
def adapter(tmp_path, lora, keys):
    """Writes a drawn LoRA to a file and returns its path."""

    def write(name: str = "adapter", seed: int = 1, **options: Any) -> Path:
        state = lora(seed, **options)
        path = tmp_path / "files" / f"{name}.safetensors"
        save_adapter(path, keys(state), state.rank, state.alpha)
        return path

    return write


@pytest.fixture(scope="session")
def describe(shapes):
    """`describe(path, **changes)`: the manifest of an adapter file, with some of its texts changed."""

    def make(path: Path, **changes: Any) -> ExpertManifest:
        fields: dict[str, Any] = {
            "name": "erase",
            "competence": "erase",
            "description": "Removes.",
            "handles": ("remove",),
            "base_name": "tiny",
            "licence": "MIT",
            "provenance": "Drawn at random.",
        }
        return make_manifest(path, shapes, **(fields | changes))

    return make


@pytest.fixture
def manifest(shapes):
    """A valid manifest with some fields changed."""

    def make(**changes: Any) -> ExpertManifest:
        fields: dict[str, Any] = {
            "name": "erase",
            "competence": "erase",
            "description": "Removes an object and fills in what was behind it.",
            "handles": ("remove", "mask"),
            "file": "adapter.safetensors",
            "sha256": "0" * 64,
            "rank": 8,
            "alpha": 8.0,
            "format": "diffusers",
            "base": BaseReference(name="tiny base", fingerprint=shapes.fingerprint),
            "licence": "Apache-2.0",
            "provenance": "Drawn at random for a test.",
        }
        return ExpertManifest(**(fields | changes))

    return make


@pytest.fixture
def set_folder(tmp_path, pristine, shapes):
    """A local expert set without experts; its base has a configuration but no weights."""
    folder = tmp_path / "set"
    pristine.save_config(folder / "base" / "transformer")
    create_expert_set(
        folder,
        ExpertSetFile(
            name="drawn",
            version="1.0",
            base=BaseSpec(path="./base", max_sequence_length=24, fingerprint=shapes.fingerprint),
            panel=PanelSpec(size=64),
            defaults=Defaults(steps=8),
        ),
    )
    return folder
