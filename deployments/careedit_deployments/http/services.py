"""`Services`: everything that the routes use. `assemble` makes them for one ingress process and starts nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from anyio.to_thread import run_sync
from starlette.requests import Request

from careedit_deployments.ab.guard import ArmGuard
from careedit_deployments.ab.shadow import Shadowing
from careedit_deployments.config import ServeConfig
from careedit_deployments.credentials import open_marking, open_signing
from careedit_deployments.edits.backend import Backend
from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.edits.sessions import Sessions
from careedit_deployments.http.auth import Caller
from careedit_deployments.http.limits import Limiter
from careedit_deployments.jobs.background import background
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.policy.hook import PolicyHook
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.pseudonyms import Pseudonyms
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import CARRIED, Tracing

Hook = Callable[[], AbstractAsyncContextManager[object]]
"""Makes a context that is entered when the server starts and left when it stops."""


@dataclass(frozen=True)
class Services:
    """What `create_app` is given."""

    config: ServeConfig
    """The configuration of the application."""
    backend: Backend
    """Routes, edits and scores, over the cluster or in this process."""
    edits: EditService
    """Accepts orders and runs them; every edit goes through it."""
    store: Store
    """The database: keys, edits, jobs, sessions, feedback."""
    blobs: BlobStore
    """The image files that belong to rows of the database."""
    users: Pseudonyms
    """Makes the stored names of end users."""
    metrics: Metrics
    """Counters and histograms of this process."""
    codecs: Codecs
    """Decoders and encoders of images, and the memory that decoded images share."""
    tracing: Tracing
    """Makes spans and sends them."""
    stopping: Stopping
    """Says whether this replica is about to end."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """What an operator should look at, by part; the parts keep it up to date."""
    hooks: tuple[Hook, ...] = ()
    """What runs next to the routes (job workers, cleanup, closing the store), in the order in which it starts."""


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
    """Services with everything that runs next to the routes: the arms' guard, shadow copies, job workers, the cleanup.

    `hooks` are entered before those and left after them: use them to close the stores. `tracing`, made here by default, is
    shut down when everything that makes spans has ended. Raises `InputError` for credentials that cannot sign, and for a missing
    watermark key.
    """
    tracing = tracing or Tracing(config.telemetry, "ingress")
    stopping = Stopping()
    warnings: dict[str, str] = {}
    users = Pseudonyms(config.state, blobs)
    policy = PolicyHook(config.policy, metrics)
    signing, marking = open_signing(config.credentials), open_marking(config.watermark)
    codecs = Codecs(config.limits.picture_memory, signing=signing, marking=marking)
    guard = ArmGuard(config.arms, store, metrics)
    shadowing = Shadowing(config, backend, store, metrics, disabled_arms=guard.disabled_arms)
    edits = EditService(
        config,
        backend,
        metrics,
        store.edits,
        arms=store.arms,
        tracing=tracing,
        policy=policy,
        disabled_arms=guard.disabled_arms,
        observers=(guard, shadowing),
    )
    jobs = partial(
        background, config, edits, store, blobs, metrics, codecs=codecs, stopping=stopping, warnings=warnings
    )
    return Services(
        config=config,
        backend=backend,
        edits=edits,
        store=store,
        blobs=blobs,
        users=users,
        metrics=metrics,
        codecs=codecs,
        tracing=tracing,
        stopping=stopping,
        warnings=warnings,
        hooks=(*hooks, _shut_down(tracing), policy.running, guard.running, shadowing.running, jobs),
    )


def _shut_down(tracing: Tracing) -> Hook:
    """A hook that sends the remaining spans when it is left."""

    @asynccontextmanager
    async def ending() -> AsyncIterator[None]:
        yield
        await run_sync(tracing.shut_down)  # waits for the receiver

    return ending


def services_of(request: Request) -> Services:
    """The services of the app that handles `request`."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def limiter_of(request: Request) -> Limiter:
    """The limiter of the app that handles `request`."""
    limiter = request.app.state.limiter
    assert isinstance(limiter, Limiter)
    return limiter


def sessions_of(request: Request) -> Sessions:
    """The sessions of the app that handles `request`."""
    sessions = request.app.state.sessions
    assert isinstance(sessions, Sessions)
    return sessions


def caller_of(request: Request) -> Caller:
    """The caller of `request`; the anonymous caller on a route that needs no key."""
    caller = request.scope.get("careedit.caller")
    return caller if isinstance(caller, Caller) else Caller()


async def user_of(request: Request, name: str | None) -> str | None:
    """What is stored of the caller's name for an end user."""
    caller = caller_of(request)
    return await services_of(request).users.stored(caller.id, name, clear=caller.clear_names)


def request_id_of(request: Request) -> str:
    """The id of `request`: the client's own, or a new one."""
    return str(request.scope.get("careedit.request_id", ""))


def trace_headers_of(request: Request) -> dict[str, str]:
    """The headers that continue the trace of `request`: those of its own span, or what the client sent."""
    carried = request.scope.get("careedit.trace_headers")
    if isinstance(carried, dict):
        return carried
    return {name: request.headers[name] for name in CARRIED if name in request.headers}
