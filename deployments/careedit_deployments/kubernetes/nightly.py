"""The nightly benchmark: a RayCronJob, or for older operators a CronJob that makes a RayJob and waits for it."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from careedit.errors import InputError
from careedit_deployments.kubernetes.cluster import Cluster, Nightly
from careedit_deployments.kubernetes.pods import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    WITH_TOKEN,
    Manifest,
    head_template,
    labels,
    manifest,
    reach_stores,
    region,
)
from careedit_deployments.kubernetes.rayservice import AUTH, RAY_VERSION, worker_group

NAME = "careedit-nightly"
KUBECTL = "registry.k8s.io/kubectl:v1.34.2"
"""Image that contains only kubectl, without a shell."""

_SMALL = {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "1Gi"}


def nightly_manifests(cluster: Cluster) -> list[Manifest]:
    """Manifests of the nightly benchmark of a cluster; empty if the cluster has no benchmark."""
    if cluster.nightly is None:
        return []
    if cluster.nightly.kind == "RayCronJob":
        return [_ray_cron_job(cluster, cluster.nightly)]
    return [_rayjob_config(cluster, cluster.nightly), _cron_job(cluster, cluster.nightly)]


def ray_job_spec(cluster: Cluster, nightly: Nightly) -> Manifest:
    """A RayJob: a small cluster that runs one command. All of it is deleted `keep_s` seconds after the end."""
    alone = cluster.model_copy(update={"head": nightly.head})
    head = head_template(alone)
    head["metadata"] = {"labels": labels("nightly")}
    reach_stores(head["spec"]["containers"][0], cluster)
    head["spec"]["automountServiceAccountToken"] = False  # this cluster has no autoscaler
    head["spec"]["serviceAccountName"] = "careedit-nightly"
    head["spec"]["priorityClassName"] = "careedit-batch"
    _with_results(head)
    workers = []
    if nightly.workers is not None:
        group = worker_group(cluster, "nightly", nightly.workers, serves=False)
        group["template"]["spec"] |= {"priorityClassName": "careedit-batch", "serviceAccountName": "careedit-nightly"}
        _with_results(group["template"])
        workers.append(group)
    return {
        "entrypoint": shlex.join(nightly.command),
        "submissionMode": "K8sJobMode",  # the submitter pod has the log and exit code of the run
        "backoffLimit": 0,  # a second try would judge other traffic; `careedit eval` itself resumes
        "activeDeadlineSeconds": nightly.deadline_s,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": nightly.keep_s,
        "submitterConfig": {"backoffLimit": 0},
        "submitterPodTemplate": _submitter(cluster),
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            "authOptions": AUTH,
            "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": head},
            "workerGroupSpecs": workers,
        },
    }


def _ray_cron_job(cluster: Cluster, nightly: Nightly) -> Manifest:
    if nightly.deadline_s >= 24 * 3600:
        # RayCronJob has no concurrencyPolicy: only a deadline below the period prevents overlapping runs.
        raise InputError(f"deadline_s of nightly is {nightly.deadline_s}; give less than a day, or two runs overlap.")
    template = ray_job_spec(cluster, nightly)
    spec = {"schedule": nightly.schedule, "timeZone": nightly.time_zone, "jobTemplate": template}
    return manifest("ray.io/v1", "RayCronJob", NAME, "nightly", spec=spec)


def _rayjob_config(cluster: Cluster, nightly: Nightly) -> Manifest:
    job = manifest("ray.io/v1", "RayJob", NAME, "nightly", spec=ray_job_spec(cluster, nightly))
    data = {"rayjob.yaml": yaml.safe_dump(job, sort_keys=False)}
    return manifest("v1", "ConfigMap", f"{NAME}-rayjob", "nightly", data=data)


def _cron_job(cluster: Cluster, nightly: Nightly) -> Manifest:
    job = f"rayjob/{NAME}"
    ended = ["wait", job, "--for=jsonpath={.status.endTime}", f"--timeout={nightly.deadline_s}s"]
    succeeded = ["wait", job, "--for=jsonpath={.status.jobStatus}=SUCCEEDED", "--timeout=10s"]
    spec = {
        "serviceAccountName": "careedit-nightly-starter",
        "automountServiceAccountToken": True,
        "priorityClassName": "careedit-batch",
        "restartPolicy": "Never",
        "securityContext": POD_SECURITY,
        # Runs in sequence; the exit code of the last one is that of the run.
        "initContainers": [
            _kubectl("remove-last", ["delete", job, "--ignore-not-found", "--wait"]),
            _kubectl("start", ["create", "--filename", "/job/rayjob.yaml"]),
            _kubectl("wait", ended),
        ],
        "containers": [_kubectl("verdict", succeeded)],
        "volumes": [{"name": "job", "configMap": {"name": f"{NAME}-rayjob"}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": NAME, "labels": labels("nightly"), "annotations": WITH_TOKEN},
        "spec": {
            "schedule": nightly.schedule,
            "timeZone": nightly.time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 7,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": nightly.deadline_s + 600,
                    "ttlSecondsAfterFinished": nightly.keep_s,
                    "template": {"metadata": {"labels": labels("nightly-starter")}, "spec": spec | region(cluster)},
                }
            },
        },
    }


def _kubectl(name: str, command: list[str]) -> Manifest:
    return {
        "name": name,
        "image": KUBECTL,
        "imagePullPolicy": "IfNotPresent",
        "args": command,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "job", "mountPath": "/job", "readOnly": True}],
    }


def _submitter(cluster: Cluster) -> Manifest:
    container = {
        "name": "ray-job-submitter",
        "image": cluster.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": _SMALL, "limits": dict(_SMALL)},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "serviceAccountName": "careedit-nightly",
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    return {"metadata": {"labels": labels("nightly")}, "spec": spec | region(cluster)}


def _with_results(template: dict[str, Any]) -> None:
    """Mount the volume with tables and reports."""
    claim = {"name": "results", "persistentVolumeClaim": {"claimName": "careedit-results"}}
    template["spec"]["volumes"].append(claim)
    template["spec"]["containers"][0]["volumeMounts"].append({"name": "results", "mountPath": "/results"})
