"""`Cluster`: one strict file per overlay that says on what machines a `ServeConfig` runs; `rayservice` does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from careedit.errors import InputError
from careedit.files import read_yaml
from careedit.record import Record
from careedit_deployments.config import ServeConfig

Part = Literal["ingress", "router", "expert", "shared", "scorer"]
"""Kinds of replicas that can be placed."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""An amount as Kubernetes writes it: 500m, 2, 16Gi."""


class Pod(Record):
    """Size of a Ray pod. Requests equal limits: Ray counts on having what it was started with."""

    cpus: PositiveInt
    """CPUs."""
    gpus: NonNegativeInt = 0
    """Whole GPUs; their parts are shared out by Ray."""
    memory: Quantity
    """Memory."""
    disk: Quantity = "10Gi"
    """Local disk for Ray's session, logs and spilled objects."""
    shared_memory: Quantity = "2Gi"
    """Ray's object store; part of `memory`."""


class Group(Record):
    """A worker group: pods of one size that the autoscaler adds and takes away."""

    pod: Pod
    """Size of one pod."""
    min_pods: NonNegativeInt = 1
    """Pods that are always there; 0 for what is seldom used."""
    max_pods: PositiveInt = 1
    """Most pods."""
    idle_s: PositiveInt = 300
    """Seconds without work after which a pod goes."""
    node_selector: Mapping[str, str] = Field(default_factory=dict)
    """Labels of the nodes that it may run on."""

    @model_validator(mode="after")
    def _check_order(self) -> Group:
        if self.min_pods > self.max_pods:
            raise InputError(f"min_pods is {self.min_pods} and max_pods {self.max_pods}; give a range that rises.")
        return self


class Nightly(Record):
    """The benchmark of every night."""

    kind: Literal["RayCronJob", "CronJob"] = "RayCronJob"
    """"RayCronJob": KubeRay 1.7 schedules. "CronJob": Kubernetes does, and makes a RayJob; for older operators."""
    schedule: str = "0 2 * * *"
    """When, as cron writes it."""
    time_zone: str = "Etc/UTC"
    """Of `schedule`."""
    deadline_s: PositiveInt = 6 * 3600
    """Seconds after which a run is ended."""
    keep_s: PositiveInt = 7 * 24 * 3600
    """Seconds that a finished run stays visible."""
    command: tuple[str, ...]
    """What is run; its exit code is the job's."""
    head: Pod
    """The pod that drives it."""
    workers: Group | None = None
    """Pods that edit and score; None: the service edits, over HTTP."""


class Upgrade(Record):
    """How a change of pods (image, sizes) reaches a running service; a change of `ServeConfig` alone is made in place."""

    gateway_class: str = "istio"
    """Gateway API class that shifts the traffic."""
    step_percent: Annotated[int, Field(ge=1, le=100)] = 10
    """Traffic shifted at once."""
    interval_s: PositiveInt = 60
    """Seconds between shifts."""
    surge_percent: Annotated[int, Field(ge=1, le=100)] = 20
    """Capacity of the new cluster that is started ahead of its traffic."""


class Cluster(Record):
    """Where one deployment runs."""

    version: Literal[1] = 1
    """Format version of the file."""
    config: str
    """Name of the file in `deployments/config`."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """What differs from that file in this cluster; laid over it, key by key."""
    image: Annotated[str, Field(pattern=r"^[^:]+(:[0-9]+/[^:]+)?:[^:/]+$")]
    """Image of the pods, with its tag; the overlay's `images:` say the same for what is not generated."""
    head: Pod
    """The head: control only, no replicas."""
    groups: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,20}$")], Group]
    """Worker groups by name."""
    placement: Mapping[Part, str]
    """The group that each kind of replica runs in."""
    redis: str = "redis:6379"
    """Where Ray's control state is kept, so that the service outlives its head."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Variables of the pods that reach the stores (those of the ingress, and the nightly run's); no secrets in here."""
    models: bool = False
    """Whether the volume `model-cache` is mounted, read-only, at /models."""
    region: str | None = None
    """Region that every pod is pinned to; None: anywhere."""
    upgrade: Upgrade | None = None
    """Shift traffic step by step; None: the new cluster takes over at once when it is ready."""
    longest_edit_s: PositiveFloat = 300.0
    """Seconds that a pod may take to finish what it holds before it is killed."""
    nightly: Nightly | None = None
    """The benchmark of every night; None: there is none."""

    @model_validator(mode="after")
    def _check_placement(self) -> Cluster:
        for part, group in self.placement.items():
            if group not in self.groups:
                known = ", ".join(self.groups)
                raise InputError(
                    f"{part} is placed in the group {group!r}, which there is not; the groups are {known}."
                )
        return self

    @classmethod
    def from_yaml(cls, path: Path) -> Cluster:
        """Read a file. Raises `InputError`."""
        return cls(**read_yaml(path, "cluster file"))

    def serve_args(self, configs: Path) -> dict[str, Any]:
        """The `ServeConfig` of this cluster as plain data: file, `settings` over it, each replica tied to its group.

        A replica asks for a little of a resource that only the pods of its group have. Raises `InputError` where the
        result breaks the schema.
        """
        args = merge(read_yaml(configs / self.config, "configuration"), self.settings)
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
"""Part of a group's resource that a replica asks for: enough to be placed, too little to ever run out."""


def resource_of(group: str) -> str:
    """Name of the Ray resource that only the pods of a group have."""
    return f"group-{group}"


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings key by key, anything else replaced; None in `above` stays None."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old if isinstance(old, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return merged
