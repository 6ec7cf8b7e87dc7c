"""`GET /v1/jobs/ID/events`: what happens to a job, as server-sent events."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.requests import Request
from starlette.responses import Response

from careedit_deployments.errors import FieldError, LostImageError, NotFoundError, UnavailableError
from careedit_deployments.http.openapi import STREAM, error_answers
from careedit_deployments.http.services import Services, caller_of, limiter_of, services_of
from careedit_deployments.http.sse import HEARTBEAT_S, EventStreamResponse, sse
from careedit_deployments.jobs.workers import wait_for
from careedit_deployments.state.records import JOB_ENDS, JobEvent

POLL_S = 0.5
"""Seconds between two queries for events of a job on which another replica works."""
STREAM_BYTES = 16 * 2**20
"""Size after which a stream ends, in bytes: events that a client does not read stay in the memory of Serve's proxy."""
LATE_S = 30.0
"""Seconds beyond its time limit after which a stream is closed if its client does not read."""
RECONNECT = b": the time of this stream is over; reconnect with Last-Event-ID\nretry: 1000\n\n"
"""End of a stream whose job goes on. An EventSource reconnects by itself, after `retry` milliseconds."""
_NAMES = {"partial": "job.partial_image", "image": "job.image"}

router = APIRouter(tags=["jobs"])


@router.get(
    "/v1/jobs/{job_id}/events",
    operation_id="streamJobEvents",
    response_model=None,
    responses={
        200: {
            "description": "Server-sent events job.queued, job.started, job.progress, job.partial_image, job.image, "
            "job.completed, job.failed, job.cancelled, job.requeued.",
            "content": STREAM,
        },
        204: {"description": "The job has ended, and the client has every event."},
        **error_answers(400, 401, 404, 429, 500, 503),
    },
    openapi_extra={"parameters": [{"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer"}}]},
)
async def follow_job(job_id: str, request: Request) -> Response:
    """Stream every event of a job from its beginning, or after `Last-Event-ID`, until the job has ended.

    A stream ends after `limits.event_stream_s` seconds or some megabytes; reconnect with the last id to continue.
    """
    services = services_of(request)
    job = await services.store.jobs.get(job_id, owner=caller_of(request).id)
    given = request.headers.get("last-event-id") or "0"
    if not re.fullmatch(r"[0-9]{1,9}", given):
        raise FieldError(f"Last-Event-ID is {given[:40]!r}; give the number of an event.", "Last-Event-ID")
    if job.status in JOB_ENDS and int(given) >= job.last_event:
        return Response(status_code=204)  # a browser's EventSource then does not reconnect
    seconds = services.config.limits.event_stream_s
    async with AsyncExitStack() as stack:
        stack.enter_context(limiter_of(request).stream(caller_of(request)))
        events = _events(services, job_id, int(given), time.monotonic() + seconds)
        return EventStreamResponse(events, resources=stack.pop_all(), limit_s=seconds + LATE_S)


async def _events(services: Services, job_id: str, seen: int, until: float) -> AsyncIterator[bytes]:
    quiet_since, sent = time.monotonic(), 0
    while True:
        changed = services.store.jobs.subscribe("event")
        try:
            events = await services.store.jobs.events(job_id, after=seen)
            for event in events:
                name = _NAMES.get(event.kind, f"job.{event.kind}")
                chunk = sse(name, await _data(services, event), number=event.number)
                yield chunk
                seen, quiet_since, sent = event.number, time.monotonic(), sent + len(chunk)
                if event.kind in JOB_ENDS:
                    return
                if sent > STREAM_BYTES:
                    yield RECONNECT
                    return
            if not events:
                await services.store.jobs.get(job_id)  # raises if the job was deleted
        except NotFoundError:
            return
        except UnavailableError:  # the client reconnects with the last number that it got
            return
        if time.monotonic() > until or services.stopping.begun:
            yield RECONNECT
            return
        if time.monotonic() - quiet_since > HEARTBEAT_S:
            yield KEEPALIVE_COMMENT
            quiet_since = time.monotonic()
        await wait_for(changed, min(POLL_S, max(0.0, until - time.monotonic())))


async def _data(services: Services, event: JobEvent) -> Mapping[str, Any]:
    name = _NAMES.get(event.kind, f"job.{event.kind}")
    data = {"type": name, "job": event.job, "created_at": int(event.created), **event.data}
    if event.picture is not None:
        try:
            data["b64_json"] = base64.b64encode(await services.blobs.get(event.picture)).decode("ascii")
        except LostImageError as error:  # the stream goes on to the end of the job
            data["error"] = {"code": "image_lost", "message": str(error)}
    return data
