"""`/v1/jobs`: edits that nobody waits for. Made, listed, looked at, followed, cancelled, deleted."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from careedit.errors import InputError
from careedit.records import EditRequest
from careedit_deployments.edits.deletion import delete_job
from careedit_deployments.edits.stored import (
    SENT,
    Output,
    StoredOrder,
    keep_order,
    resolved_sha256,
    scope_of,
    sent_sha256,
)
from careedit_deployments.errors import FieldError, NotFoundError, UnavailableError
from careedit_deployments.http.amend import Amendment, bodies
from careedit_deployments.http.form import EditInput, parse, read_edit
from careedit_deployments.http.job_answers import JobAnswer, JobDeleted, JobFields, JobList, answer_of, brief_answer
from careedit_deployments.http.openapi import STREAM, error_answers
from careedit_deployments.http.order import check_before_decoding, order_of
from careedit_deployments.http.output import size_notes, target_size
from careedit_deployments.http.services import Services, caller_of, limiter_of, services_of
from careedit_deployments.http.sse import HEARTBEAT_S, EventStream, sse, unless_gone
from careedit_deployments.jobs.pool import wait_for
from careedit_deployments.jobs.webhooks import check_webhook_url
from careedit_deployments.state.queue import other_body, queue_full
from careedit_deployments.state.records import JOB_ENDS, JobEvent, JobRecord, new_id

POLL_S = 0.5
"""Seconds between two looks at a job that another replica works on."""
STREAM_BYTES = 16 * 2**20
"""Bytes after which a stream of events ends: what a client does not read waits in the memory of Serve's proxy."""
LATE_S = 30.0
"""Seconds beyond its time after which a stream is cut off whose client does not read."""
AGAIN = b": this stream has had its time; come again with Last-Event-ID\nretry: 1000\n\n"
"""The end of a stream whose job goes on. An EventSource comes again by itself, after `retry` milliseconds."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NAMES = {"partial": "job.partial_image", "image": "job.image"}

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/jobs",
    operation_id="createJob",
    status_code=202,
    response_model=JobAnswer,
    responses=error_answers(400, 401, 404, 409, 413, 415, 429, 500, 503),
    openapi_extra={
        "requestBody": bodies(JobFields, without=("session", "stream")),
        "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}],
    },
)
async def create_job(request: Request, response: Response) -> JobAnswer:
    """Accept an edit and answer at once. The same `Idempotency-Key` with the same body is the same job."""
    services, owner = services_of(request), caller_of(request).id
    amended = Amendment(take=("webhook", "stream"), put={"stream": True})  # events are kept in any case
    key, max_queued = request.headers.get("idempotency-key"), services.config.jobs.max_queued
    if key is not None and not _KEY.fullmatch(key):
        raise FieldError("The Idempotency-Key must be 1 to 255 visible ASCII characters.", "Idempotency-Key")
    if key is None and await services.store.jobs.waiting() >= max_queued:  # with a key, the job may be there already
        raise queue_full(max_queued)
    found = await read_edit(request, amended)
    extra: JobFields = parse(JobFields, {name: amended.taken[name] for name in amended.taken if name == "webhook"})
    sent = await run_sync(sent_sha256, found.fields, found.pictures, found.mask, extra.webhook)
    known = None if key is None else await services.store.jobs.keyed(owner, key)
    if known is not None:  # before anything that the configuration decides: what it was accepted as, it stays
        if not await _is_same(request, found, extra.webhook, sent, known):
            raise other_body(known)
        return await _accepted(services, response, known, replayed=True)
    _check_webhook(services, extra.webhook)
    if found.fields.session is not None:
        raise FieldError("A session's turns are no jobs; POST to /v1/sessions/ID/turns.", "session")
    check_before_decoding(services, found)
    order = await unless_gone(request, lambda: order_of(request, found))
    output = _output(services, found, order.request.image.size)
    await unless_gone(request, lambda: services.edits.start(order))  # refuses now what would fail later
    job_id = new_id("job")
    seed = secrets.randbelow(2**32) if order.request.seed is None else order.request.seed
    seeded = order.model_copy(update={"request": order.request.model_copy(update={"seed": seed})})
    stored = await keep_order(seeded, output, services.blobs, scope_of(job_id))
    job = JobRecord(
        id=job_id,
        owner=owner,
        idempotency_key=key,
        body_sha256=sent,
        order=stored.model_dump(mode="json"),
        webhook=extra.webhook,
        created=time.time(),
    )
    accepted: JobRecord | None = None
    try:
        accepted = await services.store.jobs.add(job, max_queued=max_queued)
    finally:
        if accepted is None or accepted.id != job_id:
            await services.blobs.delete_scope(scope_of(job_id))
    return await _accepted(services, response, accepted, replayed=accepted.id != job_id)


def _output(services: Services, found: EditInput, source: tuple[int, int]) -> Output:
    fields, size = found.fields, target_size(found.fields, source, services.config)
    return Output(
        size=size,
        format=fields.output_format,
        compression=fields.output_compression,
        quality=fields.level,
        notes=(*found.notes, *size_notes(size, source)),
    )


async def _accepted(services: Services, response: Response, job: JobRecord, *, replayed: bool) -> JobAnswer:
    response.headers["location"] = f"/v1/jobs/{job.id}"
    if replayed:
        response.headers["idempotency-replayed"] = "true"
    return await answer_of(services, job)


async def _is_same(request: Request, found: EditInput, webhook: str | None, sent: str, known: JobRecord) -> bool:
    """Whether a job was made by the same body."""
    if known.body_sha256.startswith(SENT):
        return known.body_sha256 == sent
    # A job from before hashes of what is sent: its hash is of the resolved order, so what the client left to the
    # configuration is taken from the job.
    stored, order, fields = StoredOrder(**known.order), await order_of(request, found), found.fields
    names = [name for name in ("steps", "early_filter") if getattr(fields, name) is None]
    then = EditRequest(**{**dict(order.request), **{name: stored.request[name] for name in names}})
    output = _output(services_of(request), found, then.image.size).model_copy(update={"notes": ()})
    return known.body_sha256 == resolved_sha256(order.model_copy(update={"request": then}), output, webhook)


@router.get(
    "/v1/jobs",
    operation_id="listJobs",
    responses=error_answers(400, 401, 429, 500, 503),
)
async def list_jobs(
    request: Request,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JobList:
    """The caller's jobs, newest first, those older than the job `after`."""
    services, owner = services_of(request), caller_of(request).id
    page = await services.store.jobs.page(owner, before=after, limit=limit + 1)
    data = [brief_answer(job) for job in page[:limit]]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return JobList(data=data, first_id=first, last_id=last, has_more=len(page) > limit)


