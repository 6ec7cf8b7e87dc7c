"""`careedit init`: a set and a serve configuration for a base of every family; wrong bases leave nothing behind."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import GatedRepoError
from PIL import Image

import small_bases
from careedit import EditRequest
from careedit.cli.main import main
from careedit.editor import Editor
from careedit.experts import load_expert_set, shapes_of_base
from careedit_deployments.app import plan_fleet
from careedit_deployments.cli.init import LIGHTNING
from careedit_deployments.config import ServeConfig
from careedit_tiny.models.family import build_pipeline
from lora_files import several_ranks, shapes_of_pipe, write

SIZE = 64
BUILDERS: dict[str, Any] = {
    "flux-fill": partial(build_pipeline, ["remove the red circle"], seed=5),
    "flux-kontext": small_bases.kontext,
    "flux2-klein distilled": small_bases.klein,
    "flux2-klein-kv": partial(small_bases.klein, kv=True),
    "flux2-klein base": partial(small_bases.klein, distilled=False),
    "qwen-image-edit-plus 2511": small_bases.qwen,
    "longcat-image-edit": small_bases.longcat,
}
DEFAULTS = {
    "flux-fill": (28, None),
    "flux-kontext": (28, 3.5),
    "flux2-klein distilled": (4, None),
    "flux2-klein-kv": (4, None),
    "flux2-klein base": (50, 4.0),
    "qwen-image-edit-plus 2511": (40, 4.0),
    "longcat-image-edit": (50, 4.5),
}
"""Steps and guidance scale of an edit that states neither. The small FLUX.1-Fill takes no guidance."""


@pytest.fixture(autouse=True)
def _in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    small_bases.use_small_areas(monkeypatch)


@pytest.mark.parametrize("label", BUILDERS)
def test_the_set_of_a_family_edits_a_picture_and_its_configuration_serves_it(
    label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    BUILDERS[label]().save_pretrained("base")
    capsys.readouterr()  # the progress of saving

    code = main(["init", "my-set", "--base", "base", "--size", str(SIZE)])
    said = capsys.readouterr()
    loaded = load_expert_set("my-set")
    config = ServeConfig.from_yaml("my-set/serve.yaml")
    request = EditRequest(image=Image.new("RGB", (SIZE, SIZE), "teal"), instruction="make it red", steps=2, seed=1)
    result = Editor(loaded).edit(request)

    assert (code, said.err) == (0, "")
    assert f"({label})" in said.out and loaded.facts.licence in said.out
    assert "careedit experts add" in said.out and "careedit serve my-set/serve.yaml" in said.out
    assert loaded.shapes.label == label and loaded.names == ()
    assert (loaded.spec.defaults.steps, loaded.spec.defaults.guidance) == DEFAULTS[label]
    assert loaded.spec.panel.model_dump() == {"size": SIZE, "fit": "bucket", "multiple": loaded.facts.multiple}
    assert result.images[0].size == (SIZE, SIZE)
    assert plan_fleet(config, {"main": load_expert_set(config.arms["main"].expert_set)}).arms["main"].shared
    assert ("low" in config.quality) == (loaded.spec.defaults.steps > 4)


def test_a_lora_that_distils_the_base_is_copied_into_the_set_with_its_schedule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe = small_bases.qwen()
    pipe.save_pretrained("base")
    lora = write(Path("lightning-8steps.safetensors"), several_ranks(shapes_of_pipe(pipe)))
    capsys.readouterr()

    assert main(["init", "my-set", "--base", "base", "--base-lora", str(lora), "--steps", "8", "--size", "64"]) == 0
    said = capsys.readouterr().out
    loaded = load_expert_set("my-set")

    assert "lightning-8steps.safetensors is part of the base" in said and "8 steps without guidance" in said
    assert (loaded.spec.defaults.steps, loaded.spec.defaults.guidance) == (8, 1.0)
    assert loaded.spec.base.scheduler == LIGHTNING and loaded.load_base_lora() is not None
    assert Path("my-set/lightning-8steps.safetensors").read_bytes() == lora.read_bytes()

    small_bases.klein().save_pretrained("klein")
    capsys.readouterr()
    assert main(["init", "other", "--base", "klein", "--base-lora", str(lora)]) == 2
    assert "was made for qwen-image-edit-plus" in capsys.readouterr().err and not Path("other").exists()


def test_json_names_folder_family_and_licence(capsys: pytest.CaptureFixture[str]) -> None:
    small_bases.klein().save_pretrained("base")
    capsys.readouterr()

    assert main(["init", "Mine 2", "--base", "base", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["family"] == "flux2-klein" and found["config"] == "Mine 2/serve.yaml"
    assert found["set"]["name"] == "mine-2" and found["set"]["panel"]["size"] == 1024
    assert found["licence"].startswith("Apache-2.0")


def other_pipeline(folder: Path) -> None:
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "transformer").mkdir()
    (folder / "transformer/config.json").write_text('{"_class_name": "UNet2DConditionModel"}')


@pytest.mark.parametrize(
    ("base", "options", "sentence"),
    [
        ("empty", (), "has no readable model_index.json"),
        ("missing", (), "does not exist"),
        ("other", (), "StableDiffusionPipeline; the pipelines that work are FluxFillPipeline"),
        ("klein", ("--size", "1000"), "multiples of 16"),
        ("klein", ("--revision", "main"), "--revision belongs to a hub id"),
        ("no transformer", (), "has no readable transformer/config.json"),
    ],
)
def test_a_wrong_base_is_refused_and_nothing_is_written(
    base: str, options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    other_pipeline(Path("other"))
    small_bases.klein().save_pretrained("klein")
    Path("no transformer").mkdir()
    Path("no transformer/model_index.json").write_text('{"_class_name": "Flux2KleinPipeline"}')
    before = set(Path().iterdir())
    capsys.readouterr()

    code = main(["init", "my-set", "--base", base, *options])

    error = capsys.readouterr().err
    assert code == 2 and sentence in error and error.count("\n") == 1
    assert set(Path().iterdir()) == before


def test_an_existing_folder_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my-set").mkdir()

    assert main(["init", "my-set", "--base", "base"]) == 2
    assert "exists already" in capsys.readouterr().err and list(Path("my-set").iterdir()) == []


def test_a_base_whose_licence_must_be_accepted_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gated(*_: Any, **__: Any) -> str:
        response = httpx2.Response(403, request=httpx2.Request("GET", "https://hub.example.org"))
        raise GatedRepoError("403: access is restricted", response=response)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", gated)

    assert main(["init", "my-set", "--base", "black-forest-labs/FLUX.1-Fill-dev"]) == 2
    error = capsys.readouterr().err
    assert "accept it on the page" in error and "hf auth login" in error and not Path("my-set").exists()


def test_a_hub_id_is_pinned_to_the_commit_of_its_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--lab--klein/snapshots" / ("a" * 40)
    small_bases.klein().save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(snapshot / "model_index.json"))

    def of_snapshot(path: str, *, revision: str | None) -> Any:
        assert (path, revision) == ("lab/klein", "a" * 40)
        return shapes_of_base(str(snapshot))

    monkeypatch.setattr("careedit_deployments.cli.init.shapes_of_base", of_snapshot)
    monkeypatch.setattr("careedit.experts.shapes_of_base", of_snapshot)

    assert main(["init", "my-set", "--base", "lab/klein"]) == 0
    base = load_expert_set("my-set").spec.base
    assert (base.path, base.revision, base.is_hub_id) == ("lab/klein", "a" * 40, True)
