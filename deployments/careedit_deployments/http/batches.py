"""`/v1/batches`: many edits of one input file, in the shape of OpenAI's Batch API."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints
from starlette.requests import Request

from careedit_deployments.errors import FieldError
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.schema import Answer, Body, ListAnswer, page_of
from careedit_deployments.http.services import Services, caller_of, services_of
from careedit_deployments.state.batch_records import BATCH_ENDS, BatchEnd, BatchRecord, BatchStatus
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import new_id

WINDOW_S = 24 * 3600.0
"""Seconds that a batch may take, as in OpenAI's API."""

router = APIRouter(tags=["batches"])


class BatchBody(Body):
    """`POST /v1/batches`."""

    input_file_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    """Id of a file that was uploaded with the purpose "batch"."""
    endpoint: Literal["/v1/images/edits"]
    """Route that every line of the file asks for."""
    completion_window: Literal["24h"]
    """Time after which lines that are not finished are cancelled; always "24h"."""
    metadata: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]]
        | None,
        Field(max_length=16),
    ] = None
    """Up to 16 texts by name, which the answers repeat. Default: none."""


class BatchError(Answer):
    """An error of the input file."""

    code: str
    """Code of the error for programs."""
    message: str
    """A sentence that says what is wrong and what to do."""
    line: int | None
    """Number of the line, from 1; null if the file as a whole is wrong."""
    param: str | None
    """Name of the wrong field; null if no single field is wrong."""


class BatchErrors(ListAnswer):
    """The errors of the input file."""

    data: list[BatchError]
    """The first errors, in the order of the lines."""


class RequestCounts(Answer):
    """Numbers of the lines of a batch."""

    total: int
    """Number of lines; 0 until the input was read."""
    completed: int
    """Number of lines that are completed."""
    failed: int
    """Number of lines that failed."""


class BatchAnswer(Answer):
    """The state of a batch. Times are in Unix seconds, and null if they have not come."""

    id: str
    """Id of the batch, for the routes below `/v1/batches`."""
    object: Literal["batch"] = "batch"
    """Type of the answer; always "batch"."""
    endpoint: str = "/v1/images/edits"
    """Route that every line asks for."""
    completion_window: str = "24h"
    """Time after which lines that are not finished are cancelled."""
    input_file_id: str
    """Id of the input file."""
    status: BatchStatus
    """State of the batch: validating, in_progress, finalizing, completed, failed, expired, cancelling or cancelled."""
    errors: BatchErrors | None
    """Errors of the input file for which the batch failed; else null."""
    output_file_id: str | None
    """Id of the file with the results; null until the batch has ended, and if no line is completed."""
    error_file_id: str | None
    """Id of the file with the errors; null until the batch has ended, and if no line failed."""
    created_at: int
    """Time at which the batch was accepted."""
    in_progress_at: int | None
    """Time at which the first line became a job."""
    expires_at: int
    """Time at which lines that are not finished are cancelled."""
    finalizing_at: int | None
    """Time at which the last job had ended."""
    completed_at: int | None
    """Time at which the batch was completed."""
    failed_at: int | None
    """Time at which the batch failed."""
    expired_at: int | None
    """Time at which the batch expired."""
    cancelling_at: int | None
    """Time at which the batch was cancelled by its owner."""
    cancelled_at: int | None
    """Time at which the cancelled batch had ended."""
    request_counts: RequestCounts
    """Numbers of lines: all, completed and failed ones."""
    metadata: dict[str, str] | None
    """What the client attached to the batch."""


class BatchList(ListAnswer):
    """A page of the caller's batches."""

    data: list[BatchAnswer]
    """The batches of the page, newest first."""
    first_id: str | None
    """Id of the first batch of the page; null if the page is empty."""
    last_id: str | None
    """Id of the last batch of the page; pass it as `after` to get the next page."""
    has_more: bool
    """Whether older batches follow on another page."""


