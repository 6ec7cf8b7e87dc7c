"""`/v1/webhooks`: endpoints that get a message when a job ends; and `/v1/jobs/ID/deliveries`: what became of the messages."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.requests import Request

from careedit.errors import InputError
from careedit.net import MAX_URL
from careedit_deployments.edits.tenancy import check_webhook_host
from careedit_deployments.errors import ConflictError, FieldError
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.schema import Answer, Body, ListAnswer
from careedit_deployments.http.services import Services, caller_of, services_of
from careedit_deployments.jobs.webhooks import check_webhook_url, new_secret
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import WebhookRecord, new_id
from careedit_deployments.state.tenant_records import EndpointRecord

MAX_OVERLAP_S = 7 * 24 * 3600
"""Longest time for which an old secret stays valid, in seconds."""

router = APIRouter()


class EndpointBody(Body):
    """`POST /v1/webhooks`: a new endpoint."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)]
    """Address that gets a signed POST when a job of the tenant ends."""


class RotationBody(Body):
    """`POST /v1/webhooks/ID/rotate`: a new secret."""

    overlap_s: Annotated[int, Field(ge=0, le=MAX_OVERLAP_S)] = 24 * 3600
    """Time for which messages have a signature with the old secret as well, in seconds. Default: one day."""


class Endpoint(Answer):
    """A registered endpoint."""

    id: str
    """Id of the endpoint, for the routes below `/v1/webhooks`."""
    object: Literal["webhook.endpoint"] = "webhook.endpoint"
    """Type of the answer; always "webhook.endpoint"."""
    url: str
    """Address that gets the messages."""
    created_at: int
    """Time of registration, in Unix seconds."""
    secret: str | None = None
    """Secret that signs messages; only in the answer that makes it, else null."""
    old_secret_until: int | None = None
    """Time until which the old secret signs as well, in Unix seconds; null if no old secret is valid."""


class EndpointList(ListAnswer):
    """The endpoints of the tenant."""

    data: list[Endpoint]
    """The endpoints of the tenant, oldest first."""


class EndpointDeleted(Answer):
    """The answer to the deletion of an endpoint."""

    id: str
    """Id of the deleted endpoint."""
    object: Literal["webhook.endpoint.deleted"] = "webhook.endpoint.deleted"
    """Type of the answer; always "webhook.endpoint.deleted"."""
    deleted: bool = True
    """Always true, as in OpenAI's API."""


class Delivery(Answer):
    """A message about the end of a job, and what became of it."""

    id: str
    """Id of the message, the value of its `webhook-id` header."""
    object: Literal["webhook.delivery"] = "webhook.delivery"
    """Type of the answer; always "webhook.delivery"."""
    url: str
    """Address that the message is sent to."""
    endpoint: str | None
    """Id of the endpoint; null for the address of a single job."""
    status: Literal["pending", "delivered", "given_up"]
    """State of the message: "pending", "delivered" or "given_up"."""
    attempts: int
    """Number of times that the message was sent."""
    last_error: str | None
    """What went wrong at the last attempt; null if nothing did."""
    created_at: int
    """Time at which the job ended, in Unix seconds."""
    last_attempt_at: int | None
    """Time of the last attempt, in Unix seconds; null before the first one."""
    next_attempt_at: int | None
    """Time of the next attempt, in Unix seconds; null if no further one is planned."""


class DeliveryList(ListAnswer):
    """The messages about one job."""

    data: list[Delivery]
    """The messages, oldest first; empty if no address was registered when the job ended, or until it ends."""


_ENDPOINT_ERRORS = error_answers(400, 401, 404, 409, 413, 415, 429, 500, 503)
_ERRORS = error_answers(400, 401, 404, 429, 500, 503)


@router.post(
    "/v1/webhooks",
    tags=["webhooks"],
    operation_id="createWebhookEndpoint",
    status_code=201,
    responses=error_answers(400, 401, 409, 413, 415, 429, 500, 503),
)
async def create_endpoint(body: EndpointBody, request: Request) -> Endpoint:
    """Register an address for messages about every job of the tenant. The secret is shown only in this answer."""
    services, caller = services_of(request), caller_of(request)
    config = services.config.jobs
    if not config.webhook_endpoints:
        raise ConflictError("This server takes no webhook endpoints; poll the job or follow its events.")
    check_webhook_host(caller.policy, body.url)
    try:
        check_webhook_url(body.url, config.webhook_hosts)
    except InputError as error:
        raise FieldError(str(error), "url") from None
    endpoint = EndpointRecord(
        id=new_id("endpoint"), owner=caller.id, url=body.url, secret=new_secret(), created=unix_time()
    )
    await services.store.endpoints.add(endpoint, limit=config.webhook_endpoints)
    await services.store.audit.add(caller.actor, "webhook.added", endpoint.id)
    return _endpoint(endpoint, show=True)


