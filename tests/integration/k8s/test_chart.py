"""The Helm chart, rendered by helm itself: it equals the overlays, follows `careedit k8s render`, and refuses wrong values by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from careedit_deployments.kubernetes.chart import Chart
from careedit_deployments.kubernetes.cluster import Cluster
from careedit_deployments.kubernetes.nightly import nightly_manifests
from careedit_deployments.kubernetes.rayservice import config_map, rayservice
from charts import CHART, compared, helm, templated, values_of
from manifests import OVERLAYS, ROOT, printed

GPU = values_of("gpu")
PLAIN = "version: 1\narms: {small: {expert_set: tiny, experts: {erase: {num_cpus: 2}}}}\nscorer: {backend: transformers, model: tiny}\n"
"""A configuration that leaves most to defaults and has an expert with a deployment of its own."""
POD = {"cpus": 2, "memory": "4Gi"}
CLUSTERS: dict[str, dict[str, Any]] = {
    "encoder, workers, region and nulls": {
        "config": "qwen-edit.yaml",
        "image": "registry.example.com:5000/careedit:1",
        "settings": {
            "auth": {"required": False},
            "ingress": {"scaling": {"min_replicas": 0}},
            "limits": {"evaluations": 9},
        },
        "head": POD,
        "groups": {
            "all": {
                "pod": POD | {"gpus": 2, "disk": "1Ti"},
                "node_selector": {"gpu": "80gb"},
                "min_pods": 0,
                "max_pods": 3,
            },
            "rest": {"pod": POD},
        },
        "placement": dict.fromkeys(("ingress", "router", "expert", "shared", "scorer"), "all") | {"encoder": "rest"},
        "environment": {"B": "true", "A": "1"},
        "region": "eu-1",
        "longest_edit_s": 17.5,
        "upgrade": {},
        "nightly": {
            "command": ["careedit", "eval", "nightly", "--out", "/a b/it's"],
            "head": POD | {"gpus": 1},
            "workers": {"pod": POD | {"gpus": 1}, "max_pods": 4, "idle_s": 60},
        },
    },
    "defaults": {
        "config": "plain.yaml",
        "image": "careedit:1",
        "head": POD,
        "groups": {"front": {"pod": POD}},
        "placement": dict.fromkeys(("ingress", "router", "expert", "shared", "scorer"), "front"),
        "nightly": {"kind": "CronJob", "command": ["true"], "head": POD},
        "region": "eu-1",
    },
    "no nightly run and no judge": {
        "config": "plain.yaml",
        "image": "careedit:1",
        "settings": {
            "scorer": {"backend": "none"},
            "name": "other",
            "encoder": None,
            "telemetry": {"log_level": "DEBUG"},
        },
        "head": POD,
        "groups": {"front": {"pod": POD}},
        "placement": dict.fromkeys(("ingress", "router", "expert", "shared"), "front"),
    },
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as `helm package` makes it, unpacked, with one more configuration: no link leads out of it."""
    folder = tmp_path_factory.mktemp("chart")
    made = helm("package", CHART, "--destination", folder)
    assert made.returncode == 0, made.stderr
    (packed,) = folder.glob("careedit-*.tgz")
    shutil.unpack_archive(packed, folder, filter="data")
    (folder / "careedit/files/config/plain.yaml").write_text(PLAIN, "utf-8")
    return folder / "careedit"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_chart_equals_the_overlay_object_by_object(overlay: str) -> None:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    expected = [document for document in yaml.load_all(printed(overlay), loader) if document]
    made = templated(*values_of(overlay), "--set", "namespace=true")
    assert compared(made) == compared(expected)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_chart_passes_helms_own_check(overlay: str) -> None:
    answer = helm("lint", CHART, "--strict", *values_of(overlay))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "1 chart(s) linted, 0 chart(s) failed" in answer.stdout


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_packed_chart_makes_of_any_cluster_what_careedit_k8s_render_makes(name: str, packed: Path) -> None:
    file = packed.parent / "cluster.yaml"
    file.write_text(yaml.safe_dump(CLUSTERS[name]), "utf-8")
    cluster, configs = Cluster(**CLUSTERS[name]), packed / "files/config"
    expected = compared([rayservice(cluster, configs), config_map(cluster, configs), *nightly_manifests(cluster)])
    made = compared(templated("--values", file, chart=packed))
    for one in made.values():
        assert one["metadata"].pop("namespace", "careedit") == "careedit"
    ray = {id_: one for id_, one in made.items() if id_ in expected}
    assert ray == expected
    assert ("CronJob/careedit-nightly" in made) == ("Role/careedit-nightly-starter" in made)


