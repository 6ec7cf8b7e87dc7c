"""`careedit experts`: what a set holds, whether it is sound, and changing a copy of it."""

from __future__ import annotations

import json
import shutil

import pytest

from careedit.cli import experts
from careedit.cli.main import main
from careedit.experts import ExpertManifest, load_expert_set

NAMES = ["erase", "compose", "style", "identity", "reference"]


@pytest.fixture
def run(untrained_set, capsys, tmp_path, monkeypatch):
    """Runs `careedit experts ...`, on the untrained set if no other is named: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        named = [] if "--expert-set" in arguments else ["--expert-set", str(untrained_set)]
        code = main(["experts", *arguments, *named])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def copy(untrained_set, tmp_path):
    """A copy of the untrained set, to be changed."""
    return shutil.copytree(untrained_set, tmp_path / "copy")


@pytest.fixture
def adapter(untrained_set, tmp_path):
    """A good adapter outside any set."""
    return shutil.copyfile(untrained_set / "experts/style/style.safetensors", tmp_path / "my style.safetensors")


def test_list_is_a_table_of_name_competence_rank_size_and_what_each_handles(run):
    code, out, err = run("list")
    lines = [line.split("\t") for line in out.splitlines()]

    assert code == 0
    assert lines[0] == ["name", "competence", "rank", "size", "handles"]
    assert [line[0] for line in lines[1:]] == NAMES
    assert lines[1] == ["erase", "erase", "8", "0.29 MiB", "remove"]
    assert lines[2][4] == "add, replace, action, counting, relation, attribute"
    assert err.startswith("Expert set untrained 1.0 (")


def test_list_as_json_states_the_set_and_bytes(run, untrained_set):
    code, out, err = run("list", "--json")
    document = json.loads(out)

    assert (code, err) == (0, "")
    assert document["expert_set_sha256"] == load_expert_set(untrained_set).sha256
    assert [row["name"] for row in document["experts"]] == NAMES
    assert document["experts"][0] == {
        "name": "erase",
        "competence": "erase",
        "rank": 8,
        "bytes": (untrained_set / "experts/erase/erase.safetensors").stat().st_size,
        "handles": ["remove"],
    }


def test_a_missing_adapter_is_listed_as_missing(run, copy):
    (copy / "experts/style/style.safetensors").unlink()
    _, out, _ = run("list", "--expert-set", str(copy))
    assert out.splitlines()[3].split("\t")[3] == "missing"


def test_show_is_the_manifest(run, untrained_set):
    manifest = load_expert_set(untrained_set).manifest("style")
    assert ExpertManifest.from_yaml(run("show", "style")[1], "stdout") == manifest
    assert ExpertManifest.model_validate_json(run("show", "style", "--json")[1]) == manifest


@pytest.mark.parametrize("command", ["show", "remove"])
def test_an_expert_that_the_set_lacks_is_named_with_those_it_has(command, run, copy):
    code, out, err = run(command, "magic", "--expert-set", str(copy))
    assert (code, out) == (2, "")
    assert err == f"error: The expert 'magic' does not exist; the experts are {', '.join(NAMES)} and 'base'.\n"


def test_a_sound_set_is_verified_with_exit_code_0(run, untrained_set):
    assert run("verify") == (0, f"The expert set {untrained_set} is sound.\n", "")
    assert json.loads(run("verify", "--json")[1]) == {"version": 1, "ok": True, "findings": []}


def test_a_changed_adapter_and_base_are_found_with_exit_code_1(run, copy):
    adapter = copy / "experts/style/style.safetensors"
    data = bytearray(adapter.read_bytes())
    data[-1] ^= 1
    adapter.write_bytes(data)
    index = copy / "base/model_index.json"
    index.write_text(index.read_text() + "\n")

    code, out, err = run("verify", "--expert-set", str(copy))
    assert (code, err) == (1, "")
    assert [line.split("\t")[:2] for line in out.splitlines()[1:]] == [["base-hash", "base"], ["adapter", "style"]]
    code, out, _ = run("verify", "--expert-set", str(copy), "--json")
    document = json.loads(out)
    assert code == 1 and not document["ok"]
    assert "its manifest says" in document["findings"][1]["message"]


def test_an_adapter_is_added_replaced_and_removed_again(run, copy, adapter):
    before = load_expert_set(copy)
    wanted = ["--name", "sketch", "--competence", "style", "--handles", "style, sketch", "--expert-set", str(copy)]

    code, out, err = run("add", str(adapter), *wanted)
    assert (code, err) == (0, "")
    assert out == (
        f"The expert sketch is in {copy} (rank 8, 0.29 MiB).\n"
        "Found in my style.safetensors: layout diffusers, 17 layers, rank 8, alpha from lora_alpha in its metadata "
        "(lora_adapter_metadata), scale 1.\n"
    )
    added = load_expert_set(copy)
    assert added.names == (*NAMES, "sketch")
    assert added.manifest("sketch").handles == ("style", "sketch")
    assert added.manifest("sketch").provenance == "Added from the file my style.safetensors."
    assert added.manifest("sketch").licence == "unknown"

    assert "has an expert 'sketch' already; remove it or replace it" in run("add", str(adapter), *wanted)[2]
    code, out, _ = run("add", str(adapter), *wanted, "--replace", "--licence", "MIT", "--json")
    assert code == 0 and json.loads(out)["added"]["licence"] == "MIT"
    assert run("verify", "--expert-set", str(copy))[0] == 0

    assert json.loads(run("remove", "sketch", "--expert-set", str(copy), "--json")[1])["removed"] == "sketch"
    after = load_expert_set(copy)
    assert after.names == before.names and after.sha256 == before.sha256
    assert not (copy / "experts/sketch").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--name", "../evil"], "The name '../evil' cannot be used"),
        (["--name", "auto"], "The name 'auto' is taken by careedit itself"),
        (["--competence", "Über!"], "does not accept 'Über!' for its field 'competence'"),
        (["--handles", "Remove It"], "does not accept 'Remove It' for its field 'handles.0'"),
    ],
)
def test_a_wrong_field_of_a_manifest_is_said_and_the_set_stays_as_it_was(changes, sentence, run, copy, adapter):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    fields = {"--name": "sketch", "--competence": "style", **dict([changes])}
    arguments = [piece for pair in fields.items() for piece in pair]

    code, out, err = run("add", str(adapter), *arguments, "--expert-set", str(copy))
    assert (code, out) == (2, "")
    assert sentence in err and len(err.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_the_packages_own_set_is_copied_before_it_is_changed(run, untrained_set, adapter, monkeypatch, tmp_path):
    monkeypatch.setattr(experts.plugins, "names", lambda group: ("untrained",))
    monkeypatch.setattr(experts.plugins, "load", lambda group, name, error: lambda: untrained_set)

    for command in (["add", str(adapter), "--name", "a", "--competence", "style"], ["remove", "style"]):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert "belongs to the package; run 'careedit experts copy FOLDER' and change the copy" in err
    assert load_expert_set(untrained_set).names == tuple(NAMES)

    code, out, _ = run("copy", "mine")
    assert (code, out) == (0, "The expert set untrained is in mine; use it with --expert-set mine.\n")
    assert run("verify", "--expert-set", "mine")[0] == 0
    assert run("remove", "style", "--expert-set", "mine")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine", adapter.name}
    assert load_expert_set(tmp_path / "mine").sha256 != load_expert_set(untrained_set).sha256


def test_a_copy_replaces_nothing_and_a_set_elsewhere_is_not_copied(run, tmp_path):
    (tmp_path / "there").mkdir()
    assert "'there' exists already" in run("copy", "there")[2]
    assert "does not exist; create it first" in run("copy", "no/where")[2]
    assert "is not on this machine" in run("copy", "mine", "--expert-set", "memory://sets/mine")[2]
    assert {path.name for path in tmp_path.iterdir()} == {"there"}


def test_a_set_that_is_not_there_is_refused_by_every_command(run):
    for command in (["list"], ["show", "a"], ["verify"], ["remove", "a"], ["copy", "mine"]):
        code, out, err = run(*command, "--expert-set", "nowhere")
        assert (code, out) == (2, "")
        assert err.startswith("error: 'nowhere' is not an expert set (it has no expert_set.yaml)")