@router.get(
    "/v1/webhooks",
    tags=["webhooks"],
    operation_id="listWebhookEndpoints",
    responses=error_answers(401, 429, 500, 503),
)
async def list_endpoints(request: Request) -> EndpointList:
    """List the endpoints of the tenant, without their secrets."""
    found = await services_of(request).store.endpoints.all(caller_of(request).id)
    return EndpointList(data=[_endpoint(endpoint) for endpoint in found])


@router.post(
    "/v1/webhooks/{endpoint_id}/rotate",
    tags=["webhooks"],
    operation_id="rotateWebhookSecret",
    responses=_ENDPOINT_ERRORS,
)
async def rotate_secret(endpoint_id: str, body: RotationBody, request: Request) -> Endpoint:
    """Give an endpoint a new secret, which is shown only in this answer. The old one signs as well for a while."""
    services, caller = services_of(request), caller_of(request)
    endpoint = await services.store.endpoints.rotate(
        endpoint_id, caller.id, new_secret(), overlap_s=float(body.overlap_s)
    )
    await services.store.audit.add(caller.actor, "webhook.rotated", endpoint_id)
    return _endpoint(endpoint, show=True)


@router.delete(
    "/v1/webhooks/{endpoint_id}",
    tags=["webhooks"],
    operation_id="deleteWebhookEndpoint",
    responses=_ERRORS,
)
async def delete_endpoint(endpoint_id: str, request: Request) -> EndpointDeleted:
    """Delete an endpoint. Messages to it that were not delivered yet are given up."""
    services, caller = services_of(request), caller_of(request)
    await services.store.endpoints.delete(endpoint_id, caller.id)
    await services.store.audit.add(caller.actor, "webhook.deleted", endpoint_id)
    return EndpointDeleted(id=endpoint_id)


@router.get("/v1/jobs/{job_id}/deliveries", tags=["jobs"], operation_id="listJobDeliveries", responses=_ERRORS)
async def list_deliveries(job_id: str, request: Request) -> DeliveryList:
    """List the messages about the end of a job, with their attempts and the last error."""
    return await _deliveries(services_of(request), job_id, caller_of(request).id)


@router.post(
    "/v1/jobs/{job_id}/deliveries/resend",
    tags=["jobs"],
    operation_id="resendJobDeliveries",
    responses=error_answers(400, 401, 404, 409, 429, 500, 503),
)
async def resend(job_id: str, request: Request) -> DeliveryList:
    """Send the messages about a job again that were delivered or given up, with the same ids and as many new attempts."""
    services, owner = services_of(request), caller_of(request).id
    before = await _deliveries(services, job_id, owner)
    if not before.data:
        raise ConflictError(
            f"The job {job_id} has no messages: they are written when a job ends, for addresses that are registered then."
        )
    if await services.store.webhooks.resend(job_id):
        services.store.jobs.notify("webhook")
    return await _deliveries(services, job_id, owner)


async def _deliveries(services: Services, job_id: str, owner: str) -> DeliveryList:
    await services.store.jobs.get(job_id, owner=owner)
    return DeliveryList(data=[_delivery(webhook) for webhook in await services.store.webhooks.of(job_id)])


def _delivery(webhook: WebhookRecord) -> Delivery:
    return Delivery(
        id=webhook.id,
        url=webhook.url,
        endpoint=webhook.endpoint,
        status=webhook.status,
        attempts=webhook.attempt,
        last_error=webhook.error,
        created_at=int(webhook.created),
        last_attempt_at=None if webhook.attempted is None else int(webhook.attempted),
        next_attempt_at=int(webhook.next_at) if webhook.status == "pending" else None,
    )


def _endpoint(endpoint: EndpointRecord, *, show: bool = False) -> Endpoint:
    return Endpoint(
        id=endpoint.id,
        url=endpoint.url,
        created_at=int(endpoint.created),
        secret=endpoint.secret if show else None,
        old_secret_until=int(endpoint.old_until) if endpoint.old_until > unix_time() else None,
    )
