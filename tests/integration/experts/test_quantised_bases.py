"""Quantised bases: experts in spans and in slots on top of fp8, int8 and 4-bit weights; merging is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import small_bases
from careedit.cli.main import main
from careedit.editing import quantisation
from careedit.editing.quantisation import PACKAGES, quantise
from careedit.editor import load_editor
from careedit.errors import ExpertError, ReplayError
from careedit.experts import Defaults, MemoryLibrary, MergedApplier, NoExperts, PanelSpec, SharedApplier, load_adapter
from careedit.experts.slots import SlotApplier
from careedit.families import Quantisation, in_blocks
from careedit.records import EditRequest
from lora_files import inputs_of, own, several_ranks, shapes_of_pipe, write
from random_sets import make_random_set

pytestmark = pytest.mark.usefixtures("small_bases_only")

KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            find_spec(PACKAGES.get(kind, "torch")) is None, reason="needs pip install 'careedit[quantisation]'"
        ),
    )
    for kind in get_args(Quantisation)
]
ERRORS = {"fp8": 0.05, "int8": 0.01, "nf4": 0.15}
"""Error of a product with quantised weights, as a share of the product's size."""


def tolerance(kind: Quantisation) -> float:
    """Of a velocity: bitsandbytes multiplies 4-bit weights in bfloat16 on a CPU that has units for it."""
    if kind == "nf4":
        from bitsandbytes.functional import has_avx512bf16

        return 3e-2 if has_avx512bf16() else 1e-3
    return 1e-3


def quantised(pipe: Any, kind: Quantisation) -> nn.Module:
    transformer = own(pipe).transformer
    quantise(transformer, kind, torch.device("cpu"))
    return transformer


def weight_of(layer: Any) -> Tensor:
    """The weight that a quantised layer multiplies with."""
    product: Tensor = layer(torch.eye(layer.in_features))
    return (product if layer.bias is None else product - layer.bias).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["klein", "qwen 2511"])
def test_shared_experts_on_quantised_weights_equal_merged_ones_on_the_weights_that_they_represent(
    kind: Quantisation, name: str, bases: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe = bases(name)
    shapes, transformer, represented = shapes_of_pipe(pipe), quantised(pipe, kind), own(pipe).transformer
    changed = 0
    for path in shapes.linear:
        layer, plain = transformer.get_submodule(path), represented.get_submodule(path)
        if in_blocks(path):
            weight = weight_of(layer)
            assert 0 < (weight - plain.weight).norm() / plain.weight.norm() < ERRORS[kind]
            plain.weight.copy_(weight)
            changed += plain.weight.numel()
        else:
            assert torch.equal(layer.weight, plain.weight)
    assert changed > 0.7 * shapes.count
    files = {one: write(tmp_path / f"{one}.safetensors", several_ranks(shapes)) for one in ("a", "b")}
    library = MemoryLibrary({one: load_adapter(path, shapes) for one, path in files.items()}, shapes)
    rows, inputs = ["a", "base", "b"], inputs_of(pipe).take([0, 1, 0])
    base = NoExperts(represented).velocity(["base"] * 3, inputs)
    expected = MergedApplier(represented, library).velocity(rows, inputs)
    assert (expected - base)[0].abs().max() > 2 * tolerance(kind)
    for applier in (SharedApplier(copy.deepcopy(transformer), library), SlotApplier(transformer, library)):
        torch.testing.assert_close(applier.velocity(rows, inputs), expected, rtol=0.0, atol=tolerance(kind))
    with pytest.raises(ExpertError, match=f"cannot be merged into {kind} weights"):
        MergedApplier(transformer, library)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = make_random_set(
        tmp_path_factory.mktemp("sets") / "klein",
        small_bases.klein(),
        {"erase": ("remove",)},
        length=512,
        panel=PanelSpec(size=64, fit="bucket", multiple=32),
        defaults=Defaults(steps=2),
    )
    return str(made)


def test_an_edit_of_quantised_weights_says_so_and_only_an_editor_with_the_same_replays_it(folder: str) -> None:
    picture = Image.new("RGB", (64, 64), "teal")
    request = EditRequest(image=picture, instruction="remove it", seed=1)
    editor = load_editor(folder, device="cpu", application="shared", quantisation="fp8")
    plain = load_editor(folder, device="cpu", application="shared")
    result = editor.edit(request)
    assert result.trace.quantisation == "fp8" and "diffusers" in result.trace.runtime
    assert result.image.tobytes() != plain.edit(request).image.tobytes()
    assert "quantisation" not in plain.edit(request).trace.model_dump(mode="json")
    assert result.trace.expert_set_sha256 == plain.expert_set.sha256
    assert editor.replay(result.trace, image=picture).image.tobytes() == result.image.tobytes()
    with pytest.raises(ReplayError, match="made with quantisation 'fp8', this editor has None"):
        plain.replay(result.trace, image=picture)


def test_the_command_edits_and_replays_with_quantised_weights(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "teal").save("in.png")
    edit = ["edit", "in.png", "remove it", "--expert-set", folder, "--seed", "1", "--quantisation", "fp8"]
    assert main([*edit, "-o", "out.png", "--trace", "trace.json"]) == 2
    assert "use the application shared" in capsys.readouterr().err
    assert main([*edit, "-o", "out.png", "--trace", "trace.json", "--application", "shared"]) == 0
    assert main(["edit", "in.png", "--expert-set", folder, "--replay", "trace.json", "-o", "again.png"]) == 0
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()


def test_a_missing_package_and_a_device_that_cannot_do_it_are_one_sentence(
    folder: str, bases: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careedit.editing.quantisation.find_spec", lambda _: None)
    monkeypatch.setattr("careedit.editing.base_model.load_base", lambda *_, **__: pytest.fail("the base was read"))
    with pytest.raises(ExpertError, match=r"needs the package torchao.*pip install 'careedit\[quantisation\]'"):
        load_editor(folder, device="cpu", application="shared", quantisation="int8")

    def cannot(*_: Any) -> nn.Module:
        raise NotImplementedError("no kernel")

    monkeypatch.setitem(quantisation._KINDS, "fp8", cannot)
    with pytest.raises(ExpertError, match=r"The quantisation fp8 does not work on cpu here \(no kernel\)"):
        quantise(own(bases("klein")).transformer, "fp8", torch.device("cpu"))
