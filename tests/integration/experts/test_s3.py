"""An expert set in an S3 bucket, served by moto on this machine's loopback interface."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer
from peft import LoraConfig, get_peft_model_state_dict

from careedit.errors import AdapterError, ExpertError
from careedit.experts import (
    DEFAULT_TARGETS,
    BaseSpec,
    Defaults,
    ExpertSetFile,
    Folder,
    PanelSpec,
    add_expert,
    create_expert_set,
    load_expert_set,
    make_manifest,
    save_adapter,
    shapes_of,
    verify_expert_set,
)
from careedit_tiny.models.family import build_transformer


@pytest.fixture(scope="module")
def options():
    """Storage options of a bucket server that lives as long as this module's tests."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "key": "test",
        "secret": "test",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}"},
    }
    server.stop()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "set"
    transformer = cast(Any, build_transformer())
    shapes = shapes_of(transformer)
    transformer.save_config(folder / "base" / "transformer")
    spec = ExpertSetFile(
        name="drawn",
        version="1.0",
        base=BaseSpec(path="./base", max_sequence_length=24, fingerprint=shapes.fingerprint),
        panel=PanelSpec(size=64),
        defaults=Defaults(steps=8),
    )
    create_expert_set(folder, spec)
    transformer.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=DEFAULT_TARGETS))
    path = folder.parent / "erase.safetensors"
    save_adapter(path, get_peft_model_state_dict(transformer), rank=8, alpha=8)
    manifest = make_manifest(
        path,
        shapes,
        name="erase",
        competence="erase",
        description="Removes.",
        handles=("remove",),
        base_name="tiny",
        licence="MIT",
        provenance="Drawn at random.",
    )
    return add_expert(folder, manifest, path)


@pytest.fixture(scope="module")
def address(options, local):
    filesystem = fsspec.filesystem("s3", **options)
    filesystem.mkdir("experts")
    folder = local.folder.local
    assert folder is not None
    for path in folder.rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"experts/sets/drawn/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return "s3://experts/sets/drawn"


def test_a_set_in_a_bucket_is_the_local_one(address, options, local, tmp_path):
    remote = load_expert_set(address, cache=tmp_path, storage_options=options)
    assert remote.sha256 == local.sha256
    state = remote.load("erase")
    for name, module in local.load("erase").modules.items():
        assert torch.equal(state.modules[name].down, module.down)
        assert torch.equal(state.modules[name].up, module.up)
    assert Path(remote.base_path, "transformer", "config.json").is_file()
    assert verify_expert_set(address, cache=tmp_path, storage_options=options) == ()


def test_processes_that_fetch_the_same_adapter_at_once_all_get_it_whole(address, options, local, tmp_path):
    sha256 = local.manifest("erase").sha256
    expected = local.adapter_path("erase").read_bytes()
    seen: list[bytes] = []

    def fetch() -> None:
        folder = Folder(f"{address}/experts/erase", options, tmp_path)
        seen.append(folder.fetch("erase.safetensors", sha256).read_bytes())

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 6
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_changed_object_is_refused(address, options, local, tmp_path):
    filesystem = fsspec.filesystem("s3", **options)
    filesystem.copy("experts/sets/drawn", "experts/sets/changed", recursive=True)
    data = bytearray(local.adapter_path("erase").read_bytes())
    data[-1] ^= 1
    filesystem.pipe_file("experts/sets/changed/experts/erase/erase.safetensors", bytes(data))
    remote = load_expert_set("s3://experts/sets/changed", cache=tmp_path, storage_options=options)
    with pytest.raises(AdapterError, match="has the hash"):
        remote.load("erase")
    findings = verify_expert_set("s3://experts/sets/changed", cache=tmp_path, storage_options=options)
    assert [(finding.code, finding.subject) for finding in findings] == [("adapter", "erase")]


def test_a_versioned_bucket_gives_an_overwritten_set_back(options, address, local, tmp_path):
    """The restore of docs/kubernetes.md for adapters: the older version of an object, put in place again."""
    filesystem = fsspec.filesystem("s3", version_aware=True, use_listings_cache=False, **options)
    filesystem.mkdir("versioned")
    filesystem.make_bucket_versioned("versioned")
    filesystem.copy("experts/sets/drawn", "versioned/drawn", recursive=True)
    adapter = "versioned/drawn/experts/erase/erase.safetensors"
    filesystem.pipe_file(adapter, b"overwritten by mistake")
    found = load_expert_set("s3://versioned/drawn", cache=tmp_path / "broken", storage_options=options)
    with pytest.raises(AdapterError):
        found.load("erase")
    (older,) = [one for one in filesystem.object_version_info(adapter) if not one["IsLatest"]]
    filesystem.pipe_file(adapter, filesystem.cat_file(adapter, version_id=older["VersionId"]))
    assert verify_expert_set("s3://versioned/drawn", cache=tmp_path / "whole", storage_options=options) == ()
    restored = load_expert_set("s3://versioned/drawn", cache=tmp_path / "whole", storage_options=options)
    assert restored.sha256 == local.sha256


@pytest.mark.parametrize("place", ["s3://experts/sets/nothing", "s3://no-such-bucket/set"])
def test_a_set_that_is_not_there_is_said_in_a_sentence(options, address, place, tmp_path):
    with pytest.raises(ExpertError, match=r"expert_set\.yaml") as caught:
        load_expert_set(place, cache=tmp_path, storage_options=options)
    assert "\n" not in str(caught.value)
