"""The Helm chart as `helm template` prints it, for the tests of `k8s/helm`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from manifests import ROOT, Manifest, tool

CHART = ROOT / "k8s/helm/careedit"


def helm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller looks at its exit code."""
    program = tool("helm")
    assert program, "helm is missing; run make .venv/bin/helm"
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def values_of(overlay: str) -> list[str]:
    """The options with which the chart equals an overlay."""
    files = [ROOT / "k8s/overlays" / overlay / "cluster.yaml", CHART / f"values-{overlay}.yaml"]
    return [word for file in files if file.is_file() for word in ("--values", str(file))]


def templated(*words: str | Path, chart: Path = CHART) -> list[Manifest]:
    """The objects of `helm template`."""
    answer = helm("template", "careedit", chart, "--namespace", "careedit", *words)
    assert answer.returncode == 0, answer.stderr
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(answer.stdout, loader) if document]


def compared(objects: list[Manifest]) -> dict[str, Any]:
    """Objects by kind and name, with what does not depend on how they are written: YAML inside a text, order of groups."""
    found = {f"{one['kind']}/{one['metadata']['name']}": _plain(one) for one in objects}
    assert len(found) == len(objects), "two objects have one name"
    return found


def _plain(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _plain(one, name) for name, one in value.items()}
    if isinstance(value, list):
        items = [_plain(one) for one in value]
        return sorted(items, key=lambda one: one["groupName"]) if key == "workerGroupSpecs" else items
    if key == "serveConfigV2" or (key.endswith(".yaml") and isinstance(value, str)):
        return _plain(yaml.safe_load(value))
    return value
