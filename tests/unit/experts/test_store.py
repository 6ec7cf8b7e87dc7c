from __future__ import annotations

import os
import sys
import time
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from careedit.errors import AdapterError, ExpertError, ManifestError
from careedit.experts import Folder, add_expert, load_expert_set, store, verify_expert_set
from careedit.files import file_digest


class CountingMemory(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """A filesystem in memory that records what is opened, in the place of a remote one."""

    protocol = ("hf",)
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    opened: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("hf://", "memory://", 1))  # type: ignore[no-any-return]

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if args[:1] == ("rb",) or kwargs.get("mode") == "rb":
            type(self).opened.append(path)
        return super()._open(path, *args, **kwargs)


@pytest.fixture
def hub(monkeypatch):
    """Serves hf:// addresses from memory."""
    monkeypatch.setitem(_registry, "hf", CountingMemory)
    yield CountingMemory
    CountingMemory.store.clear()
    CountingMemory.opened.clear()


@pytest.fixture
def local_set(set_folder, adapter, describe):
    path = adapter("erase")
    add_expert(set_folder, describe(path), path)
    return set_folder


@pytest.fixture(params=["memory", "hf"])
def address(request, local_set, hub):
    """The local set, uploaded."""
    root = f"{request.param}://somebody/sets/drawn"
    filesystem = fsspec.filesystem(request.param)
    for path in local_set.rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"{root}/{path.relative_to(local_set).as_posix()}", path.read_bytes())
    yield root
    filesystem.rm("somebody" if request.param == "hf" else "/somebody", recursive=True)


def test_a_remote_set_is_the_local_one(address, local_set, tmp_path):
    remote, local = load_expert_set(address, cache=tmp_path / "cache"), load_expert_set(local_set)
    assert remote.sha256 == local.sha256
    assert remote.shapes.fingerprint == local.shapes.fingerprint
    assert remote.load("erase").parameters == local.parameters("erase")
    assert file_digest(remote.adapter_path("erase")) == remote.manifest("erase").sha256
    assert verify_expert_set(address, cache=tmp_path / "cache") == ()


def test_a_file_url_is_read_in_place(local_set, tmp_path):
    expert_set = load_expert_set(f"file://{local_set}", cache=tmp_path / "cache")
    assert expert_set.adapter_path("erase") == local_set / "experts" / "erase" / "erase.safetensors"
    assert not (tmp_path / "cache").exists()


def test_a_fetched_adapter_is_kept_by_its_hash_and_fetched_once(hub, local_set, tmp_path):
    data = (local_set / "experts" / "erase" / "erase.safetensors").read_bytes()
    fsspec.filesystem("hf").pipe_file("hf://a/b/erase.safetensors", data)
    sha256 = load_expert_set(local_set).manifest("erase").sha256
    folder = Folder("hf://a/b", cache=tmp_path / "cache")
    hub.opened.clear()
    first = folder.fetch("erase.safetensors", sha256)
    assert folder.fetch("erase.safetensors", sha256) == first
    assert hub.opened == ["/a/b/erase.safetensors"]
    assert first.read_bytes() == data
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [first]


def test_a_damaged_cache_is_fetched_again(hub, local_set, tmp_path):
    data = (local_set / "experts" / "erase" / "erase.safetensors").read_bytes()
    fsspec.filesystem("hf").pipe_file("hf://a/b/erase.safetensors", data)
    sha256 = load_expert_set(local_set).manifest("erase").sha256
    folder = Folder("hf://a/b", cache=tmp_path / "cache")
    path = folder.fetch("erase.safetensors", sha256)
    path.write_bytes(b"half")
    assert folder.fetch("erase.safetensors", sha256).read_bytes() == data


def test_a_file_with_another_hash_is_refused_and_not_kept(hub, tmp_path):
    fsspec.filesystem("hf").pipe_file("hf://a/b/erase.safetensors", b"something else")
    folder = Folder("hf://a/b", cache=tmp_path / "cache")
    with pytest.raises(AdapterError, match="has the hash"):
        folder.fetch("erase.safetensors", "0" * 64)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_the_hugging_face_filesystem_is_what_serves_hf_addresses(monkeypatch):
    from huggingface_hub import HfFileSystem

    assert isinstance(Folder("hf://somebody/experts")._filesystem(), HfFileSystem)


@pytest.mark.parametrize(
    ("address", "missing", "words"),
    [("s3://bucket/set", "s3fs", r"pip install 'careedit\[s3\]'"), ("gs://bucket/set", "gcsfs", "pip install gcsfs")],
)
def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch, address, missing, words):
    monkeypatch.delitem(_registry, address.split(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExpertError, match=words):
        load_expert_set(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("memory://nothing/here", "'expert_set.yaml' in memory://nothing/here does not exist"),
        ("nonsense://a", "nonsense"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_in_a_sentence(address, words):
    with pytest.raises(ExpertError, match=words) as caught:
        load_expert_set(address)
    assert "\n" not in str(caught.value)


def test_a_set_file_that_is_too_large_or_no_text_is_refused():
    filesystem = fsspec.filesystem("memory")
    for data in (b"x" * 3_000_000, b"\xff\xfe\x00"):
        filesystem.pipe_file("/odd/expert_set.yaml", data)
        with pytest.raises((ManifestError, ExpertError), match=r"larger than|not UTF-8"):
            load_expert_set("memory://odd")
    filesystem.rm("/odd", recursive=True)


def test_options_go_along_within_one_protocol_only():
    folder = Folder("s3://bucket/set", {"key": "secret"})
    assert folder.child("experts/erase").options == {"key": "secret"}
    assert folder.child("s3://other/erase").options == {"key": "secret"}
    assert folder.child("memory://other/erase").options == {}
    assert folder.child("/local/erase").options == {}


def test_a_remote_set_is_not_changed_in_place(address, local_set, adapter):
    manifest = load_expert_set(local_set).manifest("erase").model_copy(update={"name": "other"})
    with pytest.raises(ExpertError, match="not a local folder"):
        add_expert(address, manifest, adapter("erase"))


def test_a_file_is_hashed_again_only_if_it_may_have_changed(tmp_path, monkeypatch):
    path, cache, hashed = tmp_path / "weights.safetensors", tmp_path / "cache", []
    monkeypatch.setattr(store, "file_digest", lambda file: hashed.append(file) or file_digest(file))

    def look() -> str:
        digest = store.stored_digest(path, cache)
        for entry in (cache / "digests").iterdir():  # as if some time had passed
            os.utime(entry, ns=(0, time.time_ns() + 10 * store.SETTLED_NS))
        return digest

    path.write_bytes(b"a" * 5000)
    assert look() == look() == file_digest(path)
    assert len(hashed) == 1
    state = path.stat()
    path.write_bytes(b"b" * 5000)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # a change that hides itself
    assert look() == file_digest(path)
    assert len(hashed) == 2
    path.write_bytes(b"c" * 5000)
    assert store.stored_digest(path, cache) == store.stored_digest(path, cache) == file_digest(path)
    assert len(hashed) == 4, "a file that has just been written is not trusted"
