"""`careedit doctor`: what a configuration needs, against a machine of the test's choice."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import small_bases
from careedit.cli.main import main
from careedit_deployments.cli import doctor
from careedit_deployments.cli.doctor import GIB, Line, check
from careedit_deployments.cli.machine import Gpu, Machine, look
from careedit_deployments.cli.weights import Weights, weights_of
from careedit_deployments.config import ServeConfig

BIG = Machine(cpus=16, memory=64 * GIB, gpus=(Gpu("H200", 80 * GIB),), disk=500 * GIB)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set on a small klein, as `careedit init` writes it."""
    folder = tmp_path_factory.mktemp("doctor")
    small_bases.klein().save_pretrained(folder / "base")
    assert main(["init", str(folder / "set"), "--base", str(folder / "base")]) == 0
    return folder


@pytest.fixture(autouse=True)
def _speeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("careedit.finetune.precision.measure", lambda *_: {"float32": 100.0, "bfloat16": 300.0})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


def configured(home: Path, *, gpus: float = 1.0, **fields: Any) -> ServeConfig:
    arm = {"expert_set": str(home / "set"), **fields.pop("arm", {})}
    return ServeConfig(arms={"main": arm}, shared={"num_gpus": gpus}, http={"port": 0}, **fields)


def found(config: ServeConfig, machine: Machine = BIG) -> dict[str, Line]:
    return {line.subject: line for line in check(config, machine)}


