from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from careedit.errors import AdapterError, BaseMismatchError, ExpertError, ManifestError, UnknownExpertError
from careedit.experts import (
    BaseReference,
    ExpertManifest,
    ExpertSet,
    SharedApplier,
    add_expert,
    create_expert_set,
    load_expert_set,
    remove_expert,
    verify_expert_set,
)
from careedit.experts import edit_set as edit_set_module
from careedit.experts import set as set_module
from careedit.files import folder_digest
from velocities import velocity

GOLDEN = """\
format_version: 1
name: drawn
version: '1.0'
description: null
base:
  path: ./base
  revision: null
  max_sequence_length: 24
  fingerprint: {fingerprint}
  sha256: null
panel:
  size: 64
  fit: letterbox
  multiple: 16
defaults:
  steps: 8
  guidance: null
  top_k: 1
  start: noise
  noise_scale: 1.0
router:
  kind: rules
  options: {{}}
application: merged
experts:
- experts/erase
"""


@pytest.fixture
def drawn(adapter, describe):
    """`drawn(name, seed)`: an expert's manifest and its adapter file, drawn at random."""

    def make(name: str, seed: int = 1) -> tuple[ExpertManifest, Path]:
        path = adapter(name, seed)
        return describe(path, name=name, competence=name), path

    return make


@pytest.fixture
def add(set_folder, drawn):
    def put(name: str, seed: int = 1, **options: Any) -> ExpertSet:
        return add_expert(set_folder, *drawn(name, seed), **options)

    return put


def edit_yaml(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = yaml.safe_load((folder / "expert_set.yaml").read_text())
    change(data)
    (folder / "expert_set.yaml").write_text(yaml.safe_dump(data))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_written_format_is_the_golden_one(add, set_folder, shapes):
    add("erase")
    assert (set_folder / "expert_set.yaml").read_text() == GOLDEN.format(fingerprint=shapes.fingerprint)
    assert sorted(tree(set_folder / "experts")) == ["erase/erase.safetensors", "erase/expert.yaml"]


def test_an_added_expert_is_loaded_from_the_set(add, set_folder, lora):
    add("erase", 1)
    add("style", 2)
    expert_set = load_expert_set(set_folder)
    assert expert_set.names == ("erase", "style")
    assert expert_set.parameters("style") == lora(2).parameters
    loaded = expert_set.load("style")
    assert all(torch.equal(module.up, lora(2).modules[name].up) for name, module in loaded.modules.items())
    assert verify_expert_set(set_folder) == ()
    with pytest.raises(UnknownExpertError, match="the experts are erase, style and 'base'"):
        expert_set.load("blur")


def test_a_set_serves_an_applier(add, set_folder, transformer, inputs):
    add("erase", 1)
    applier = SharedApplier(transformer, load_expert_set(set_folder))
    output = velocity(applier, ["erase", "base"], inputs(2))
    assert output.shape == (2, 32, 32)
    assert applier.resident == ("erase",)


def test_the_hash_depends_on_what_decides_an_edit_and_on_nothing_else(add, set_folder, tmp_path):
    add("erase", 1)
    before = add("style", 2).sha256
    moved = tmp_path / "elsewhere"
    shutil.copytree(set_folder, moved)

    def irrelevant(data: dict[str, Any]) -> None:
        data |= {"name": "renamed", "version": "7", "description": "x", "application": "shared"}
        data["base"]["path"] = str(set_folder / "base")
        data["experts"] = [str(moved / "experts/style"), "experts/erase"]

    edit_yaml(moved, irrelevant)
    assert load_expert_set(moved).sha256 == before

    seen = {before}
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda data: data["defaults"].update(steps=9),
        lambda data: data["defaults"].update(top_k=2),
        lambda data: data["defaults"].update(noise_scale=0.5),
        lambda data: data["defaults"].update(noise_scale=1.0, start="source"),
        lambda data: data["router"].update(kind="fixed"),
        lambda data: data["router"].update(options={"expert": "erase"}),
        lambda data: data["panel"].update(size=96),
        lambda data: data["base"].update(max_sequence_length=32),
        lambda data: data["base"].update(sha256="0" * 64),
        lambda data: data["experts"].pop(),
    ]
    for change in changes:
        edit_yaml(moved, change)
        seen.add(load_expert_set(moved).sha256)
    assert len(seen) == 1 + len(changes)