@router.post(
    "/v1/batches", operation_id="createBatch", responses=error_answers(400, 401, 404, 408, 413, 415, 429, 500, 503)
)
async def create_batch(body: BatchBody, request: Request) -> BatchAnswer:
    """Edit every line of an uploaded file in the background. Each line becomes a job, within the limits of the tenant."""
    services, caller = services_of(request), caller_of(request)
    file = await services.store.files.get(body.input_file_id, owner=caller.id)
    if file.purpose != "batch":
        raise FieldError("The file is a list of results; upload an input with the purpose 'batch'.", "input_file_id")
    kept = await services.store.retention.kept_s(caller.id, "jobs", services.config.state.job_ttl_s)
    now = unix_time()
    batch = BatchRecord(
        id=new_id("batch"),
        owner=caller.id,
        key=caller.key,
        clear_names=caller.clear_names,
        input_file=file.id,
        metadata=body.metadata,
        created=now,
        deadline=now + WINDOW_S,
        expires=now + WINDOW_S + kept,
    )
    await services.store.batches.add(batch)
    services.store.jobs.notify("batch")
    return await _answer(services, batch)


@router.get("/v1/batches", operation_id="listBatches", responses=error_answers(400, 401, 429, 500, 503))
async def list_batches(
    request: Request,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BatchList:
    """List the caller's batches, newest first, from those older than the batch `after`."""
    services = services_of(request)
    page = await services.store.batches.page(caller_of(request).id, before=after, limit=limit + 1)
    data = [await _answer(services, batch) for batch in page[:limit]]
    return page_of(BatchList, data, more=len(page) > limit)


@router.get("/v1/batches/{batch_id}", operation_id="retrieveBatch", responses=error_answers(401, 404, 429, 500, 503))
async def get_batch(batch_id: str, request: Request) -> BatchAnswer:
    """Return the state of a batch."""
    services = services_of(request)
    return await _answer(services, await services.store.batches.get(batch_id, owner=caller_of(request).id))


@router.post(
    "/v1/batches/{batch_id}/cancel",
    operation_id="cancelBatch",
    responses=error_answers(401, 404, 409, 429, 500, 503),
)
async def cancel_batch(batch_id: str, request: Request) -> BatchAnswer:
    """Cancel a batch that has not ended. What is completed stays in its results."""
    services, caller = services_of(request), caller_of(request)
    batch = await services.store.batches.cancel(batch_id, owner=caller.id)
    services.store.jobs.notify("event")  # for which the batch's worker waits
    await services.store.audit.add(caller.actor, "batch.cancelled", batch_id)
    return await _answer(services, batch)


async def _answer(services: Services, batch: BatchRecord) -> BatchAnswer:
    ended = batch.status in BATCH_ENDS
    completed, failed = (batch.completed, batch.failed) if ended else await services.store.batches.counts(batch.id)
    return BatchAnswer(
        id=batch.id,
        input_file_id=batch.input_file,
        status=batch.status,
        errors=BatchErrors(data=[BatchError(**error) for error in batch.errors]) if batch.errors else None,
        output_file_id=batch.output_file,
        error_file_id=batch.error_file,
        created_at=int(batch.created),
        in_progress_at=_seconds(batch.begun),
        expires_at=int(batch.deadline),
        finalizing_at=_seconds(batch.finalizing),
        cancelling_at=_seconds(batch.cancelling),
        request_counts=RequestCounts(total=batch.total, completed=completed, failed=failed),
        metadata=None if batch.metadata is None else dict(batch.metadata),
        completed_at=_ended(batch, "completed"),
        failed_at=_ended(batch, "failed"),
        expired_at=_ended(batch, "expired"),
        cancelled_at=_ended(batch, "cancelled"),
    )


def _ended(batch: BatchRecord, end: BatchEnd) -> int | None:
    """The time of the end of a batch, if it ended so."""
    return _seconds(batch.ended) if batch.status == end else None


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
