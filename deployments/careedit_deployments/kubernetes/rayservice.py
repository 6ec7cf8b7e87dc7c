"""The RayService (KubeRay 1.7) of a cluster, and the `serveConfigV2` in it; https://docs.ray.io/en/latest/cluster/kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from careedit_deployments.config import ServeConfig
from careedit_deployments.kubernetes.cluster import Cluster, Group, resource_of
from careedit_deployments.kubernetes.pods import (
    CONFIG,
    CONTAINER_SECURITY,
    METRICS_PORT,
    SERVE_PORT,
    Manifest,
    head_template,
    manifest,
    worker_template,
)

NAME = "careedit"
"""Name of the RayService. KubeRay names its Service `careedit-serve-svc`."""

IMPORT_PATH = "careedit_deployments.app:build_app"
RAY_VERSION = "2.60.0"

AUTH = {"mode": "token"}
"""`authOptions` of every Ray cluster: a caller that reaches its control plane can run code, so KubeRay gives each cluster a token of
its own, which the pods and the operator send."""


def rayservice(cluster: Cluster, configs: Path) -> Manifest:
    """The manifest; `configs` is the folder of `deployments/config`. Raises `InputError`."""
    spec: Manifest = {
        "serveConfigV2": yaml.safe_dump(serve_config(cluster, configs), sort_keys=False),
        "upgradeStrategy": _upgrade(cluster),
        "excludeHeadPodFromServeSvc": True,
        # During an upgrade the old cluster stays until its longest edit is done.
        "rayClusterDeletionDelaySeconds": int(cluster.longest_edit_s) + 60,
        "rayClusterConfig": {
            "rayVersion": RAY_VERSION,
            "authOptions": AUTH,
            "gcsFaultToleranceOptions": {
                "redisAddress": cluster.redis,
                "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "careedit-redis", "key": "password"}}},
            },
            **cluster_spec(cluster),
        },
    }
    return manifest("ray.io/v1", "RayService", NAME, "service", spec=spec)


def config_map(cluster: Cluster, configs: Path) -> Manifest:
    """The same `ServeConfig` as a file, /etc/careedit/serving/serve.yaml in the ingress pods."""
    data = {"serve.yaml": yaml.safe_dump(cluster.serve_args(configs), sort_keys=False)}
    return manifest("v1", "ConfigMap", CONFIG, "service", data=data)


def serve_config(cluster: Cluster, configs: Path) -> dict[str, Any]:
    """Serve's own configuration (`ServeDeploySchema`): the application and where it listens."""
    args = cluster.serve_args(configs)
    config = ServeConfig(**args)
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": "0.0.0.0",  # the network policy `serve` restricts access
            "port": SERVE_PORT,
            "request_timeout_s": config.limits.deadline_s + 30,  # longer than an edit's own deadline
            "keep_alive_timeout_s": 75,  # longer than a gateway's, which would otherwise send into a closed connection
        },
        "logging_config": {"encoding": "JSON", "log_level": config.telemetry.log_level, "enable_access_log": True},
        "applications": [{"name": config.name, "route_prefix": "/", "import_path": IMPORT_PATH, "args": args}],
    }


def cluster_spec(cluster: Cluster) -> Manifest:
    """Head, worker groups and autoscaler of the serving cluster."""
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": autoscaler(),
        "headGroupSpec": {
            # No CPUs: no replica runs on the head, so replicas cannot starve the control plane.
            "rayStartParams": {
                "num-cpus": "0",
                "dashboard-host": "0.0.0.0",
                "metrics-export-port": str(METRICS_PORT),
            },
            "template": head_template(cluster),
        },
        "workerGroupSpecs": [worker_group(cluster, name, group) for name, group in cluster.groups.items()],
    }


def worker_group(cluster: Cluster, name: str, group: Group, *, serves: bool = True) -> Manifest:
    """One worker group. Its pods have a resource of their own, which places replicas on them."""
    amounts = {"CPU": str(group.pod.cpus), resource_of(name): "1"}
    if group.pod.gpus:
        amounts["GPU"] = str(group.pod.gpus)
    return {
        "groupName": name,
        "replicas": group.min_pods,
        "minReplicas": group.min_pods,
        "maxReplicas": group.max_pods,
        "idleTimeoutSeconds": group.idle_s,
        "resources": amounts,
        "rayStartParams": {"metrics-export-port": str(METRICS_PORT)},
        "template": worker_template(cluster, name, group, serves=serves),
    }


def autoscaler() -> Manifest:
    """Ray's autoscaler, a container in the head pod."""
    amounts = {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi"}
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _upgrade(cluster: Cluster) -> Manifest:
    if cluster.upgrade is None:
        return {"type": "NewCluster"}
    return {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": cluster.upgrade.gateway_class,
            "stepSizePercent": cluster.upgrade.step_percent,
            "intervalSeconds": cluster.upgrade.interval_s,
            "maxSurgePercent": cluster.upgrade.surge_percent,
        },
    }
