"""Serve deployments that only record telemetry, which must reach Prometheus and a receiver of spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve

from careedit.records import RoutingDecision
from careedit_deployments.config import Telemetry
from careedit_deployments.telemetry.metrics import Metrics, ray_factory
from careedit_deployments.telemetry.tracing import Tracing

DECISION = RoutingDecision(weights={"erase": 1.0}, entropy=0.3, router="rules", reason="It says remove.")


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Inner:
    """The place of an expert replica."""

    def __init__(self, telemetry: Mapping[str, Any]) -> None:
        self.metrics = Metrics(ray_factory, cost_per_gpu_hour=3600)
        self.tracing = Tracing(Telemetry(**telemetry), "expert")

    def edit(self, headers: Mapping[str, str]) -> None:
        """Record a batch."""
        with self.tracing.span("expert", headers, arm="a"):
            self.metrics.stepped("a", "erase", rows=4, seconds=2.0)
            self.metrics.holds("a", "erase", edits=3, step_seconds=7.5)


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Outer:
    """The place of the ingress."""

    def __init__(self, telemetry: Mapping[str, Any], inner: Any) -> None:
        self.metrics = Metrics(ray_factory)
        self.tracing = Tracing(Telemetry(**telemetry), "ingress")
        self.inner = inner

    async def edit(self, headers: Mapping[str, str]) -> None:
        """Record an edit here and its batch in `Inner`."""
        with self.tracing.span("request", headers, kind="server") as span:
            await self.inner.edit.remote(span.headers)
        self.metrics.edit_ended("a", "erase", "made", 14.0)
        self.metrics.routed("a", DECISION, 0.004)
        self.metrics.jobs_waiting(2)


def build(telemetry: Mapping[str, Any]) -> Any:
    """The application."""
    return Outer.bind(telemetry, Inner.bind(telemetry))
