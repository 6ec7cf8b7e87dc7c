"""checkov finds nothing in the pods of any overlay but what k8s/checkov.yaml excuses, with a reason each."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from manifests import OVERLAYS, ROOT, Manifest, as_pod, manifests, pods, tool

CHECKOV = os.environ.get("CHECKOV") or tool("checkov")


@pytest.mark.skipif(CHECKOV is None, reason="checkov is not installed; `make check-policies` runs this with it")
def test_checkov_finds_nothing_that_is_not_excused(tmp_path: Path) -> None:
    for overlay in OVERLAYS:
        (tmp_path / overlay).mkdir()
        plain = [one for one in manifests(overlay) if not one["kind"].startswith("Ray")]
        inside = [_known(where, template) for where, template in pods(overlay).items() if where.startswith("Ray")]
        (tmp_path / overlay / "all.yaml").write_text(yaml.safe_dump_all([*plain, *inside]), "utf-8")
    answer = subprocess.run(
        [
            str(CHECKOV),
            "--directory",
            str(tmp_path),
            "--config-file",
            str(ROOT / "k8s/checkov.yaml"),
            "--output",
            "json",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    report = json.loads(answer.stdout)
    failed = {(one["check_id"], one["check_name"], one["resource"]) for one in report["results"]["failed_checks"]}
    assert failed == set()
    assert report["summary"]["passed"] > 400


def _known(where: str, template: Manifest) -> Manifest:
    """A pod inside one of KubeRay's resources as something that checkov understands: a pod, or a job's pod."""
    pod = as_pod(where, template)
    if where.startswith("RayService"):
        return pod
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": pod["metadata"], "spec": {"template": template}}


def test_every_excused_policy_has_its_reason() -> None:
    lines = (ROOT / "k8s/checkov.yaml").read_text("utf-8").splitlines()
    excused = [line for line in lines if line.strip().startswith("- CKV")]
    assert excused and all("# " in line and len(line.split("# ")[1]) > 20 for line in excused)