@pytest.mark.parametrize("field", ["noise_scale", "start"])
def test_a_set_that_states_no_start_has_the_hash_of_one_that_states_the_default(set_folder, field):
    stated = load_expert_set(set_folder).sha256
    edit_yaml(set_folder, lambda data: data["defaults"].pop(field))
    assert load_expert_set(set_folder).sha256 == stated


def test_other_weights_under_the_same_name_change_the_hash(add):
    first = add("erase", 1).sha256
    assert add("erase", 2, replace=True).sha256 != first
    assert add("erase", 1, replace=True).sha256 == first


def test_a_hub_id_counts_into_the_hash_but_a_local_path_does_not(set_folder):
    hashes = []
    for path in ("./base", "black-forest-labs/FLUX.1-Fill-dev", "somebody/flux-fill-tuned"):
        edit_yaml(set_folder, lambda data, path=path: data["base"].update(path=path))  # type: ignore[misc]
        hashes.append(load_expert_set(set_folder).sha256)
    assert len(set(hashes)) == 3
    assert load_expert_set(set_folder).base_path == "somebody/flux-fill-tuned"


def test_reading_a_set_reads_no_weights(add, set_folder, monkeypatch):
    add("erase")

    def read(*_: object, **__: object) -> None:
        raise RuntimeError("weights were read")

    monkeypatch.setattr(set_module.experts, "load_adapter", read)
    monkeypatch.setattr(set_module.experts, "check_adapter", read)
    assert len(load_expert_set(set_folder).sha256) == 64


def test_an_expert_that_is_there_is_only_replaced_when_asked(add, set_folder):
    add("erase", 1)
    add("style", 2)
    before = tree(set_folder)
    with pytest.raises(ExpertError, match="has an expert 'erase' already"):
        add("erase", 3)
    assert tree(set_folder) == before
    assert add("erase", 3, replace=True).names == ("erase", "style")
    assert sorted(path.name for path in (set_folder / "experts").iterdir()) == ["erase", "style"]


@pytest.mark.parametrize("violation", ["hash", "nan", "base", "truncated"])
def test_a_flawed_adapter_is_not_added_and_nothing_is_written(set_folder, drawn, violation, add):
    add("style", 2)
    manifest, path = drawn("erase")
    if violation == "hash":
        manifest = manifest.model_copy(update={"sha256": "a" * 64})
    elif violation == "nan":
        tensors = load_file(path)
        next(iter(tensors.values()))[0, 0] = torch.nan
        save_file(tensors, path)
    elif violation == "base":
        manifest = manifest.model_copy(update={"base": BaseReference(name="other", fingerprint="b" * 64)})
    else:
        path.write_bytes(path.read_bytes()[:-10])
    before = tree(set_folder)
    with pytest.raises((AdapterError, BaseMismatchError)):
        add_expert(set_folder, manifest, path)
    assert tree(set_folder) == before


def test_a_crash_before_the_set_is_rewritten_leaves_the_old_set(set_folder, drawn, add, monkeypatch):
    before = add("style", 2).sha256

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(edit_set_module, "_rewrite", crash)
        with pytest.raises(KeyboardInterrupt):
            add_expert(set_folder, *drawn("erase"))
    assert load_expert_set(set_folder).sha256 == before
    assert add("erase", 1).names == ("style", "erase")


def test_a_removed_expert_is_gone_from_file_and_disk(add, set_folder):
    empty = load_expert_set(set_folder).sha256
    add("erase", 1)
    assert remove_expert(set_folder, "erase").sha256 == empty
    assert list((set_folder / "experts").iterdir()) == []
    with pytest.raises(UnknownExpertError):
        remove_expert(set_folder, "erase")


def test_removing_an_expert_that_lies_elsewhere_leaves_its_folder(add, set_folder, tmp_path):
    add("erase", 1)
    shutil.move(set_folder / "experts" / "erase", tmp_path / "erase")
    edit_yaml(set_folder, lambda data: data.update(experts=[str(tmp_path / "erase")]))
    assert load_expert_set(set_folder).names == ("erase",)
    remove_expert(set_folder, "erase")
    assert (tmp_path / "erase" / "expert.yaml").is_file()


@pytest.mark.parametrize("entry", ["../outside", "experts/../../outside", "a\\b", ""])
def test_an_entry_that_leads_out_of_the_set_is_refused(set_folder, entry):
    edit_yaml(set_folder, lambda data: data.update(experts=[entry]))
    with pytest.raises(ExpertError):
        load_expert_set(set_folder)


