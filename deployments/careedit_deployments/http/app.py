"""`create_app`: the FastAPI application over its services. It imports no torch, so that an ingress replica stays light."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
    edits,
    feedback,
    job_events,
    jobs,
    output,
    pages,
    scores,
    sessions,
    status,
)
from careedit_deployments.http.admission import AdmissionMiddleware, HeadAndEncodingMiddleware
from careedit_deployments.http.auth import Authenticator, keys_required
from careedit_deployments.http.decoding import Decoding
from careedit_deployments.http.errors import on_careedit_error, on_http_error, on_validation_error
from careedit_deployments.http.limits import Limiter, picture_limits
from careedit_deployments.http.openapi import add_schemas
from careedit_deployments.http.pictures import release_pictures
from careedit_deployments.http.reading import close_form
from careedit_deployments.http.revocation import Revocation
from careedit_deployments.http.services import Services

ROUTERS = tuple(part.router for part in (edits, output, jobs, job_events, sessions, status, scores, feedback, pages))

EXPOSED = ("x-request-id", "x-careedit-edit", "x-careedit-arm", "retry-after", "location", "idempotency-replayed")
"""Response headers that pages of other origins may read."""


def create_app(services: Services) -> FastAPI:
    """The application. Nothing starts before its lifespan, which enters `services.hooks`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for hook in services.hooks:
                await stack.enter_async_context(hook())
            await stack.enter_async_context(revocation.running())
            yield

    config, revocation = services.config, Revocation(services.store.keys)
    app = FastAPI(
        title="careedit",
        version=careedit.__version__,
        summary="Instruction-based image editing with routed LoRA experts.",
        root_path=config.http.root_path,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts from other servers; ours is in `pages`
        redoc_url=None,
    )
    app.state.services = services
    app.state.limiter = limiter = Limiter(config.limits, places=config.ingress.max_ongoing_requests)
    services.stopping.watch(lambda: limiter.in_progress)
    app.state.decoding = Decoding(picture_limits(config.limits), config.limits.picture_memory)
    app.state.sessions = Sessions(
        services.edits, services.store, services.blobs, services.metrics, ttl_s=config.state.session_ttl_s
    )
    app.add_middleware(HeadAndEncodingMiddleware)
    app.add_middleware(
        AdmissionMiddleware,
        authenticator=Authenticator(services.store.keys, required=keys_required(config)),
        limiter=app.state.limiter,
        limits=config.limits,
        metrics=services.metrics,
        tracing=services.tracing,
        stopping=services.stopping,
        revocation=revocation,
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


async def _close_form(request: Request) -> AsyncIterator[None]:
    """Close the files of a form at the end of its request; FastAPI does not, because the routes read their bodies themselves."""
    try:
        yield
    finally:
        await close_form(request)


def _describe(app: FastAPI, key_required: bool) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = add_schemas(generate(), key_required=key_required)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
