"""Every overlay builds, fits the schemas of Kubernetes and KubeRay, and breaks none of the project's own rules."""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate import utils

from careedit_deployments.kubernetes.command import KEYS, dev_secrets
from manifests import OVERLAYS, as_pod, manifests, of_kind, pods, printed

KUBERNETES = ("1.33", "1.37")
CUSTOM = ("ray.io", "gateway.networking.k8s.io", "monitoring.coreos.com", "external-secrets.io")
STORES = ("postgres", "redis", "object-store", "mlflow")


@cache
def fits_schema(manifest: str, version: str) -> None:
    """Hold an object (as JSON) to the schema, once for all overlays that have it."""
    kubernetes_validate.validate(json.loads(manifest), version, strict=True)


@pytest.fixture(autouse=True, scope="module")
def _schemas_are_read_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kubernetes_itself_defines_fits_its_schema_to_the_last_field(overlay: str) -> None:
    checked = 0
    for one in manifests(overlay):
        if one["apiVersion"].split("/")[0] not in CUSTOM:
            for version in KUBERNETES:
                fits_schema(json.dumps(one), version)
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_inside_custom_resources_fit_the_schema_too(overlay: str) -> None:
    inside = {name: template for name, template in pods(overlay).items() if name.startswith("Ray")}
    assert len(inside) >= 4
    for name, template in inside.items():
        fits_schema(json.dumps(as_pod(name, template)), KUBERNETES[-1])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_resources_fit_kuberays_own_schema(overlay: str) -> None:
    folder = os.environ.get("KUBERAY_CRDS")
    if folder is None:
        pytest.skip("KUBERAY_CRDS names no folder with KubeRay's helm-chart/kuberay-operator/crds")
    found = of_kind(overlay, "RayService", "RayCronJob", "RayJob")
    assert len(found) == 2
    for one in found:
        schema = _kuberay(Path(folder), one["kind"])
        flaws = Draft202012Validator(schema).iter_errors(one)
        assert [f"{flaw.json_path}: {flaw.message[:200]}" for flaw in flaws] == []
        wrong = {**one, "spec": {**one["spec"], "misspelt": 1}}
        assert not Draft202012Validator(schema).is_valid(wrong), "the schema is too lax to tell anything"


@cache
def _kuberay(folder: Path, kind: str) -> Any:
    text = (folder / f"ray.io_{kind.lower()}s.yaml").read_text("utf-8")
    definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    return _strict(version["schema"]["openAPIV3Schema"])


