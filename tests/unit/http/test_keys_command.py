import json

import pytest
import yaml
from typer.testing import CliRunner

from careedit_deployments.cli.keys import app
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.auth import PREFIX, hash_key


@pytest.fixture
def run(tmp_path):
    """Runs `careedit keys` on a database of its own."""
    config = tmp_path / "serve.yaml"
    database = f"sqlite+aiosqlite:///{tmp_path}/state.db"
    config.write_text(yaml.safe_dump({"arms": {"tiny": {"expert_set": "tiny"}}, "state": {"database": database}}))

    def call(*args):
        return CliRunner().invoke(app, [*args, "--config", str(config)])

    return call


def test_a_key_is_shown_once_listed_without_itself_and_revoked(run):
    told = run("add", "anna", "--per-minute", "30")
    key = told.stdout.strip()
    assert told.exit_code == 0
    assert key.startswith(PREFIX)
    listed = run("list", "--json")
    (record,) = json.loads(listed.stdout)["keys"]
    assert (record["name"], record["requests_per_minute"], record["revoked"]) == ("anna", 30, None)
    assert key not in listed.stdout
    assert hash_key(key) not in listed.stdout
    assert run("revoke", record["id"]).exit_code == 0
    assert "revoked" in run("list").stdout
    assert isinstance(run("revoke", record["id"]).exception, NotFoundError)
