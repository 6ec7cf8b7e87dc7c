"""`GET /v1/arms`: how the arms of the A/B test do, and the latest edits; the status page shows it."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request

from careedit_deployments.ab.status import ArmStatus, arm_statuses
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.schema import Answer
from careedit_deployments.http.services import services_of

router = APIRouter(tags=["models"], responses=error_answers(400, 401, 429, 500, 503))


class LatestEdit(Answer):
    """An edit that ended lately; nothing that leads to who asked or what for."""

    arm: str
    """Who edited."""
    shadow: bool
    """Whether it was a copy that nobody saw."""
    experts: dict[str, float]
    """Weight per expert."""
    outcome: str
    """How it ended."""
    seconds: float
    """From acceptance to the end."""
    score: float | None
    """The judge's overall score, where there is one."""
    created: float
    """When it was accepted, Unix time."""


class ArmList(Answer):
    """Every arm, shadows included, and the latest edits."""

    object: str = "list"
    """Always "list"."""
    data: list[ArmStatus]
    """In the configuration's order."""
    latest: list[LatestEdit]
    """Newest first."""


@router.get("/v1/arms", operation_id="listArms")
async def list_arms(
    request: Request,
    hours: Annotated[float | None, Query(gt=0, le=24 * 365, description="Only edits of the last hours.")] = None,
    limit: Annotated[int, Query(ge=0, le=100, description="How many of the latest edits.")] = 20,
) -> ArmList:
    """Traffic, edits, errors, the judge's mean, people's verdicts, and what was cut out of traffic and why."""
    services = services_of(request)
    since = 0.0 if hours is None else time.time() - 3600 * hours
    edits = await services.store.edits.latest(since=since, limit=limit) if limit else []
    return ArmList(
        data=await arm_statuses(services.config, services.store, since=since),
        latest=[
            LatestEdit(
                arm=edit.arm,
                shadow=edit.shadow_of is not None,
                experts=dict(edit.experts),
                outcome=edit.outcome,
                seconds=edit.seconds,
                score=edit.scores.get("overall") if edit.scores else None,
                created=edit.created,
            )
            for edit in edits
        ],
    )
