"""`create_app`: the FastAPI application over its services. It imports no torch, so that an ingress replica stays light."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request

import careedit
from careedit.errors import CareEditError
from careedit_deployments.edits.sessions import Sessions
from careedit_deployments.http import (
    batches,
    edits,
    feedback,
    files,
    job_events,
    jobs,
    output,
    pages,
    scores,
    sessions,
    status,
    users,
    webhooks,
)
from careedit_deployments.http.admission import AdmissionMiddleware, HeadAndEncodingMiddleware
from careedit_deployments.http.auth import keys_required
from careedit_deployments.http.batch_worker import working_on_batches
from careedit_deployments.http.errors import on_careedit_error, on_http_error, on_validation_error
from careedit_deployments.http.limits import Limiter
from careedit_deployments.http.logins import REPORT_S, Authenticator, FailedLogins
from careedit_deployments.http.openapi import add_schemas
from careedit_deployments.http.origins import Origins
from careedit_deployments.http.pictures import release_pictures
from careedit_deployments.http.reading import close_form
from careedit_deployments.http.revocation import CHECK_S, TOUCH_S, Revocation
from careedit_deployments.http.services import Services

logger = logging.getLogger(__name__)

ROUTERS = tuple(
    part.router
    for part in (
        edits,
        output,
        jobs,
        job_events,
        files,
        batches,
        webhooks,
        sessions,
        users,
        status,
        scores,
        feedback,
        pages,
    )
)

ABOUT: dict[str, Any] = {
    "title": "careedit",
    "version": careedit.__version__,
    "summary": "Instruction-based image editing with routed LoRA experts.",
}
"""What the OpenAPI document says of the server."""

EXPOSED = ("x-request-id", "x-careedit-edit", "x-careedit-arm", "retry-after", "location", "idempotency-replayed")
"""Response headers that pages of other origins may read."""


def create_app(services: Services) -> FastAPI:
    """The application. Nothing starts before its lifespan, which enters `services.hooks`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for hook in services.hooks:
                await stack.enter_async_context(hook())
            for seconds, work in (
                (CHECK_S, revocation.check),
                (TOUCH_S, revocation.touch),
                (REPORT_S, failures.report),
            ):
                await stack.enter_async_context(_every(seconds, work))
            await stack.enter_async_context(working_on_batches(app, services))
            yield

    config, store = services.config, services.store
    revocation, failures = Revocation(store.keys), FailedLogins(store.keys, store.audit)
    app = FastAPI(
        **ABOUT,
        root_path=config.http.root_path,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts from other servers; ours is in `pages`
        redoc_url=None,
    )
    app.state.services = services
    app.state.limiter = limiter = Limiter(config.limits, places=config.ingress.max_ongoing_requests)
    services.stopping.watch(lambda: limiter.in_progress)
    app.state.sessions = Sessions(
        services.edits,
        services.store,
        services.blobs,
        services.metrics,
        services.codecs,
        ttl_s=config.state.session_ttl_s,
        max_s=config.state.session_max_s,
    )
    app.add_middleware(HeadAndEncodingMiddleware)
    app.add_middleware(
        AdmissionMiddleware,
        authenticator=Authenticator(store.keys, failures, required=keys_required(config)),
        limiter=app.state.limiter,
        limits=config.limits,
        metrics=services.metrics,
        tracing=services.tracing,
        stopping=services.stopping,
        origins=None if keys_required(config) else Origins(config.http),
        revocation=revocation,
        region=config.region,
    )
    if config.http.cors:  # outermost: refusals also get its headers, and a preflight needs no key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.http.cors,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    app.add_exception_handler(CareEditError, on_careedit_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(_close_form), Depends(release_pictures)])
    _describe(app, keys_required(config))
    return app


@asynccontextmanager
async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Do `work` every so many seconds while the block lasts, and once at its end."""

    async def do() -> None:
        try:
            await work()
        except CareEditError as error:  # the database does not answer; the next time may succeed
            logger.warning("A background task of the HTTP server failed: %s", error)

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            await do()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await do()


async def _close_form(request: Request) -> AsyncIterator[None]:
    """Close the files of a form at the end of its request; FastAPI does not, because the routes read their bodies themselves."""
    try:
        yield
    finally:
        await close_form(request)


def api_document() -> dict[str, Any]:
    """The OpenAPI document of a server that requires keys. It needs no server."""
    app = FastAPI(**ABOUT)
    for router in ROUTERS:
        app.include_router(router)
    return add_schemas(app.openapi(), key_required=True)


def _describe(app: FastAPI, key_required: bool) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = add_schemas(generate(), key_required=key_required)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
