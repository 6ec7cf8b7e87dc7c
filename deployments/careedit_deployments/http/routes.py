"""`POST /v1/routes`: who would edit, and why; nothing is edited."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from careedit.records import RoutingDecision
from careedit.selection.plan import evaluations
from careedit_deployments.edits.edit_service import rows_of
from careedit_deployments.http.form import read_edit
from careedit_deployments.http.openapi import EDIT_BODIES, error_answers
from careedit_deployments.http.order import check_before_decoding, order_of
from careedit_deployments.http.schema import Answer
from careedit_deployments.http.services import services_of
from careedit_deployments.http.sse import unless_gone

router = APIRouter(tags=["models"])


class RouteAnswer(Answer):
    """Who would edit."""

    model: str
    """The arm that this user is assigned to."""
    expert_set: str
    """Its expert set."""
    routing: RoutingDecision
    """The experts, and why."""
    steps: int
    """Steps per image."""
    evaluations: int
    """Evaluations of the transformer that the edit would take, at most."""


@router.post(
    "/v1/routes",
    operation_id="createRoute",
    openapi_extra={"requestBody": EDIT_BODIES},
    responses=error_answers(400, 401, 404, 413, 415, 429, 500, 503),
)
async def explain_route(request: Request) -> RouteAnswer:
    """Take the body of an edit and tell who would make it. Nothing waits, nothing is kept."""
    services = services_of(request)
    found = await read_edit(request)
    check_before_decoding(services, found)
    order = await unless_gone(request, lambda: order_of(request, found))
    running = await unless_gone(request, lambda: services.edits.start(order))
    arm = services.backend.arms[running.arm]
    steps = order.request.steps or arm.steps
    return RouteAnswer(
        model=running.arm,
        expert_set=arm.expert_set,
        routing=running.decision,
        steps=steps,
        evaluations=evaluations(
            order.request.early_filter,
            n=order.request.n,
            steps=steps,
            rows=rows_of(running.decision, masked=order.request.mask is not None),
        ),
    )
