"""Templates of the Ray pods as plain data: unprivileged, read-only root, with limits, probes and node selectors."""

from __future__ import annotations

from typing import Any

from careedit.cli.main import NO_TELEMETRY
from careedit_deployments.cluster.lifecycle import SERVING
from careedit_deployments.kubernetes.cluster import Cluster, Group, Pod

Manifest = dict[str, Any]

USER = 10001
"""User and group id of the containers. The Dockerfile creates them."""

SERVE_PORT, METRICS_PORT, DASHBOARD_PORT, GCS_PORT, AGENT_PORT = 8000, 8080, 8265, 6379, 52365

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFIG = "careedit-config"
"""ConfigMap with the `ServeConfig`, for commands in a pod (`careedit keys`, `careedit ab`); Serve itself gets it through `args`."""

WITH_TOKEN = {"checkov.io/skip1": "CKV_K8S_38=it talks to Kubernetes, and its Role allows little"}
"""Annotation for the policy check of pods that have a Kubernetes token."""

POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def head_template(cluster: Cluster) -> Manifest:
    """Template of the head pod: GCS, dashboard and autoscaler."""
    container = _container("ray-head", cluster, cluster.head)
    container["ports"] = _ports(gcs=GCS_PORT, dashboard=DASHBOARD_PORT, metrics=METRICS_PORT)
    healthy = {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}}
    container["startupProbe"] = {**healthy, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 60}
    container["readinessProbe"] = {**healthy, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 10}
    container["livenessProbe"] = {**healthy, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 12}
    spec = _spec(cluster, cluster.head, container, account="careedit-head", priority="careedit-control")
    return {"metadata": {"labels": labels("head"), "annotations": WITH_TOKEN}, "spec": spec}


def worker_template(cluster: Cluster, name: str, group: Group, *, serves: bool = True) -> Manifest:
    """Template of the pods of a worker group. With `serves`, a pod gets traffic while its Serve proxy is healthy."""
    container = _container("ray-worker", cluster, group.pod)
    if name == cluster.placement.get("ingress"):
        reach_stores(container, cluster)
    container["ports"] = _ports(serve=SERVE_PORT, metrics=METRICS_PORT) if serves else _ports(metrics=METRICS_PORT)
    alive = {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}}
    ready = {"httpGet": {"path": "/-/healthz", "port": SERVE_PORT}} if serves else alive
    container["startupProbe"] = {**alive, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 60}
    container["readinessProbe"] = {**ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 1}
    container["livenessProbe"] = {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 12}
    spec = _spec(cluster, group.pod, container, account="careedit-worker", priority="careedit-serving")
    spec["terminationGracePeriodSeconds"] = int(cluster.longest_edit_s) + 60
    if name == cluster.placement.get("ingress"):
        spec["volumes"].append({"name": "config", "configMap": {"name": CONFIG}})
        container["volumeMounts"].append({"name": "config", "mountPath": "/etc/careedit/serving", "readOnly": True})
    if group.node_selector:
        spec["nodeSelector"] = {**group.node_selector, **spec.get("nodeSelector", {})}
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels(name)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    return {"metadata": {"labels": labels(name)}, "spec": spec}


def region(cluster: Cluster) -> Manifest:
    """The part of a pod spec that pins the pod to the region of the cluster; empty without a region."""
    return {"nodeSelector": {"topology.kubernetes.io/region": cluster.region}} if cluster.region else {}


def reach_stores(container: Manifest, cluster: Cluster) -> None:
    """Give a container the addresses and secrets of database, object store and MLflow. Other containers do not get them."""
    container["env"] += [{"name": key, "value": value} for key, value in sorted(cluster.environment.items())]
    container["envFrom"] = [{"secretRef": {"name": "careedit-stores"}}]


def manifest(version: str, kind: str, name: str, component: str, **parts: Any) -> Manifest:
    """A manifest with the labels of its component. `parts` are its fields after `metadata`."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels(component)}, **parts}


def labels(component: str) -> dict[str, str]:
    """Labels for the selectors of policies, budgets and monitors. KubeRay adds its own."""
    return {"app.kubernetes.io/part-of": "careedit", "app.kubernetes.io/component": component}


def resources(pod: Pod) -> Manifest:
    """Requests and limits. They are equal, so that the pod is evicted last."""
    amounts = {"cpu": str(pod.cpus), "memory": pod.memory, "ephemeral-storage": pod.disk}
    if pod.gpus:
        amounts["nvidia.com/gpu"] = str(pod.gpus)
    return {"requests": amounts, "limits": dict(amounts)}


def _container(name: str, cluster: Cluster, pod: Pod) -> Manifest:
    environment = {
        "HOME": "/tmp",  # the only writable path, apart from volumes
        **SERVING,
        **NO_TELEMETRY,
        # A head that `ray start` made tells Ray's makers even that reports are off; nothing listens at this address.
        "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    }
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]
    if cluster.models:
        environment |= {"HF_HOME": "/models/hf", "HF_HUB_OFFLINE": "1"}
        mounts.append({"name": "models", "mountPath": "/models", "readOnly": True})
    return {
        "name": name,
        "image": cluster.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in sorted(environment.items())],
        "resources": resources(pod),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts,
    }


def _spec(cluster: Cluster, pod: Pod, container: Manifest, *, account: str, priority: str) -> Manifest:
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": pod.disk}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pod.shared_memory}},
    ]
    if cluster.models:
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": "model-cache", "readOnly": True}})
    spec: Manifest = {
        "serviceAccountName": account,
        # Only the autoscaler in the head pod talks to Kubernetes.
        "automountServiceAccountToken": account == "careedit-head",
        "priorityClassName": priority,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": volumes,
    }
    if pod.gpus:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return spec | region(cluster)


def _ports(**named: int) -> list[Manifest]:
    return [{"name": name, "containerPort": port} for name, port in named.items()]
