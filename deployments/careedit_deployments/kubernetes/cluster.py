"""`Cluster`: the strict file of an overlay, which says on which machines a `ServeConfig` runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from careedit.errors import InputError
from careedit.files import read_yaml
from careedit.record import Record
from careedit_deployments.config import ServeConfig

Part = Literal["ingress", "router", "expert", "shared", "encoder", "scorer"]
"""Kinds of replicas that a worker group can be chosen for."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""An amount in Kubernetes' notation: 500m, 2, 16Gi."""


class Pod(Record):
    """Size of a Ray pod. Requests equal limits, because Ray relies on the resources that it was started with."""

    cpus: PositiveInt
    """Number of CPUs of the pod."""
    gpus: NonNegativeInt = 0
    """Number of whole GPUs. Ray divides them among replicas. Default: 0."""
    memory: Quantity
    """Memory of the pod, such as 16Gi."""
    disk: Quantity = "10Gi"
    """Local disk for Ray's session, logs and spilled objects. Default: 10Gi."""
    shared_memory: Quantity = "2Gi"
    """Size of Ray's object store, which is part of `memory`. Default: 2Gi."""


class Group(Record):
    """A worker group: pods of one size, which the autoscaler adds and removes."""

    pod: Pod
    """Size of each pod of the group."""
    min_pods: NonNegativeInt = 1
    """Number of pods that always run. Use 0 for rarely used replicas. Default: 1."""
    max_pods: PositiveInt = 1
    """Maximum number of pods. Default: 1."""
    idle_s: PositiveInt = 300
    """Seconds without work after which a pod is removed. Default: 300."""
    node_selector: Mapping[str, str] = Field(default_factory=dict)
    """Labels of the nodes that the pods may run on. Default: any node."""

    @model_validator(mode="after")
    def _check_order(self) -> Group:
        if self.min_pods > self.max_pods:
            raise InputError(f"min_pods is {self.min_pods} and max_pods {self.max_pods}; min_pods must not be larger.")
        return self


class Nightly(Record):
    """The nightly benchmark."""

    kind: Literal["RayCronJob", "CronJob"] = "RayCronJob"
    """Who schedules the runs. "RayCronJob": KubeRay 1.7 or later. "CronJob": Kubernetes, for older KubeRay operators."""
    schedule: str = "0 2 * * *"
    """Time of the run, in cron's notation. Default: every day at 02:00."""
    time_zone: str = "Etc/UTC"
    """Time zone of `schedule`. Default: UTC."""
    deadline_s: PositiveInt = 6 * 3600
    """Seconds after which a run is stopped. Default: 6 hours."""
    keep_s: PositiveInt = 7 * 24 * 3600
    """Seconds for which Kubernetes keeps a finished run. Default: 7 days."""
    command: tuple[str, ...]
    """Command of the run. Its exit code is that of the job."""
    head: Pod
    """Size of the pod that runs the command."""
    workers: Group | None = None
    """Pods that edit and score. None: the run sends its edits to the service."""


class Upgrade(Record):
    """How a change of the pods (image, sizes) is rolled out. A change of `ServeConfig` alone is applied in place."""

    gateway_class: str = "istio"
    """Gateway API class that shifts the traffic. Default: istio."""
    step_percent: Annotated[int, Field(ge=1, le=100)] = 10
    """Percentage of the traffic that is shifted in one step. Default: 10."""
    interval_s: PositiveInt = 60
    """Seconds between two steps. Default: 60."""
    surge_percent: Annotated[int, Field(ge=1, le=100)] = 20
    """Percentage of the new cluster's capacity that starts before its traffic. Default: 20."""


class Cluster(Record):
    """Machines and stores of one deployment."""

    version: Literal[1] = 1
    """Format version of the file."""
    config: str
    """Name of the `ServeConfig` file in `deployments/config`."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of this cluster that replace those of `config`, key by key."""
    image: Annotated[str, Field(pattern=r"^[^:]+(:[0-9]+/[^:]+)?:[^:/]+$")]
    """Image of the pods, with tag. `images:` of the overlay sets it for manifests that are not generated."""
    head: Pod
    """Size of the head pod. It controls the cluster and runs no replicas."""
    groups: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,20}$")], Group]
    """Worker groups of the cluster, by name."""
    placement: Mapping[Part, str]
    """Name of the worker group for each kind of replica."""
    redis: str = "redis:6379"
    """Address of the Redis that stores Ray's control state, so that the service survives the loss of its head."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables of the pods that use the stores (ingress, nightly run). Do not put secrets here."""
    models: bool = False
    """Whether the volume `model-cache` is mounted read-only at /models. Default: no."""
    region: str | None = None
    """Region that all pods must run in. None: any region."""
    upgrade: Upgrade | None = None
    """Roll out changes step by step. None: the new cluster gets all traffic as soon as it is ready."""
    longest_edit_s: PositiveFloat = 300.0
    """Seconds that a pod may take to finish its edits before it is killed. Default: 300."""
    nightly: Nightly | None = None
    """The nightly benchmark. None: no benchmark."""

    @model_validator(mode="after")
    def _check_placement(self) -> Cluster:
        for part, group in self.placement.items():
            if group not in self.groups:
                known = ", ".join(self.groups)
                raise InputError(
                    f"placement puts {part} into the group {group!r}, which does not exist; choose one of {known}."
                )
        return self

    @classmethod
    def from_yaml(cls, path: Path) -> Cluster:
        """Read a file. Raises `InputError`."""
        return cls(**read_yaml(path, "cluster file"))

    def serve_args(self, configs: Path) -> dict[str, Any]:
        """The `ServeConfig` of this cluster as plain data: the file, changed by `settings`, with each replica tied to its group.

        A replica requests a small amount of a resource that only the pods of its group have. Raises `InputError` if the
        result does not fit the schema.
        """
        args = merge(read_yaml(configs / self.config, "configuration"), self.settings)
        if ("encoder" in self.placement) != (args.get("encoder") is not None):
            raise InputError(
                f"placement and {self.config} must both name the encoder, or neither; add `encoder` to one, or remove it."
            )
        for part, group in self.placement.items():
            tie = {"resources": {resource_of(group): TIE}}
            args = merge(args, {"scorer": {"deployment": tie}} if part == "scorer" else {part: tie})
            if part == "expert":
                own = {name: arm.get("experts", {}) for name, arm in args["arms"].items()}
                ties = {name: {"experts": dict.fromkeys(experts, tie)} for name, experts in own.items() if experts}
                args = merge(args, {"arms": ties})
        ServeConfig(**args)
        return args


TIE = 0.001
"""Amount of a group's resource that a replica requests: small, so that it never runs out."""


def resource_of(group: str) -> str:
    """Name of the Ray resource that only the pods of a group have."""
    return f"group-{group}"


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` updated by `above`: mappings are merged key by key, other values are replaced, also by None."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old if isinstance(old, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return merged
