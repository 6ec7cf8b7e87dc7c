"""`Services`: everything that the routes stand on, made by whoever starts the server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from starlette.requests import Request

from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.backend import Backend
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.edits.sessions import Sessions
from careedit_deployments.http.auth import Caller
from careedit_deployments.http.limits import Limiter
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import CARRIED, Tracing

Hook = Callable[[], AbstractAsyncContextManager[object]]
"""Makes something that is entered when the server starts and left when it stops."""


@dataclass(frozen=True)
class Services:
    """What `create_app` is given."""

    config: ServeConfig
    """The configuration."""
    backend: Backend
    """Routes, edits, scores."""
    edits: EditService
    """The one way to an edit."""
    store: Store
    """What is remembered."""
    blobs: BlobStore
    """Pictures that are remembered."""
    metrics: Metrics
    """What is counted."""
    tracing: Tracing
    """Where spans go."""
    stopping: Stopping
    """Whether this replica is about to end."""
    hooks: tuple[Hook, ...] = ()
    """What runs beside the routes (job workers, sweepers, the store's end), in the order in which it starts."""


def services_of(request: Request) -> Services:
    """The services of the app that handles `request`."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def limiter_of(request: Request) -> Limiter:
    """The limits of the app that handles `request`."""
    limiter = request.app.state.limiter
    assert isinstance(limiter, Limiter)
    return limiter


def sessions_of(request: Request) -> Sessions:
    """The sessions of the app that handles `request`."""
    sessions = request.app.state.sessions
    assert isinstance(sessions, Sessions)
    return sessions


def caller_of(request: Request) -> Caller:
    """Who makes `request`; nobody in particular on a route that needs no key."""
    caller = request.scope.get("careedit.caller")
    return caller if isinstance(caller, Caller) else Caller()


def request_id_of(request: Request) -> str:
    """The id of `request`: the client's own, or a fresh one."""
    return str(request.scope.get("careedit.request_id", ""))


def trace_headers_of(request: Request) -> dict[str, str]:
    """What carries the trace of `request` on: the span of the request itself, or what the client sent."""
    carried = request.scope.get("careedit.trace_headers")
    if isinstance(carried, dict):
        return carried
    return {name: request.headers[name] for name in CARRIED if name in request.headers}
