"""`/v1/jobs`: edits in the background. Create, list, read, cancel and delete them."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from pydantic import ConfigDict, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from careedit.errors import InputError
from careedit.net import MAX_URL
from careedit.records import EditRequest, EditTrace
from careedit_deployments.edits.stored import (
    SENT,
    StoredOrder,
    delete_files,
    delete_job,
    keep_order,
    put_file,
    reserved_bytes,
    resolved_sha256,
    scope_of,
    sent_sha256,
)
from careedit_deployments.edits.tenancy import check_webhook_host
from careedit_deployments.errors import FieldError, LostImageError
from careedit_deployments.http.accept import check_before_decoding, ingredient_from, order_of
from careedit_deployments.http.form import EditInput, read_edit
from careedit_deployments.http.openapi import edit_bodies, error_answers
from careedit_deployments.http.output import images_response, output_of
from careedit_deployments.http.schema import (
    Answer,
    EditBody,
    EditFields,
    EditReport,
    ImageData,
    ImagesResponse,
    ListAnswer,
    page_of,
)
from careedit_deployments.http.services import Services, caller_of, services_of
from careedit_deployments.http.sse import unless_gone
from careedit_deployments.jobs.webhooks import check_webhook_url
from careedit_deployments.policy.contract import PolicyMark
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.queue import other_body
from careedit_deployments.state.records import JOB_ENDS, JobRecord, JobStatus, new_id

_KEY = re.compile(r"[\x21-\x7e]{1,255}")

router = APIRouter(tags=["jobs"])


class JobFields(EditFields):
    """The fields of a job in a form: those of an edit, and more."""

    model_config = ConfigDict(title="EditFieldsWithJobFields")

    webhook: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)] | None = None
    """Address that gets a signed POST when the job ends. Default: none is sent."""

    @model_validator(mode="before")
    @classmethod
    def _keep_events(cls, data: Any) -> Any:
        return {**data, "stream": True} if isinstance(data, dict) else data  # the events of a job are always stored


class JobBody(EditBody, JobFields):
    """`POST /v1/jobs` as JSON."""

    model_config = ConfigDict(title="EditBodyWithJobFields")


class JobError(Answer):
    """Why a job failed."""

    code: str
    """Code of the error for programs, as in an error response."""
    message: str
    """A sentence that says what is wrong and what to do."""


class JobAnswer(Answer):
    """The state of a job, and its result."""

    id: str
    """Id of the job, for the routes below `/v1/jobs`."""
    object: str = "job"
    """Type of the answer; always "job"."""
    status: JobStatus
    """State of the job: queued, running, completed, failed or cancelled."""
    created_at: int
    """Time of acceptance, in Unix seconds."""
    started_at: int | None = None
    """Time at which work first began, in Unix seconds; null while the job is queued."""
    finished_at: int | None = None
    """Time at which the job ended, in Unix seconds; null until then."""
    expires_at: int | None = None
    """Time at which the job is deleted, in Unix seconds; null until the job has ended."""
    attempt: int
    """Number of times that work began; more than 1 if a worker was lost."""
    ahead: int | None = None
    """Number of queued jobs before this one; null in lists, and when the job is not queued."""
    images: int
    """Number of images that are finished."""
    n: int
    """Number of images that the request asked for."""
    webhook: str | None = None
    """Address that gets a signed POST when the job ends; null if none was given."""
    error: JobError | None = None
    """The reason if the job failed, if it was cancelled because its API key was revoked (`key_revoked`), or if an image of a
    completed one is lost (`image_lost`); else null."""
    result: ImagesResponse | None = None
    """The answer that `POST /v1/images/edits` would have given; null in lists, until the job is completed, and if an image is
    lost."""


class JobList(ListAnswer):
    """A page of the caller's jobs."""

    data: list[JobAnswer]
    """The jobs of the page, newest first."""
    first_id: str | None
    """Id of the first job of the page; null if the page is empty."""
    last_id: str | None
    """Id of the last job of the page; pass it as `after` to get the next page."""
    has_more: bool
    """Whether older jobs follow on another page."""


class JobDeleted(Answer):
    """The answer to the deletion of a job."""

    id: str
    """Id of the deleted job."""
    object: str = "job.deleted"
    """Type of the answer; always "job.deleted"."""
    deleted: bool = True
    """Always true, as in OpenAI's API."""