def test_an_expert_folder_that_is_a_link_out_of_its_folder_is_refused(add, set_folder, tmp_path):
    add("erase")
    weights = set_folder / "experts" / "erase" / "erase.safetensors"
    shutil.move(weights, tmp_path / "secret.safetensors")
    weights.symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(AdapterError, match="link that leads out"):
        load_expert_set(set_folder).load("erase")
    assert [finding.code for finding in verify_expert_set(set_folder)] == ["adapter"]


def test_an_expert_of_another_base_is_refused_when_the_set_is_read(add, set_folder):
    add("erase")
    path = set_folder / "experts" / "erase" / "expert.yaml"
    text = path.read_text()
    path.write_text(text.replace(load_expert_set(set_folder).spec.base.fingerprint, "c" * 64))
    with pytest.raises(BaseMismatchError, match="does not fit this base"):
        load_expert_set(set_folder)


def test_verify_finds_every_flaw_and_names_the_expert(add, set_folder):
    for seed, name in enumerate(["good", "flipped", "gone", "broken"]):
        add(name, seed)
    experts = set_folder / "experts"
    data = bytearray((experts / "flipped" / "flipped.safetensors").read_bytes())
    data[-1] ^= 1
    (experts / "flipped" / "flipped.safetensors").write_bytes(data)
    (experts / "gone" / "gone.safetensors").unlink()
    (experts / "broken" / "expert.yaml").write_text("rank: 8\n")
    edit_yaml(set_folder, lambda content: content["base"].update(sha256="d" * 64))
    found = {(finding.code, finding.subject): finding.message for finding in verify_expert_set(set_folder)}
    assert found.keys() == {
        ("base-hash", "base"),
        ("adapter", "flipped"),
        ("adapter", "gone"),
        ("manifest", "experts/broken"),
    }
    assert "has the hash" in found["adapter", "flipped"]
    assert "has no file" in found["adapter", "gone"]


def test_verify_accepts_a_base_whose_hash_is_stated(add, set_folder):
    add("erase")
    digest = folder_digest(set_folder / "base")
    edit_yaml(set_folder, lambda content: content["base"].update(sha256=digest))
    assert verify_expert_set(set_folder) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(colour="red"), "has no field 'colour'"),
        (lambda data: data["base"].update(fingerprint="xyz"), "'base.fingerprint'"),
        (lambda data: data["defaults"].update(steps=0), "'defaults.steps'"),
        (lambda data: data["defaults"].update(noise_scale=0), "'defaults.noise_scale'"),
        (lambda data: data["defaults"].update(start="target"), "'defaults.start'"),
        (lambda data: data["defaults"].update(noise_scale=1.5), "'defaults.noise_scale'"),
        (lambda data: data["panel"].update(fit="crop"), "'panel.fit'"),
        (lambda data: data.update(experts=["a", "a"]), "lists an expert twice"),
        (lambda data: data.update(format_version=2), "'format_version'"),
        (lambda data: data.pop("panel"), "needs the field 'panel'"),
    ],
)
def test_a_flawed_set_file_is_refused_by_field(set_folder, change, words):
    edit_yaml(set_folder, change)
    with pytest.raises(ManifestError, match=words):
        load_expert_set(set_folder)


def test_a_base_of_another_shape_than_stated_is_refused(set_folder):
    config = set_folder / "base" / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"num_layers": 2', '"num_layers": 3'))
    with pytest.raises(ManifestError, match="has the fingerprint"):
        _ = load_expert_set(set_folder).shapes
    assert [finding.code for finding in verify_expert_set(set_folder)] == ["base"]


def test_a_folder_without_a_set_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ExpertError, match="is not an expert set"):
        load_expert_set(tmp_path)


def test_a_set_is_not_started_where_one_is(set_folder):
    with pytest.raises(ExpertError, match="already"):
        create_expert_set(set_folder, load_expert_set(set_folder).spec)


def test_a_name_of_the_package_finds_the_set_that_is_shipped(add, set_folder, monkeypatch, tmp_path):
    add("erase")
    packaged = {"drawn": lambda: set_folder}
    monkeypatch.setattr(set_module.plugins, "load", lambda group, name, error: packaged.get(name))
    monkeypatch.chdir(tmp_path)
    assert load_expert_set("drawn").names == ("erase",)