def of_size(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    monkeypatch.setattr(doctor, "weights_of", lambda *_: weights)


def test_a_machine_that_fits_has_no_complaints(home: Path) -> None:
    lines = found(configured(home))

    assert {line.status for line in lines.values()} == {"ok"}
    assert {"main.base", "main.licence", "main.device", "main.dtype", "main.shared.memory", "cpus", "port"} <= set(
        lines
    )
    assert "Apache-2.0" in lines["main.licence"].message


def test_weights_that_do_not_fit_in_free_gpu_memory_fail_and_a_tight_fit_is_warned_of(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_size(monkeypatch, Weights(8 * 10**9, 16 * 10**9, ()))  # 14.9 GiB in bfloat16

    def with_free(size: int) -> Line:
        return found(configured(home), Machine(16, 64 * GIB, (Gpu("L4", size * GIB),), GIB))["main.shared.memory"]

    assert [with_free(size).status for size in (14, 16, 24)] == ["fail", "warn", "ok"]
    assert "14.9 GiB of weights, 14.0 GiB free in a GPU" in with_free(14).message


def test_quantised_weights_need_less_memory_a_package_and_no_expert_with_replicas_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = found(configured(home))["main.shared.memory"].message
    lines = found(configured(home, arm={"quantisation": "fp8"}))
    assert lines["main.quantisation"].status == "ok" and lines["main.shared.memory"].message != plain
    monkeypatch.setattr("careedit.editing.quantisation.find_spec", lambda _: None)
    lines = found(configured(home, arm={"quantisation": "nf4"}))
    assert lines["main.quantisation"].status == "fail" and "bitsandbytes" in lines["main.quantisation"].message


def test_a_fraction_of_a_gpu_is_a_fraction_of_its_memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_size(monkeypatch, Weights(8 * 10**9, 16 * 10**9, ()))
    machine = Machine(16, 64 * GIB, (Gpu("L4", 24 * GIB),), GIB)

    assert found(configured(home, gpus=0.5), machine)["main.shared.memory"].status == "fail"


def test_replicas_on_a_cpu_are_counted_together_in_float32(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_size(monkeypatch, Weights(10**9, 2 * 10**9, ()))
    config = ServeConfig(
        arms={"main": {"expert_set": str(home / "set")}}, shared={"scaling": {"min_replicas": 3, "max_replicas": 3}}
    )
    lines = found(config, Machine(16, 10 * GIB, (), GIB))

    assert lines["main.shared.memory"].status == "ok" and "3.7 GiB of weights" in lines["main.shared.memory"].message
    assert lines["memory"].status == "fail" and "11.2 GiB of weights, 10.0 GiB free" in lines["memory"].message


def test_an_encoder_takes_the_text_encoder_s_memory_from_the_experts_and_is_counted_once(home: Path) -> None:
    whole = found(configured(home))["main.shared.memory"].message
    arms = {name: {"expert_set": str(home / "set")} for name in ("main", "other")}
    parts = found(
        ServeConfig(arms=arms, shared={"num_gpus": 0.5}, encoder={"num_gpus": 0.5}, http={"port": 0}),
        Machine(16, 64 * GIB, (Gpu("H200", 80 * GIB), Gpu("H200", 80 * GIB)), 500 * GIB),
    )

    def size(message: str) -> float:
        return float(message.split(" MiB")[0])

    assert size(parts["main.shared.memory"].message) + size(parts["main.encoder.memory"].message) == pytest.approx(
        size(whole),
        abs=0.16,  # each is rounded
    )
    assert "main.encoder" not in parts and "other.encoder.memory" not in parts
    apart = found(configured(home, encoder={"num_gpus": 0}))
    assert apart["main.encoder"].status == "warn" and "do not replay to the bit" in apart["main.encoder"].message


def test_a_configuration_for_a_gpu_fails_without_one(home: Path) -> None:
    lines = found(configured(home), Machine(16, 64 * GIB, (), GIB))

    assert [lines[name].status for name in ("main.device", "main.shared.memory", "gpus")] == ["fail"] * 3
    assert "num_gpus: 0" in lines["main.device"].message


def test_an_arm_on_cuda_whose_replicas_reserve_no_gpu_fails(home: Path) -> None:
    assert found(configured(home, gpus=0.0, arm={"device": "cuda"}))["main.device"].status == "fail"


def test_a_base_of_the_hub_is_sized_by_the_hub_s_list_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_here(*_: Any, **__: Any) -> str:
        raise OSError("not in the cache")

    sizes = {
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": 4000,
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": 2000,
        "text_encoder/model.safetensors": 8000,
        "text_encoder/pytorch_model.bin": 9000,
        "whole.safetensors": 6000,
    }
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    monkeypatch.setattr("huggingface_hub.snapshot_download", not_here)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=files))

    assert weights_of("lab/klein", "abc", ("transformer", "text_encoder")) == Weights(7000, 14000, (), fetched=False)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", not_here)
    with pytest.raises(doctor.CareEditError, match="the hub does not say how large"):
        weights_of("lab/klein", "abc", ("transformer",))


def test_more_cpus_than_the_machine_has_fail(home: Path) -> None:
    assert found(configured(home), Machine(1, 64 * GIB, BIG.gpus, GIB))["cpus"].status == "fail"


@pytest.mark.parametrize(("dtype", "status"), [("bfloat16", "ok"), ("float32", "warn"), (None, "ok")])
def test_a_number_format_that_is_slow_on_the_device_is_warned_of(home: Path, dtype: str | None, status: str) -> None:
    line = found(configured(home, arm={"dtype": dtype}))["main.dtype"]

    assert line.status == status and "3 times as fast as float32" in line.message


def test_a_base_with_a_missing_shard_or_a_truncated_file_fails(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    small_bases.klein().save_pretrained(folder)
    path = folder / "transformer/diffusion_pytorch_model.safetensors"
    whole = weights_of(str(folder), components=("transformer", "vae"))
    index = {"weight_map": {"a": path.name, "b": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    path.with_suffix(".safetensors.index.json").write_text(json.dumps(index))
    half = weights_of(str(folder), components=("transformer", "vae"))
    path.write_bytes(path.read_bytes()[:-8])

    assert whole.parameters > 0 and whole.missing == ()
    assert half.missing == ("transformer/diffusion_pytorch_model-00002-of-00002.safetensors",)
    with pytest.raises(doctor.CareEditError, match="damaged or incomplete"):
        weights_of(str(folder), components=("transformer",))


def test_a_base_that_is_not_here_is_warned_of_or_fails_if_the_disk_is_full(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_size(monkeypatch, Weights(10**9, 20 * GIB, (), fetched=False))
    full = Machine(16, 64 * GIB, BIG.gpus, 10 * GIB)

    assert found(configured(home))["main.base"].status == "warn"
    assert found(configured(home), full)["main.base"].status == "fail"


def test_a_used_port_a_missing_variable_and_an_unreadable_set_fail(home: Path) -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        config = ServeConfig(
            arms={"main": {"expert_set": "nowhere"}},
            http={"port": used.getsockname()[1]},
            jobs={"webhook_secret_env": "CAREEDIT_NOT_SET"},
        )
        lines = found(config)

    assert [lines[name].status for name in ("main.set", "port", "jobs.webhook_secret_env")] == ["fail"] * 3


def test_the_gpus_are_those_that_nvidia_smi_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143156'\necho 'NVIDIA L4, 22000'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert look().gpus == (Gpu("NVIDIA H200", 143156 * 2**20), Gpu("NVIDIA L4", 22000 * 2**20))

    program.write_text("#!/bin/sh\necho 'the driver does not answer' >&2\nexit 9\n")
    assert look().gpus == ()


def test_the_command_checks_a_set_alone_and_exits_with_1_if_it_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "look", lambda: BIG)
    assert main(["doctor", str(home / "set"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] and not {"port", "cpus"} & {line["subject"] for line in document["lines"]}

    monkeypatch.setattr(doctor, "look", lambda: Machine(1, 1, (), GIB))
    assert main(["doctor", str(home / "set")]) == 1
    assert "fail  set.shared.memory: " in capsys.readouterr().out


def test_an_unknown_configuration_is_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "nowhere"]) == 2
    assert "does not exist" in capsys.readouterr().err