@router.get(
    "/v1/jobs/{job_id}",
    operation_id="retrieveJob",
    response_model=JobAnswer,
    responses=error_answers(400, 401, 404, 429, 500, 503),
)
async def get_job(job_id: str, request: Request) -> Response:
    """One job, with its pictures once it is completed."""
    services = services_of(request)
    job = await services.store.jobs.get(job_id, owner=caller_of(request).id)
    answer = await answer_of(services, job, whole=True)
    return Response(await run_sync(answer.model_dump_json), media_type="application/json")


@router.delete(
    "/v1/jobs/{job_id}",
    operation_id="deleteJob",
    response_model=None,
    responses={200: {"model": JobAnswer | JobDeleted}, **error_answers(400, 401, 404, 429, 500, 503)},
)
async def delete_or_cancel_job(job_id: str, request: Request) -> Response:
    """Cancel a job that has not ended: a queued one at once, a running one within a step. Delete one that has ended."""
    services, owner = services_of(request), caller_of(request).id
    job = await services.store.jobs.get(job_id, owner=owner)
    if job.status not in JOB_ENDS:
        job = await services.store.jobs.cancel(job_id, owner=owner)
        return JSONResponse(brief_answer(job).model_dump(mode="json"))
    await delete_job(services.store, services.blobs, job_id)
    await services.store.scrub()
    await services.store.audit.add(owner, "job.deleted", job_id)
    return JSONResponse(JobDeleted(id=job_id).model_dump())


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
        204: {"description": "The job has ended and the client has seen every event."},
        **error_answers(400, 401, 404, 429, 500, 503),
    },
    openapi_extra={"parameters": [{"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer"}}]},
)
async def follow_job(job_id: str, request: Request) -> Response:
    """Every event of a job from its beginning, or after `Last-Event-ID`, until it has ended.

    A stream ends after `limits.event_stream_s` seconds or some megabytes; come again with the last id for what follows.
    """
    services = services_of(request)
    job = await services.store.jobs.get(job_id, owner=caller_of(request).id)
    given = request.headers.get("last-event-id") or "0"
    if not re.fullmatch(r"[0-9]{1,9}", given):
        raise FieldError(f"Last-Event-ID is {given[:40]!r}; send the number of an event.", "Last-Event-ID")
    if job.status in JOB_ENDS and int(given) >= job.last_event:
        return Response(status_code=204)  # which tells a browser's EventSource not to come back
    seconds = services.config.limits.event_stream_s
    async with AsyncExitStack() as stack:
        stack.enter_context(limiter_of(request).stream(caller_of(request)))
        events = _events(services, job_id, int(given), time.monotonic() + seconds)
        return EventStream(events, resources=stack.pop_all(), limit_s=seconds + LATE_S)


async def _events(services: Services, job_id: str, seen: int, until: float) -> AsyncIterator[bytes]:
    quiet_since, sent = time.monotonic(), 0
    while True:
        bell = services.store.jobs.subscribe("event")
        try:
            events = await services.store.jobs.events(job_id, after=seen)
            for event in events:
                name = _NAMES.get(event.kind, f"job.{event.kind}")
                chunk = sse(name, await _told(services, event), number=event.number)
                yield chunk
                seen, quiet_since, sent = event.number, time.monotonic(), sent + len(chunk)
                if event.kind in JOB_ENDS:
                    return
                if sent > STREAM_BYTES:
                    yield AGAIN
                    return
            if not events:
                await services.store.jobs.get(job_id)  # deleted meanwhile?
        except NotFoundError:
            return
        except UnavailableError:  # the client comes again, with the last number that it has seen
            return
        if time.monotonic() > until or services.stopping.begun:
            yield AGAIN
            return
        if time.monotonic() - quiet_since > HEARTBEAT_S:
            yield KEEPALIVE_COMMENT
            quiet_since = time.monotonic()
        await wait_for(bell, min(POLL_S, max(0.0, until - time.monotonic())))


async def _told(services: Services, event: JobEvent) -> Mapping[str, Any]:
    name = _NAMES.get(event.kind, f"job.{event.kind}")
    told = {"type": name, "job": event.job, "created_at": int(event.created), **event.data}
    if event.picture is not None:
        told["b64_json"] = base64.b64encode(await services.blobs.get(event.picture)).decode("ascii")
    return told


def _check_webhook(services: Services, webhook: str | None) -> None:
    if webhook is None:
        return
    if services.config.jobs.webhook_secret_env is None:
        raise FieldError("This server signs no webhooks; leave webhook out and ask for the job.", "webhook")
    try:
        check_webhook_url(webhook, services.config.jobs.webhook_hosts)
    except InputError as error:
        raise FieldError(str(error), "webhook") from None
