"""`careedit k8s pull`: the models that a configuration and its expert sets name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from careedit.encoders.vit import load_vit
from careedit.errors import CareEditError, ExpertError, InputError
from careedit.experts import ExpertSetFile
from careedit.hub import is_commit, split_hub_id
from careedit.scoring.vlm import load_asker
from careedit_deployments.cli.weights import unpinned_models
from careedit_deployments.config import ServeConfig
from careedit_deployments.kubernetes.command import app
from careedit_deployments.kubernetes.pull import Model, pull

INDEX = {
    "_class_name": "Flux2KleinPipeline",
    "is_distilled": True,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
}


COMMIT, OTHER = "a" * 40, "b" * 40


def verified(monkeypatch: pytest.MonkeyPatch, *wrong: str) -> list[tuple[str, str]]:
    """The hub says that these files are wrong. Returns what it was asked about."""
    asked: list[tuple[str, str]] = []

    def verify(_: Any, hub_id: str, *, revision: str) -> SimpleNamespace:
        asked.append((hub_id, revision))
        return SimpleNamespace(mismatches=[{"path": path} for path in wrong])

    monkeypatch.setattr("huggingface_hub.HfApi.verify_repo_checksums", verify)
    return asked


def of_hub(folder: Path, revision: str | None) -> str:
    """A set whose base is on the hub."""
    folder.mkdir()
    spec = {
        "name": "klein",
        "version": "1",
        "base": {"path": "lab/klein", "revision": revision, "fingerprint": "0" * 64},
        "panel": {"size": 1024},
        "defaults": {"steps": 4},
    }
    ExpertSetFile.from_yaml(yaml.safe_dump(spec), "expert_set.yaml").write(folder / "expert_set.yaml")
    return str(folder)


def test_bases_are_pulled_at_their_revision_without_single_files_and_the_judge_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index.json"
    index.write_text(json.dumps(INDEX))
    asked: list[dict[str, Any]] = []

    def download(hub_id: str, **arguments: Any) -> str:
        asked.append({"id": hub_id, **arguments})
        return f"/models/hf/{hub_id}"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(index))
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    checked = verified(monkeypatch)
    config = tmp_path / "serve.yaml"
    arms = {
        "one": {"expert_set": of_hub(tmp_path / "one", COMMIT)},
        "two": {"expert_set": of_hub(tmp_path / "two", COMMIT)},
        "local": {"expert_set": "tiny"},
    }
    config.write_text(
        yaml.safe_dump({"arms": arms, "scorer": {"backend": "transformers", "model": f"lab/judge@{OTHER}"}})
    )

    named = CliRunner().invoke(app, ["pull", "--config", str(config), "--dry-run"])
    assert (named.exit_code, named.stdout, asked) == (0, f"lab/judge at {OTHER}\nlab/klein at {COMMIT}\n", [])
    done = CliRunner().invoke(app, ["pull", "--config", str(config)])

    assert done.exit_code == 0 and f"lab/klein at {COMMIT} is in /models/hf/lab/klein" in done.stdout
    patterns = ["model_index.json", "scheduler/*", "transformer/*", "vae/*"]
    assert asked == [
        {"id": "lab/judge", "revision": OTHER, "allow_patterns": None},
        {"id": "lab/klein", "revision": COMMIT, "allow_patterns": patterns},
    ]
    assert checked == [("lab/judge", OTHER), ("lab/klein", COMMIT)]


def test_a_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> str:
        raise OSError("No space left\non device.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(ExpertError, match="lab/klein could not be downloaded: No space left on device"):
        pull(Model("lab/klein", COMMIT, None))


def test_a_file_that_is_not_the_one_of_the_commit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: "/models/hf/lab/klein")
    verified(monkeypatch, "vae/model.safetensors")
    wrong = f"vae/model.safetensors of lab/klein is not the file of the commit {COMMIT}; delete /models/hf/lab/klein"
    with pytest.raises(ExpertError, match=wrong):
        pull(Model("lab/klein", COMMIT, None))


@pytest.mark.parametrize("judge", ["lab/judge", "lab/judge@main"])
@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_models_that_are_not_pinned_are_named_by_serve_and_doctor_and_never_pulled(
    judge: str, revision: str | None, tmp_path: Path
) -> None:
    arms = {"one": {"expert_set": of_hub(tmp_path / "one", revision)}}
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump({"arms": arms, "scorer": {"backend": "transformers", "model": judge}}))
    found = dict(unpinned_models(ServeConfig.from_yaml(config)))
    assert found.keys() == ({"scorer"} if revision == COMMIT else {"one.base", "scorer"})
    assert "The judge lab/judge is not pinned to a commit" in found["scorer"]
    refused = CliRunner().invoke(app, ["pull", "--config", str(config), "--dry-run"])
    named = "The judge lab/judge" if revision == COMMIT else "The base lab/klein"
    assert isinstance(refused.exception, InputError) and str(refused.exception).startswith(f"{named} is not pinned")


def test_every_shipped_configuration_names_models_by_their_commit() -> None:
    judges = [ServeConfig.from_yaml(path).scorer.model for path in sorted(Path("deployments/config").glob("*.yaml"))]
    assert sum(str(judge).startswith("Qwen/") for judge in judges) == 3
    assert all(judge in (None, "tiny") or is_commit(split_hub_id(judge)[1]) for judge in judges)


def test_a_model_of_the_hub_is_loaded_at_its_commit_and_a_warning_names_one_that_has_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, str | None]] = []

    def fails(name: str, *, revision: str | None = None, trust_remote_code: bool = True, **_: Any) -> None:
        assert not trust_remote_code, "transformers would ask on a terminal whether to run a model's code"
        asked.append((name, revision))
        raise OSError("There is no network.")

    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", fails)
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", fails)
    for load, what in ((load_asker, "judge"), (load_vit, "vision model")):
        for name in (f"lab/one@{COMMIT}", "lab/one@main", "lab/one"):
            caplog.clear()
            with pytest.raises(CareEditError):
                load(name)
            assert (f"The {what} lab/one is not pinned to a commit" in caplog.text) == (COMMIT not in name)
    assert {name for name, _ in asked} == {"lab/one"}
    assert [revision for _, revision in asked][::3] == [COMMIT, COMMIT]
