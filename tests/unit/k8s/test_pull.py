"""`careedit k8s pull`: the models that a configuration and its expert sets name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from careedit.errors import ExpertError
from careedit.experts import ExpertSetFile
from careedit_deployments.kubernetes.command import app
from careedit_deployments.kubernetes.pull import Model, pull

INDEX = {
    "_class_name": "Flux2KleinPipeline",
    "is_distilled": True,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
}


def of_hub(folder: Path, revision: str) -> str:
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
    config = tmp_path / "serve.yaml"
    arms = {
        "one": {"expert_set": of_hub(tmp_path / "one", "abc")},
        "two": {"expert_set": of_hub(tmp_path / "two", "abc")},
        "local": {"expert_set": "tiny"},
    }
    config.write_text(yaml.safe_dump({"arms": arms, "scorer": {"backend": "transformers", "model": "lab/judge"}}))

    named = CliRunner().invoke(app, ["pull", "--config", str(config), "--dry-run"])
    assert (named.exit_code, named.stdout, asked) == (0, "lab/judge\nlab/klein at abc\n", [])
    done = CliRunner().invoke(app, ["pull", "--config", str(config)])

    assert done.exit_code == 0 and "lab/klein at abc is in /models/hf/lab/klein" in done.stdout
    patterns = ["model_index.json", "scheduler/*", "transformer/*", "vae/*"]
    assert asked == [
        {"id": "lab/judge", "revision": None, "allow_patterns": None},
        {"id": "lab/klein", "revision": "abc", "allow_patterns": patterns},
    ]


def test_a_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> str:
        raise OSError("No space left\non device.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(ExpertError, match="lab/klein could not be downloaded: No space left on device"):
        pull(Model("lab/klein", None, None))
