"""The base of a set is known by its configuration alone, and experts of another family or variant are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import small_bases
from careedit.cli.main import main
from careedit.errors import ExpertError
from careedit.experts import (
    BaseShapes,
    BaseSpec,
    Defaults,
    ExpertSetFile,
    PanelSpec,
    adapter_share,
    create_expert_set,
    load_expert_set,
    shapes_of,
    shapes_of_base,
)
from careedit.families import FACTS
from careedit_tiny.models.family import build_pipeline

LABELS: dict[str, Callable[[], Any]] = {
    "flux-fill": partial(build_pipeline, ["remove the red circle"]),
    "flux-kontext": small_bases.kontext,
    "flux2-klein base": partial(small_bases.klein, distilled=False),
    "flux2-klein distilled": small_bases.klein,
    "flux2-klein-kv": partial(small_bases.klein, kv=True),
    "qwen-image-edit-plus 2509": partial(small_bases.qwen, zero_cond_t=False),
    "qwen-image-edit-plus 2511": small_bases.qwen,
    "longcat-image-edit": small_bases.longcat,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of bases with their configurations, without weights."""
    found = {}
    for label, build in LABELS.items():
        folder = found[label] = tmp_path_factory.mktemp("base")
        pipe = build()
        pipe.save_config(folder)
        pipe.transformer.save_config(folder / "transformer")
        family = FACTS[type(pipe).__name__]
        assert shapes_of(pipe.transformer, family, pipe.config) == shapes_of_base(str(folder))
    return found


def new_set(folder: Path, base: Path) -> BaseShapes:
    shapes = shapes_of_base(str(base))
    create_expert_set(
        folder,
        ExpertSetFile(
            name=folder.name,
            version="1",
            base=BaseSpec(path=str(base), max_sequence_length=24, fingerprint=shapes.fingerprint),
            panel=PanelSpec(size=64),
            defaults=Defaults(steps=4),
        ),
    )
    return shapes


def lora(path: Path, shapes: BaseShapes) -> Path:
    tensors = {}
    for module, (outer, inner) in shapes.linear.items():
        if re.fullmatch(shapes.family.targets, module):
            tensors[f"transformer.{module}.lora_A.weight"] = torch.ones(2, inner)
            tensors[f"transformer.{module}.lora_B.weight"] = torch.ones(outer, 2)
    save_file(tensors, path)
    return path


def test_every_family_and_variant_has_its_own_fingerprint(folders: dict[str, Path]) -> None:
    shapes = {label: shapes_of_base(str(folder)) for label, folder in folders.items()}
    assert [one.label for one in shapes.values()] == list(LABELS)
    assert len({one.fingerprint for one in shapes.values()}) == len(LABELS)
    klein, distilled = shapes["flux2-klein base"], shapes["flux2-klein distilled"]
    assert klein.parameters == distilled.parameters


def test_the_default_targets_are_those_of_the_family(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        shapes = shapes_of_base(str(folder))
        share = adapter_share(shapes, rank=2)
        assert share.modules == sum(bool(re.fullmatch(shapes.family.targets, name)) for name in shapes.linear) > 10


def test_a_flux_transformer_without_an_index_is_fill_s(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "transformer").symlink_to(folders["flux-fill"] / "transformer")
    assert shapes_of_base(str(tmp_path)) == shapes_of_base(str(folders["flux-fill"]))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ExpertError, match=r"model_index\.json that cannot be read"):
        shapes_of_base(str(tmp_path))


@pytest.mark.parametrize(
    ("index", "config", "message"),
    [
        (None, "Flux2Transformer2DModel", "is a Flux2Transformer2DModel, but a FluxFillPipeline has"),
        ("StableDiffusionPipeline", "Flux2Transformer2DModel", "is a StableDiffusionPipeline; the pipelines that work"),
        ("Flux2KleinPipeline", "QwenImageTransformer2DModel", "but a Flux2KleinPipeline has a Flux2Transformer2DModel"),
        ("Flux2KleinPipeline", None, "does not describe a Flux2Transformer2DModel"),
    ],
)
def test_a_base_that_is_no_known_pipeline_is_refused(
    tmp_path: Path, index: str | None, config: str | None, message: str
) -> None:
    (tmp_path / "transformer").mkdir()
    stated = {"_class_name": config} if config else {"unknown_setting": 1}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(stated))
    if index is not None:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": index}))
    with pytest.raises(ExpertError, match=message):
        shapes_of_base(str(tmp_path))


@pytest.mark.parametrize(
    ("made_for", "used_on"),
    [
        ("flux2-klein base", "flux2-klein distilled"),
        ("qwen-image-edit-plus 2509", "qwen-image-edit-plus 2511"),
        ("flux-kontext", "longcat-image-edit"),
    ],
)
def test_an_expert_of_another_variant_is_added_with_a_warning_and_of_another_family_refused(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], made_for: str, used_on: str
) -> None:
    shapes = new_set(tmp_path / "first", folders[made_for])
    new_set(tmp_path / "second", folders[used_on])
    adapter = lora(tmp_path / "a.safetensors", shapes)
    add = ["experts", "add", "--name", "a", "--competence", "erase", "--expert-set"]
    assert main([*add, str(tmp_path / "first"), str(adapter)]) == 0
    manifest = load_expert_set(tmp_path / "first").manifest("a")
    assert manifest.base.name == f"{made_for}, the base of first 1"
    capsys.readouterr()
    variant = made_for.split()[0] == used_on.split()[0]
    assert main([*add, str(tmp_path / "second"), str(tmp_path / "first/experts/a")]) == (0 if variant else 2)
    message = capsys.readouterr().err
    assert load_expert_set(tmp_path / "second").names == (("a",) if variant else ())
    assert ("warning" in message) == variant
    assert made_for in message and f"this base is {used_on}" in message
