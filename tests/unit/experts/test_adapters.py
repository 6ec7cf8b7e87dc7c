"""Adapter files: what is checked before they are used, and how they are written."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save, save_file

from careedit.errors import AdapterError, BaseMismatchError, ManifestError
from careedit.experts import (
    DEFAULT_TARGETS,
    BaseReference,
    adapters,
    check_adapter,
    load_adapter,
    save_adapter,
)
from careedit.experts.store import resolve_inside
from careedit.files import file_digest

Q0 = "transformer.transformer_blocks.0.attn.to_q"


def test_a_good_file_is_read_as_its_manifest_says(adapter, shapes, lora, describe):
    path = adapter(rank=16, alpha=32.0)
    manifest = describe(path)
    assert (manifest.rank, manifest.alpha, manifest.format) == (16, 32.0, "diffusers")
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    state = load_adapter(path, shapes, manifest=manifest)
    expected = lora(1, rank=16, alpha=32.0)
    assert state.modules.keys() == expected.modules.keys()
    for name, module in state.modules.items():
        assert module.scale == 2.0
        assert torch.equal(module.down, expected.modules[name].down)
        assert torch.equal(module.up, expected.modules[name].up)


def test_the_plan_counts_what_is_loaded(adapter, shapes):
    path = adapter()
    assert check_adapter(path, shapes).parameters == load_adapter(path, shapes).parameters


def test_another_base_is_refused_before_the_file_is_opened(tmp_path, shapes, manifest):
    other = manifest(base=BaseReference(name="big base", fingerprint="1" * 64))
    with pytest.raises(BaseMismatchError, match="does not fit this base: it was made for 'big base'"):
        load_adapter(tmp_path / "is-not-there.safetensors", shapes, manifest=other)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        (f"{Q0}.lora_A.weight", (8, 96)),
        (f"{Q0}.lora_B.weight", (96, 8)),
        ("transformer.x_embedder.lora_A.weight", (8, 999)),
    ],
)
def test_a_wrong_shape_is_refused_before_a_tensor_is_read(adapter, shapes, monkeypatch, key, shape):
    path = adapter(targets=r"x_embedder|transformer_blocks\.0\.attn\.to_q")
    save_file(load_file(path) | {key: torch.zeros(shape)}, path)

    def read(*_: object) -> None:
        raise RuntimeError("a tensor was read")

    monkeypatch.setattr(adapters, "load", read)
    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(BaseMismatchError, match="does not fit this base"):
        load_adapter(path, shapes)


def test_an_unknown_module_does_not_fit(adapter, shapes):
    path = adapter()
    tensors = load_file(path)
    block = "transformer.transformer_blocks.7.attn.to_q"
    tensors |= {f"{block}.lora_A.weight": torch.zeros(8, 192), f"{block}.lora_B.weight": torch.zeros(192, 8)}
    save_file(tensors, path)
    with pytest.raises(BaseMismatchError, match=r"no linear module 'transformer_blocks\.7\.attn\.to_q'"):
        check_adapter(path, shapes)


@pytest.mark.parametrize("rank", [1, 4, 257, 320])
def test_any_rank_is_accepted(adapter, describe, rank):
    assert describe(adapter(rank=rank, alpha=float(rank))).rank == rank


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 16}, "has rank 8, its manifest says 16"),
        ({"alpha": 4.0}, "has alpha 8, its manifest says 4"),
        ({"sha256": "a" * 64}, "its manifest says aaaaaaaaaaaa"),
        ({"format": "peft"}, "is a diffusers file, its manifest says peft"),
    ],
)
def test_a_file_that_is_not_as_its_manifest_states_is_refused(adapter, shapes, describe, change, words):
    path = adapter()
    manifest = describe(path).model_copy(update=change)
    with pytest.raises(AdapterError, match=words):
        load_adapter(path, shapes, manifest=manifest)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(adapter, shapes, value):
    path = adapter()
    tensors = load_file(path)
    tensors[f"{Q0}.lora_B.weight"][3, 2] = value
    save_file(tensors, path)
    with pytest.raises(AdapterError, match="has NaN or infinite weights in"):
        load_adapter(path, shapes)


@pytest.mark.parametrize("name", ["adapter.bin", "adapter.pt", "adapter.ckpt", "adapter.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_without_being_run(tmp_path, shapes, name, zipped):
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "boom",))

    path = tmp_path / name
    if zipped:
        torch.save({"bomb": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(AdapterError, match="safetensors"):
        load_adapter(path, shapes)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("length", [640, 896, 1152])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, shapes, length):
    path = tmp_path / "a.safetensors"
    data = save({f"{Q0}.lora_A.weight": torch.ones(4, 192), f"{Q0}.lora_B.weight": torch.ones(192, 4)})
    (start,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + start].ljust(length)
    path.write_bytes(struct.pack("<Q", length) + header + data[8 + start :])
    assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04")
    assert load_adapter(path, shapes).rank == 4


@pytest.mark.parametrize(("keep", "more"), [*((keep, b"") for keep in (0, 4, 8, 100, -1, -5000)), (None, b"hidden")])
def test_a_file_with_missing_or_additional_bytes_is_refused(adapter, shapes, keep, more):
    path = adapter()
    path.write_bytes(path.read_bytes()[:keep] + more)
    with pytest.raises(AdapterError, match="get it again"):
        load_adapter(path, shapes)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", 4]}}',
        b'{"a": {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]}}',
        b'{"__metadata__": 3}',
        b"[" * 100_000,
    ],
)
def test_a_broken_header_is_refused(tmp_path, shapes, header):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(AdapterError):
        load_adapter(path, shapes)


def test_a_header_that_claims_terabytes_is_refused(tmp_path, shapes):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(AdapterError, match="get it again"):
        load_adapter(path, shapes)


def test_a_link_out_of_its_folder_is_refused_and_one_inside_it_is_not(adapter, tmp_path):
    folder = tmp_path / "expert"
    folder.mkdir()
    (folder / "out.safetensors").symlink_to(adapter())
    (folder / "real.safetensors").write_bytes(b"")
    (folder / "in.safetensors").symlink_to(folder / "real.safetensors")
    with pytest.raises(AdapterError, match="link that leads out of its folder"):
        resolve_inside(folder, "out.safetensors")
    assert resolve_inside(folder, "in.safetensors").name == "in.safetensors"


@pytest.mark.parametrize("name", ["../adapter.safetensors", "/etc/passwd", "a/../../b", "a\0b", "."])
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    with pytest.raises(AdapterError, match="leads out of its folder"):
        resolve_inside(tmp_path, name)


def test_an_adapter_of_a_base_with_fewer_input_channels_is_padded_with_zeros(shapes, lora, keys, tmp_path):
    state = lora(1, targets="x_embedder")
    tensors = {f"transformer.{key}": tensor for key, tensor in keys(state).items()}
    narrow = tensors["transformer.x_embedder.lora_A.weight"][:, :32].contiguous()
    save_file(tensors | {"transformer.x_embedder.lora_A.weight": narrow}, tmp_path / "a.safetensors")
    down = load_adapter(tmp_path / "a.safetensors", shapes).modules["x_embedder"].down
    assert down.shape == (8, 128)
    assert torch.equal(down[:, :32], narrow)
    assert not down[:, 32:].any()


def test_a_trained_lora_is_saved_and_read_again(tmp_path, transformer, shapes):
    transformer.add_adapter(
        LoraConfig(r=8, lora_alpha=16, target_modules=DEFAULT_TARGETS, init_lora_weights=False), adapter_name="x"
    )
    state = get_peft_model_state_dict(transformer, adapter_name="x")
    path = tmp_path / "deep" / "adapter.safetensors"
    digest = save_adapter(path, state, rank=8, alpha=16)
    assert digest == file_digest(path)
    read = load_adapter(path, shapes)
    assert (read.rank, read.alpha) == (8, 16.0)
    for name, module in read.modules.items():
        assert torch.equal(module.down, state[f"{name}.lora_A.weight"])
        assert torch.equal(module.up, state[f"{name}.lora_B.weight"])


def test_the_same_weights_give_the_same_bytes(tmp_path, lora, keys):
    state = keys(lora(1))
    first = save_adapter(tmp_path / "a.safetensors", state, 8, 8)
    second = save_adapter(tmp_path / "b.safetensors", dict(reversed(state.items())), 8, 8)
    assert first == second
    assert save_adapter(tmp_path / "c.safetensors", state, 8, 16) != first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_embedder.lora_A.weight": torch.full((8, 128), torch.nan)}, "training has diverged"),
        ({"x_embedder.weight": torch.zeros(8, 8)}, "is not a LoRA weight"),
        ({"x_embedder.lora_A.weight": torch.zeros(4, 128)}, "not rank 8"),
    ],
)
def test_what_is_no_usable_lora_is_not_saved(tmp_path, lora, keys, change, words):
    with pytest.raises(AdapterError, match=words):
        save_adapter(tmp_path / "a.safetensors", keys(lora(1)) | change, 8, 8)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_saved_in_no_other_format(tmp_path, lora, keys):
    with pytest.raises(AdapterError, match="safetensors"):
        save_adapter(tmp_path / "a.bin", keys(lora(1)), 8, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"competence": "Not a word!"}, "'competence'"),
        ({"handles": ("Remove It",)}, "'handles.0'"),
        ({"description": ""}, "'description'"),
        ({"name": "../x"}, "cannot be used"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_not_made(adapter, describe, change, words):
    with pytest.raises(ManifestError, match=words):
        describe(adapter(), **change)
