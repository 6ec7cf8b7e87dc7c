import json
import time
from functools import partial

import pytest

from careedit.errors import InputError
from careedit_deployments.cli import keys, tenants
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.auth import PREFIX, hash_key


@pytest.fixture
def run(call):
    """Runs `careedit keys`."""
    return partial(call, keys)


def listed(run):
    return json.loads(run("list", "--json").stdout)["keys"]


def test_a_key_is_shown_once_listed_without_itself_and_revoked(run):
    told = run("add", "anna", "--per-minute", "30")
    key = told.stdout.strip()
    assert told.exit_code == 0
    assert key.startswith(PREFIX)
    (record,) = listed(run)
    assert (record["name"], record["requests_per_minute"], record["revoked"]) == ("anna", 30, None)
    assert (record["tenant_name"], record["scopes"], record["expires"]) == ("anna", ["edit", "read"], None)
    assert not {key, hash_key(key)} & set(run("list", "--json").stdout.split('"'))
    assert run("revoke", record["id"]).exit_code == 0
    assert "revoked" in run("list").stdout
    assert isinstance(run("revoke", record["id"]).exception, NotFoundError)


def test_a_tenant_has_limits_and_several_keys_and_a_rotation_keeps_the_tenant(call, run):
    tenant = call(tenants, "add", "a team", "--at-once", "4").stdout.strip()
    assert run("add", "ci", "--tenant", tenant, "--scopes", "admin, read", "--expires", "30").exit_code == 0
    assert run("add", "app", "--tenant", tenant).exit_code == 0
    ci, app = listed(run)
    assert {ci["tenant"], app["tenant"]} == {tenant}
    assert (ci["scopes"], ci["concurrent_requests"]) == (["read", "admin"], 4)
    assert 29 < (ci["expires"] - time.time()) / 86400 < 30
    told = json.loads(run("rotate", app["id"], "--overlap", "1", "--json").stdout)
    assert told["tenant"] == tenant
    old, new = listed(run)[1:]
    assert (old["id"], new["id"], new["name"], new["expires"]) == (app["id"], told["id"], "app", None)
    assert 0 < old["expires"] - time.time() < 3600
    assert call(tenants, "limit", tenant, "--per-minute", "7").exit_code == 0
    (limits,) = json.loads(call(tenants, "list", "--json").stdout)["tenants"]
    assert (limits["requests_per_minute"], limits["concurrent_requests"]) == (7, None)
    assert tenant in call(tenants, "list").stdout


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (("--tenant", "tenant_x"), NotFoundError, "careedit tenants list"),
        (("--scopes", "write"), InputError, "edit, read, admin"),
        (("--tenant", "tenant_x", "--at-once", "2"), InputError, "careedit tenants limit"),
    ],
)
def test_a_key_that_cannot_be_made_leaves_nothing(run, options, error, said):
    refused = run("add", "anna", *options).exception
    assert isinstance(refused, error)
    assert said in str(refused)
    assert listed(run) == []


def test_a_tenant_may_ask_for_clear_names_of_its_users(call):
    tenant = json.loads(call(tenants, "add", "a team", "--clear-names", "--json").stdout)["tenant"]
    assert tenant["clear_names"] is True
    assert "as pseudonyms" in call(tenants, "names", tenant["id"]).stdout
    assert json.loads(call(tenants, "list", "--json").stdout)["tenants"][0]["clear_names"] is False
    assert "does not exist" in str(call(tenants, "names", "tenant_x").exception)


def test_a_policy_is_set_from_a_file_shown_and_set_again_from_what_was_shown(call, tmp_path):
    tenant = call(tenants, "add", "a team").stdout.strip()
    file = tmp_path / "policy.yaml"
    file.write_text("models: [tiny]\nevaluations_per_day: 500\npurposes: [judging]\nwebhook_hosts: []\n")
    told = call(tenants, "policy", tenant, "--set", str(file))
    assert (told.exit_code, "warning" in told.stderr) == (0, False)
    shown = call(tenants, "policy", tenant).stdout
    assert {"models:", "- judging", "evaluations_per_day: 500", "experts: null"} <= {
        *map(str.strip, shown.splitlines())
    }
    file.write_text(shown.replace("judging", "shadow"))
    assert call(tenants, "policy", tenant, "--set", str(file)).exit_code == 0
    policy = json.loads(call(tenants, "policy", tenant, "--json").stdout)["policy"]
    assert (policy["purposes"], policy["webhook_hosts"], policy["pixels"]) == (["shadow"], [], None)
    assert json.loads(call(tenants, "list", "--json").stdout)["tenants"][0]["policy"] == policy
    other = call(tenants, "add", "another team").stdout.strip()
    assert json.loads(call(tenants, "policy", other, "--json").stdout)["policy"]["purposes"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("purposes: [training]", "'training'"),
        ("purpose: [judging]", "no field 'purpose'"),
        ("pixels: 0", "'pixels'"),
        ("region: Somewhere Else", "'region'"),
        ("webhook_hosts: [https://example.org/hook]", "'webhook_hosts"),
        ("models: tiny", "'models'"),
        ("- models", "must hold fields and values"),
        (None, "cannot be read"),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused(tmp_path, text, said):
    file = tmp_path / "policy.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=said):
        tenants.read_policy(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [gone, tiny]", "no model 'gone'; it has tiny"),
        ("experts: [erase, eraze]", "no expert 'eraze'; it has base, compose, "),
    ],
)
def test_a_name_that_the_configuration_does_not_have_is_refused_unless_another_server_has_it(
    call, tmp_path, text, said
):
    tenant = call(tenants, "add", "a team").stdout.strip()
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    refused = call(tenants, "policy", tenant, "--set", str(file)).exception
    assert isinstance(refused, InputError) and said in str(refused) and "--other-names" in str(refused)
    assert json.loads(call(tenants, "list", "--json").stdout)["tenants"][0]["policy"] is None
    told = call(tenants, "policy", tenant, "--set", str(file), "--other-names")
    assert (told.exit_code, said in told.stderr) == (0, True)


def test_names_of_a_set_that_cannot_be_read_here_are_not_checked_and_the_command_says_so(call, tmp_path):
    config = tmp_path / "serve.yaml"
    config.write_text(
        f"{{arms: {{away: {{expert_set: elsewhere}}}}, state: {{database: 'sqlite+aiosqlite:///{tmp_path}/state.db'}}}}"
    )
    tenant = call(tenants, "add", "a team").stdout.strip()
    file = tmp_path / "policy.yaml"
    file.write_text("models: [its-name]\nexperts: [eraze]")
    told = call(tenants, "policy", tenant, "--set", str(file))
    assert told.exit_code == 0
    for what in ("model 'its-name'", "expert 'eraze'"):
        assert f"warning: The {what} was not checked: 'elsewhere' is not an expert set" in told.stderr


def test_the_policy_of_an_unknown_tenant_is_one_sentence(call, tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("pixels: 100")
    for options in (("--set", str(file)), ()):
        refused = call(tenants, "policy", "tenant_x", *options).exception
        assert isinstance(refused, NotFoundError)
        assert "'tenant_x' does not exist; `careedit tenants list`" in str(refused)
    refused = call(tenants, "policy", "anonymous", "--set", str(file)).exception
    assert isinstance(refused, InputError)
    assert "Callers without a key have no policy" in str(refused)
