"""`careedit serve` before anything is started: which configuration, where it listens, and sets that are unfit."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from careedit.cli.main import main
from careedit.errors import ExpertError, InputError
from careedit_deployments.cli.serve import at_address, check_sets, dangers, find_config, hide_from_other_users, start
from careedit_deployments.cluster.lifecycle import SERVING
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import ServingError


@pytest.fixture
def config(untrained_set):
    def make(**fields):
        return ServeConfig(arms={"main": {"expert_set": str(untrained_set)}}, **fields)

    return make


def test_a_configuration_is_a_file_or_one_that_comes_along(tmp_path):
    assert find_config("tiny").name == "tiny.yaml"
    assert {"tiny", "ab", "flux-fill"} <= {path.stem for path in find_config("ab").parent.glob("*.yaml")}
    file = tmp_path / "mine.yaml"
    file.write_text("version: 1")
    assert find_config(str(file)) == file
    with pytest.raises(InputError, match=r"configuration 'magic' does not exist; give a YAML file or one of .*tiny"):
        find_config("magic")


def test_options_replace_the_address_and_port_0_picks_a_free_one(config):
    assert at_address(config(), None, None).http == config().http
    moved = at_address(config(), "127.0.0.2", 0).http
    assert (moved.host, moved.port > 0) == ("127.0.0.2", True)


def test_local_state_is_named_absolutely_because_replicas_run_elsewhere(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = at_address(config(), None, None).state
    assert state.database == f"sqlite+aiosqlite:///{tmp_path}/careedit-state/careedit.db"
    assert state.blobs == f"{tmp_path}/careedit-state/blobs"
    remote = {"database": "postgresql+asyncpg://careedit@db/careedit", "blobs": "s3://bucket/blobs"}
    kept = at_address(config(state=remote), None, None).state
    assert (kept.database, kept.blobs) == (remote["database"], remote["blobs"])


def test_an_unfit_set_is_refused_before_anything_is_changed(untrained_set, tmp_path):
    folder = shutil.copytree(untrained_set, tmp_path / "set")
    check_sets(ServeConfig(arms={"main": {"expert_set": str(folder)}}))
    (adapter,) = (folder / "experts/erase").glob("*.safetensors")
    adapter.write_bytes(adapter.read_bytes()[:-64])
    with pytest.raises(ExpertError, match=r"set of 'main' cannot be used; nothing was deployed: .*erase"):
        check_sets(ServeConfig(arms={"main": {"expert_set": str(folder)}}))


def test_a_cluster_of_its_own_cannot_be_left_running(capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["serve", "tiny", "--no-blocking"]) == 2
    assert "add --address" in capsys.readouterr().err


def test_a_set_that_is_not_there_is_said_in_a_sentence(tmp_path, capsys):
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({"arms": {"main": {"expert_set": str(tmp_path / "none")}}}))
    assert main(["serve", str(file)]) == 2
    assert "is not an expert set" in capsys.readouterr().err


def test_a_machine_too_busy_for_ray_is_said_in_a_sentence(config, monkeypatch):
    def fails(**_):
        raise Exception("The current node timed out during startup. This could happen because ...")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr("ray.init", fails)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("careedit_deployments.cli.serve.hide_from_other_users", lambda: None)
    for name, value in SERVING.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServingError, match="Ray did not start within half a minute; end other work"):
        start(config(), None)


def test_the_token_of_an_earlier_cluster_is_hidden_from_other_users(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0o022)
    try:
        hide_from_other_users()  # without a token
        token = tmp_path / ".ray/auth_token"
        token.parent.mkdir()
        token.write_text("secret")
        assert token.stat().st_mode & 0o777 == 0o600
        token.chmod(0o644)
        hide_from_other_users()
        assert token.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("http", "required", "found"),
    [
        ({}, None, []),
        ({"host": "0.0.0.0"}, None, ["in clear"]),
        ({"host": "0.0.0.0"}, False, ["everyone", "in clear"]),
        ({"host": "10.1.2.3", "public_url": "https://edits.example.org"}, True, []),
        ({"host": "10.1.2.3", "public_url": "http://edits.example.org"}, True, ["in clear"]),
    ],
)
def test_dangers_of_an_address_are_said(http, required, found):
    config = ServeConfig(arms={"tiny": {"expert_set": "tiny"}}, http=http, auth={"required": required})
    sentences = dangers(config)
    assert len(sentences) == len(found)
    assert all(word in sentence for word, sentence in zip(found, sentences, strict=True))