def test_names_of_namespaces_and_networks_reach_every_policy() -> None:
    words = [
        "namespaces.operator=one",
        "namespaces.monitoring=two",
        "namespaces.gateway=three",
        "store_networks={10.9.0.0/16}",
    ]
    texts = ["region=r", "storage_class=fast", "edge.hostname=edits.example.org", "edge.gateway_class=envoy"]
    options = [word for setting in words + texts for word in ("--set", setting)]
    made = {id_: json.dumps(one) for id_, one in compared(templated(*GPU, *options)).items()}
    policies = "".join(text for id_, text in made.items() if id_.startswith("NetworkPolicy/"))
    assert all(f'metadata.name": "{name}"' in policies for name in ("one", "two", "three"))
    assert not any(f'metadata.name": "{name}"' in policies for name in ("kuberay", "monitoring", "istio-system"))
    assert "10.9.0.0/16" in made["NetworkPolicy/to-stores"]
    claims = [text for id_, text in made.items() if id_.startswith("PersistentVolumeClaim/")]
    assert len(claims) == 2 and all('"storageClassName": "fast"' in text for text in claims)
    assert '"topology.kubernetes.io/region": "r"' in made["Job/pull-models"]
    assert "edits.example.org" in made["Gateway/careedit-edge"] and "envoy" in made["Gateway/careedit-edge"]
    assert "edits.example.org" in made["HTTPRoute/careedit-edge"]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("groups.front.max_pod=3", "at '/groups/front': additional properties 'max_pod' not allowed"),
        ("groups.front.pod.memory=much", "at '/groups/front/pod/memory': 'much' does not match pattern"),
        ("stores=mine", "at '/stores': value must be one of 'managed', 'dev'"),
        ("settings.limits.deadline_s=soon", "at '/settings/limits/deadline_s': got string, want number"),
        ("settings.limit.deadline_s=9", "at '/settings': additional properties 'limit' not allowed"),
        ("image=careedit", "at '/image': 'careedit' does not match pattern"),
        ("config=other.yaml", 'config is "other.yaml", and the chart has no such file'),
        ("placement.router=back", 'placement puts router into the group "back", which does not exist'),
        ("placement.encoder=front", "placement and klein.yaml must both name the encoder, or neither"),
        ("groups.front.min_pods=9", "groups.front: min_pods is 9 and max_pods 4"),
        ("nightly.deadline_s=90000", "deadline_s of nightly is 90000; give less than a day"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting: str, named: str) -> None:
    answer = helm("template", "careedit", CHART, *GPU, "--set", setting)
    assert answer.returncode != 0 and answer.stdout == ""
    assert named in answer.stderr


def test_a_chart_without_a_cluster_says_what_is_missing() -> None:
    answer = helm("template", "careedit", CHART)
    assert answer.returncode != 0
    assert all(f"at '/{name}'" in answer.stderr for name in ("groups", "head", "image"))


def test_the_listed_defaults_are_those_of_the_record_and_every_value_is_listed() -> None:
    listed = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert set(listed) == set(Chart.model_fields)
    required = {name: listed.pop(name) for name in ("config", "image", "head", "groups", "placement")}
    assert not any(required.values())
    made = Chart(**yaml.safe_load((ROOT / "k8s/overlays/gpu/cluster.yaml").read_text("utf-8"))).model_dump(mode="json")
    defaults = Chart.model_construct().model_dump(mode="json") | {"settings": {}, "environment": {}}
    assert listed == {name: defaults[name] for name in listed}
    assert set(made) == set(Chart.model_fields)


def test_helm_says_after_an_installation_what_is_left_to_do() -> None:
    answer = helm("install", "careedit", CHART, "--dry-run=client", "--namespace", "edits", *values_of("local"))
    assert answer.returncode == 0, answer.stderr
    notes = answer.stdout.split("NOTES:")[1]
    assert "--namespace edits" in notes and "careedit k8s secrets | kubectl apply" in notes
