"""`assemble`: the services of one ingress process, from its backend and its stores. Starts nothing; the app's lifespan does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import run_sync

from careedit_deployments.ab.guard import ArmGuard
from careedit_deployments.ab.shadow import Shadowing
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.backend import Backend
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.http.services import Hook, Services
from careedit_deployments.jobs.background import background_hook
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import Tracing


def assemble(
    config: ServeConfig,
    backend: Backend,
    store: Store,
    blobs: BlobStore,
    metrics: Metrics,
    *,
    tracing: Tracing | None = None,
    hooks: tuple[Hook, ...] = (),
) -> Services:
    """Services with everything that runs beside the routes: the arms' guard, shadow copies, job workers, the cleanup.

    `hooks` are entered before those and left after them: what closes the stores belongs there. `tracing`, made here if none
    is given, is shut down when everything that makes spans has ended.
    """
    tracing = tracing or Tracing(config.telemetry, "ingress")
    stopping = Stopping()
    guard = ArmGuard(config.arms, store, metrics)
    shadowing = Shadowing(config, backend, store, metrics, disabled_arms=guard.disabled_arms)
    edits = EditService(
        config,
        backend,
        metrics,
        store.edits,
        arms=store.arms,
        tracing=tracing,
        disabled_arms=guard.disabled_arms,
        observers=(guard, shadowing),
    )
    return Services(
        config=config,
        backend=backend,
        edits=edits,
        store=store,
        blobs=blobs,
        metrics=metrics,
        tracing=tracing,
        stopping=stopping,
        hooks=(
            *hooks,
            _ending(tracing),
            guard.running,
            shadowing.running,
            background_hook(config, edits, store, blobs, metrics, stopping),
        ),
    )


def _ending(tracing: Tracing) -> Hook:
    """A hook that sends what is left of the spans when it is left."""

    @asynccontextmanager
    async def ending() -> AsyncIterator[None]:
        yield
        await run_sync(tracing.shut_down)  # waits for the receiver

    return ending