@router.post(
    "/v1/jobs",
    operation_id="createJob",
    status_code=202,
    response_model=JobAnswer,
    responses=error_answers(400, 401, 404, 409, 413, 415, 429, 500, 503),
    openapi_extra={
        "requestBody": edit_bodies(JobFields, JobBody, without=("session", "stream", "candidate_images")),
        "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}],
    },
)
async def create_job(request: Request, response: Response) -> JobAnswer:
    """Accept an edit and answer at once. The same `Idempotency-Key` with the same body returns the same job."""
    services = services_of(request)
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise FieldError("The Idempotency-Key must be 1 to 255 visible ASCII characters.", "Idempotency-Key")
    if key is None:  # with a key, the job may exist already
        await services.store.jobs.check_room(caller_of(request).id, services.config.jobs.max_queued)
    job, replayed = await add_job(request, await read_edit(request, JobFields, JobBody), key)
    response.headers["location"] = f"/v1/jobs/{job.id}"
    if replayed:
        response.headers["idempotency-replayed"] = "true"
    return await answer_of(services, job)


async def add_job(request: Request, form: EditInput, key: str | None) -> tuple[JobRecord, bool]:
    """The queued job of an edit, and whether it is the one that was made before with the idempotency key `key`.

    Raises `ConflictError` if that has another body, `OverloadedError` if the queue is full, and what refuses an edit.
    """
    services, caller = services_of(request), caller_of(request)
    owner, max_queued = caller.id, services.config.jobs.max_queued
    assert isinstance(form.fields, JobFields)
    webhook = form.fields.webhook
    sent = await run_sync(sent_sha256, form.fields, form.pictures, form.mask, webhook)
    known = None if key is None else await services.store.jobs.keyed(owner, key)
    if known is not None:  # before anything that depends on the configuration: an accepted job does not change
        if not await _is_same(request, form, webhook, sent, known):
            raise other_body(known)
        return known, True
    await _check_webhook(request, webhook)
    if form.fields.session is not None:
        raise FieldError("A turn of a session cannot be a job; POST it to /v1/sessions/ID/turns.", "session")
    if form.fields.candidate_images:
        raise FieldError(
            "The events of a job have no candidates; leave candidate_images out, or stream /v1/images/edits.",
            "candidate_images",
        )
    check_before_decoding(request, form)
    order = await unless_gone(request, lambda: order_of(request, form))
    output = output_of(form.fields, form.notes, order.request.image.size, services.config)
    order = order.model_copy(update={"result_size": output.size})
    ingredient = await ingredient_from(request, form.pictures[0])
    running = await unless_gone(request, lambda: services.edits.start(order))  # refuse now what would fail later
    job_id = new_id("job")
    scope = scope_of(job_id)
    seed = secrets.randbelow(2**32) if order.request.seed is None else order.request.seed
    seeded = order.model_copy(update={"request": order.request.model_copy(update={"seed": seed})})
    put = partial(put_file, services.store, services.blobs, scope, owner=owner)
    accepted: JobRecord | None = None
    try:
        await services.store.storage.add(scope, owner, reserve=reserved_bytes(order))
        stored = await keep_order(seeded, output, put, pictures=form.pictures, mask=form.mask, ingredient=ingredient)
        job = JobRecord(
            id=job_id,
            owner=owner,
            key=caller.key,
            idempotency_key=key,
            body_sha256=sent,
            order=stored.model_dump(mode="json"),
            cost=running.call.cost,
            webhook=webhook,
            created=unix_time(),
        )
        accepted = await services.store.jobs.add(job, max_queued=max_queued)
    finally:
        if accepted is None or accepted.id != job_id:
            await asyncio.shield(delete_files(services.store, services.blobs, scope))
            await asyncio.shield(services.edits.give_back(running))
    return accepted, accepted.id != job_id


