"""The ingress deployment: the FastAPI application with a `RayBackend`, the store, and the job workers. No torch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ray import serve

from careedit_deployments.cluster.fleet import Fleet
from careedit_deployments.cluster.ray_backend import RayBackend
from careedit_deployments.config import ServeConfig
from careedit_deployments.http.app import create_app
from careedit_deployments.http.services import assemble
from careedit_deployments.state.blobs import open_blobs
from careedit_deployments.state.store import open_store
from careedit_deployments.telemetry.logs import set_up_logging
from careedit_deployments.telemetry.metrics import Metrics, ray_factory
from careedit_deployments.telemetry.tracing import Tracing


@serve.ingress()
class Ingress:
    """A replica of the ingress, which serves HTTP."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, config: Mapping[str, Any], *, fleet: Mapping[str, Any], parts: object
    ) -> None:
        """`fleet` is the first fleet. `parts` are the other deployments; Serve deploys them because they are arguments."""
        self._config = ServeConfig(**config)
        set_up_logging(self._config.telemetry)
        self._metrics = Metrics(ray_factory, cost_per_gpu_hour=self._config.telemetry.cost_per_gpu_hour)
        app_name = serve.get_replica_context().app_name
        self._backend = RayBackend(
            Fleet(**fleet),
            lambda name: serve.get_deployment_handle(name, app_name),
            app_name=app_name,
            metrics=self._metrics,
            hang_s=self._config.hang_s,
        )
        self._store = await open_store(self._config.state)

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Ray once the replica is constructed; returns the application."""
        config, store = self._config, self._store

        @asynccontextmanager
        async def closing() -> AsyncIterator[None]:
            yield
            await store.close()

        @asynccontextmanager
        async def decoding() -> AsyncIterator[None]:
            async with services.codecs.warming():
                yield

        tracing = Tracing(config.telemetry, "ingress")
        blobs = open_blobs(config.state)
        hooks = (closing, decoding)
        services = assemble(config, self._backend, store, blobs, self._metrics, tracing=tracing, hooks=hooks)
        self._stopping = services.stopping
        app = create_app(services)
        return app

    async def begin_stopping(self) -> int:
        """Accept no new requests and jobs from now on. Returns how many are still in progress; may be called again."""
        self._stopping.begin()
        return self._stopping.left

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Serve another fleet, after experts were added, replaced or removed."""
        self._backend.change(Fleet(**user_config))
