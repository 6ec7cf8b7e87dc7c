"""`DeploymentConfig`: the part of a configuration that every deployment has."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from careedit.errors import InputError
from careedit.record import Record


class Scaling(Record):
    """Number of replicas of a deployment, and when it changes."""

    min_replicas: NonNegativeInt = 1
    """Minimum number of replicas; default 1. 0 lets an idle deployment stop all its replicas; the next request then
    waits for a start."""
    max_replicas: PositiveInt = 1
    """Maximum number of replicas; default 1. Raise it to let a deployment grow under load."""
    target_step_seconds: PositiveFloat = 10.0
    """For expert deployments: target amount of queued denoising per replica, in seconds; default 10. Lower it for
    shorter queues with more replicas."""
    target_ongoing_requests: PositiveFloat = 2.0
    """For other deployments: target number of requests in progress per replica; default 2. Lower it for shorter
    queues with more replicas."""
    upscale_delay_s: NonNegativeFloat = 10.0
    """Time of overload before replicas are added, in seconds; default 10. Raise it if short peaks start replicas."""
    downscale_delay_s: NonNegativeFloat = 300.0
    """Time of underload before a replica is removed, in seconds; default 300. Raise it if replicas start slowly."""

    @model_validator(mode="after")
    def _check_order(self) -> Scaling:
        if self.min_replicas > self.max_replicas:
            raise InputError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}; give a range that rises."
            )
        return self


class DeploymentConfig(Record):
    """Replicas of one deployment: number, resources, and health checks."""

    scaling: Scaling = Scaling()
    """Number of replicas, and when it changes; default: one replica."""
    num_cpus: NonNegativeFloat = 1.0
    """CPUs that Ray reserves per replica; default 1. This is bookkeeping for placement and does not limit the
    process."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves per replica; default 0. A fraction lets several replicas share a GPU."""
    resources: Mapping[str, PositiveFloat] = Field(default_factory=dict)
    """Ray's custom resources that a replica reserves, by name. Empty by default; use it to place replicas on
    certain nodes."""
    threads: PositiveInt | None = None
    """Number of torch threads per replica on a CPU. Default: `num_cpus`, at least 1."""
    max_ongoing_requests: PositiveInt = 8
    """Maximum number of requests that a replica processes at once; default 8. For an expert: edits in its step
    scheduler."""
    max_queued_requests: NonNegativeInt = 32
    """Maximum number of requests per caller that wait for a free replica; default 32. Further requests get status
    429."""
    graceful_shutdown_s: PositiveFloat = 120.0
    """Time that a replica has to finish its work when it stops, in seconds; default 120. Set it above the duration
    of the longest edit."""
    health_check_period_s: PositiveFloat = 10.0
    """Time between two health checks, in seconds; default 10."""
    health_check_timeout_s: PositiveFloat = 30.0
    """Time limit of a health check, in seconds; default 30. Raise it if busy replicas are restarted."""