def _strict(schema: Any) -> Any:
    """The schema with unknown fields refused; the server would drop them without a word."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        loose = made.get("x-kubernetes-preserve-unknown-fields") or not made["properties"]
        whole = "kind" in made["properties"] and "metadata" in made["properties"]
        if not loose and not whole:
            made.setdefault("additionalProperties", False)
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_unprivileged_bounded_and_probed(overlay: str) -> None:
    templates = pods(overlay)
    assert len(templates) >= 6
    for where, template in templates.items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0, where
        assert spec["serviceAccountName"] != "default" and "hostPath" not in str(spec["volumes"]), where
        assert not any(spec.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")), where
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            security, limits = container["securityContext"], container["resources"]["limits"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], where
            assert security["capabilities"] == {"drop": ["ALL"]}, where
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert {"cpu", "memory"} <= set(limits) and container["resources"]["requests"] == limits, where
        if where.startswith(("RayService", "StatefulSet")):
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(spec["containers"][0]), where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_who_talks_to_kubernetes_has_a_token(overlay: str) -> None:
    with_token = {
        where for where, template in pods(overlay).items() if template["spec"]["automountServiceAccountToken"]
    }
    allowed = {"RayService/careedit/head", "CronJob/careedit-nightly"}
    assert "RayService/careedit/head" in with_token and with_token <= allowed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_is_pinned_and_careedits_is_one(overlay: str) -> None:
    images = {
        container["image"]
        for template in pods(overlay).values()
        for container in (*template["spec"].get("initContainers", []), *template["spec"]["containers"])
    }
    assert [image for image in images if not re.fullmatch(r"[^:]+:[\w.-]+", image) or image.endswith(":latest")] == []
    assert len({image for image in images if re.search(r"(^|/)careedit:", image)}) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_lies_in_git_and_every_one_that_is_used_is_provided(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    used = {
        source["secretRef"]["name"]
        for template in pods(overlay).values()
        for container in (*template["spec"].get("initContainers", []), *template["spec"]["containers"])
        for source in container.get("envFrom", [])
    }
    keys = set(re.findall(r"secretKeyRef:\n\s+key: (\S+)\n\s+name: (\S+)", printed(overlay)))
    assert {name for _, name in keys} | used
    external = {
        one["spec"]["target"]["name"]: {entry["secretKey"] for entry in one["spec"]["data"]}
        for one in of_kind(overlay, "ExternalSecret")
    }
    provided = external or {
        one["metadata"]["name"]: set(one["stringData"]) for one in yaml.safe_load_all(dev_secrets())
    }
    assert used <= set(provided)
    assert [(key, name) for key, name in keys if key not in provided.get(name, set())] == []
    assert all(set(names) <= provided[secret] for secret, names in KEYS.items())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_denied_that_no_policy_allows(overlay: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_doors = {name for name, spec in policies.items() for rule in spec.get("ingress", []) if "from" not in rule}
    assert open_doors == {"gateway"}
    cluster_wide = {
        name
        for name, spec in policies.items()
        for rule in spec.get("egress", [])
        if not rule.get("ports")
        and any(not peer.get("podSelector") and "namespaceSelector" not in peer for peer in rule["to"])
    }
    assert cluster_wide == set()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_labels_that_policies_and_budgets_select_are_those_of_pods(overlay: str) -> None:
    components = {template["metadata"]["labels"]["app.kubernetes.io/component"] for template in pods(overlay).values()}
    named = set(re.findall(r"app\.kubernetes\.io/component: ([\w-]+)", printed(overlay)))
    listed = {
        value
        for one in of_kind(overlay, "NetworkPolicy")
        for expression in one["spec"]["podSelector"].get("matchExpressions", [])
        for value in expression.get("values", [])
    }
    elsewhere = {"service", "monitoring"}
    optional = {"expert", "shared", "encoder", "scorer", "nightly-starter"}  # small clusters lack them
    assert (named | listed) - components - elsewhere - optional == set()
    budgets = {
        one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        for one in of_kind(overlay, "PodDisruptionBudget")
    }
    serving = {where.split("/")[2] for where in pods(overlay) if where.startswith("RayService/")} - {"head"}
    assert serving <= budgets


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_claim_account_and_priority_that_a_pod_names_is_there(overlay: str) -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in manifests(overlay)}
    for where, template in pods(overlay).items():
        spec = template["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in there, where
        assert "priorityClassName" not in spec or ("PriorityClass", spec["priorityClassName"]) in there, where
        for volume in spec["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in there, where
            config = volume.get("configMap")
            assert config is None or ("ConfigMap", config["name"]) in there, where


def test_the_sovereign_overlay_pins_every_pod_disk_and_secret_to_its_region() -> None:
    region = {"topology.kubernetes.io/region": "eu-central-1"}
    for where, template in pods("sovereign").items():
        assert region.items() <= template["spec"].get("nodeSelector", {}).items(), where
    claims = of_kind("sovereign", "PersistentVolumeClaim")
    assert {one["spec"]["storageClassName"] for one in claims} == {"regional-eu-central-1"}
    stores = {one["spec"]["secretStoreRef"]["name"] for one in of_kind("sovereign", "ExternalSecret")}
    assert stores == {"careedit-eu-central-1"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_way_out_and_in_names_both_ends(overlay: str) -> None:
    peers = [
        peer
        for one in of_kind(overlay, "NetworkPolicy")
        for direction, end in (("egress", "to"), ("ingress", "from"))
        for rule in one["spec"].get(direction, [])
        for peer in rule.get(end, []) + ([{}] if direction == "egress" and end not in rule else [])
    ]
    assert len(peers) > 10
    assert [peer for peer in peers if peer in ({}, {"podSelector": {}}) or peer.get("namespaceSelector") == {}] == []


def test_the_sovereign_overlay_reaches_its_own_network_the_cluster_and_nothing_else() -> None:
    peers = [
        peer
        for one in of_kind("sovereign", "NetworkPolicy")
        for rule in one["spec"].get("egress", [])
        for peer in rule["to"]
    ]
    assert {peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer} == {"10.0.0.0/8"}
    namespaces = {name for peer in peers for name in peer.get("namespaceSelector", {}).get("matchLabels", {}).values()}
    assert namespaces == {"kube-system", "istio-system"}
    assert "webhook_secret_env" not in printed("sovereign")  # a webhook that cannot be sent is refused


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_ray_cluster_asks_for_a_token_and_encrypts_where_its_component_is_added(overlay: str) -> None:
    text = printed(overlay)
    assert text.count("authOptions:\n") == text.count("rayVersion:") >= 2
    assert text.count("tlsOptions:") == (text.count("rayVersion:") if overlay == "sovereign" else 0)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_ray_process_reports_its_use_not_even_that_reports_are_off(overlay: str) -> None:
    environments = [
        {one["name"]: one.get("value") for one in container.get("env", [])}
        for where, template in pods(overlay).items()
        if where.startswith("Ray") and not where.endswith("/submitter")
        for container in template["spec"]["containers"]
    ]
    assert len(environments) > 2
    for environment in environments:
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert environment["RAY_USAGE_STATS_REPORT_URL"].startswith("http://127.0.0.1")


def test_the_local_overlay_brings_its_stores_and_needs_no_gateway() -> None:
    services = {one["metadata"]["name"] for one in of_kind("local", "Service")}
    assert services == set(STORES)
    assert of_kind("local", "Gateway", "HTTPRoute", "PodMonitor", "ExternalSecret") == []
