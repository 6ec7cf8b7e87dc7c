"""`GET /healthz` (does the process live) and `GET /readyz` (can it edit now)."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from careedit.errors import CareEditError
from careedit_deployments.http.schema import Answer
from careedit_deployments.http.services import services_of

router = APIRouter(tags=["health"])


class Health(Answer):
    """How the server is."""

    status: str
    """"ok" or "unavailable"."""
    reasons: dict[str, str] = Field(default={})
    """Per part why no edit could be made now."""


@router.get("/healthz", operation_id="health")
async def health() -> Health:
    """The process answers; it says nothing of what stands behind it, so a probe of liveness may ask."""
    return Health(status="ok")


@router.get("/readyz", operation_id="ready", response_model=Health, responses={503: {"model": Health}})
async def ready(request: Request) -> JSONResponse:
    """Whether an edit could be made now: replicas are up, the database answers."""
    services = services_of(request)
    reasons = dict(await services.backend.ready())
    try:
        await services.store.ping()
    except CareEditError as error:
        reasons["store"] = str(error)
    if services.stopping.begun:
        reasons["server"] = "The server is stopping."
    answer = Health(status="unavailable" if reasons else "ok", reasons=reasons)
    return JSONResponse(answer.model_dump(), 503 if reasons else 200)