async def _is_same(request: Request, form: EditInput, webhook: str | None, sent: str, known: JobRecord) -> bool:
    """Whether the same body made the job `known`."""
    if known.body_sha256.startswith(SENT):
        return known.body_sha256 == sent
    # The hash of an older job is that of the resolved order, so the values that the client left to the configuration
    # are taken from the job.
    stored, order, fields = StoredOrder(**known.order), await order_of(request, form), form.fields
    names = [name for name in ("steps", "early_filter") if getattr(fields, name) is None]
    then = EditRequest(**{**dict(order.request), **{name: stored.request[name] for name in names}})
    output = output_of(fields, (), then.image.size, services_of(request).config).model_copy(update={"notes": ()})
    then_order = order.model_copy(update={"request": then, "user": fields.end_user})  # it hashed the name itself
    return known.body_sha256 == resolved_sha256(then_order, output, webhook)


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
    """List the caller's jobs, newest first, from those older than the job `after`."""
    services, owner = services_of(request), caller_of(request).id
    page = await services.store.jobs.page(owner, before=after, limit=limit + 1)
    data = [brief_answer(job) for job in page[:limit]]
    return page_of(JobList, data, more=len(page) > limit)


@router.get(
    "/v1/jobs/{job_id}",
    operation_id="retrieveJob",
    response_model=JobAnswer,
    responses=error_answers(400, 401, 404, 429, 500, 503),
)
async def get_job(job_id: str, request: Request) -> Response:
    """Return one job, with its images once it is completed."""
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
    """Cancel a job that has not ended (a queued one at once, a running one within a step), or delete one that has."""
    services, owner = services_of(request), caller_of(request).id
    job = await services.store.jobs.get(job_id, owner=owner)
    if job.status not in JOB_ENDS:
        job = await services.store.jobs.cancel(job_id, owner=owner)
        return JSONResponse(brief_answer(job).model_dump(mode="json"))
    await delete_job(services.store, services.blobs, job_id)
    await services.store.scrub()
    await services.store.audit.add(caller_of(request).actor, "job.deleted", job_id)
    return JSONResponse(JobDeleted(id=job_id).model_dump())


async def _check_webhook(request: Request, webhook: str | None) -> None:
    if webhook is None:
        return
    services, caller = services_of(request), caller_of(request)
    check_webhook_host(caller.policy, webhook)
    if webhook in {endpoint.url for endpoint in await services.store.endpoints.all(caller.id)}:
        return
    if services.config.jobs.webhook_secret_env is None:
        raise FieldError(
            "This server does not send webhooks to addresses of single jobs; register the address at /v1/webhooks, or leave "
            "webhook out and poll the job.",
            "webhook",
        )
    try:
        check_webhook_url(webhook, services.config.jobs.webhook_hosts)
    except InputError as error:
        raise FieldError(str(error), "webhook") from None


def brief_answer(job: JobRecord) -> JobAnswer:
    """A job without its images."""
    return JobAnswer(
        id=job.id,
        status=job.status,
        created_at=int(job.created),
        started_at=None if job.started is None else int(job.started),
        finished_at=None if job.finished is None else int(job.finished),
        expires_at=None if job.expires is None else int(job.expires),
        attempt=job.attempt,
        images=len(job.images),
        n=int(job.order["request"]["n"]),
        webhook=job.webhook,
        error=None if job.error is None else JobError(**job.error),
    )


async def answer_of(services: Services, job: JobRecord, *, whole: bool = False) -> JobAnswer:
    """The state of a job; `whole`: with its images, if it is completed."""
    brief = brief_answer(job)
    if job.status == "queued":
        return brief.model_copy(update={"ahead": await services.store.jobs.ahead(job)})
    if job.status != "completed" or not whole:
        return brief
    stored = StoredOrder(**job.order)
    traces = [EditTrace(**image.trace) for image in job.images]
    try:
        files = [await services.blobs.get(image.picture) for image in job.images]
    except LostImageError as error:
        return brief.model_copy(update={"error": JobError(code="image_lost", message=str(error))})
    last = job.images[-1]
    marks = dict.fromkeys(PolicyMark(**mark) for image in job.images for mark in image.marks)
    result = images_response(
        [ImageData(b64_json=base64.b64encode(file).decode("ascii")) for file in files],
        EditReport(
            id=last.edit_id,
            arm=last.arm,
            traces=traces,
            policy=tuple(marks),
            purposes=await services.store.edits.purposes_of({image.edit_id for image in job.images}),
            notes=stored.output.notes,
        ),
        stored.output,
        prompt=str(stored.request["instruction"]),
        references=len(stored.references),
        user=stored.user,
        created=job.finished or job.created,
    )
    return brief.model_copy(update={"result": result})
