"""Jobs as clients see them."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import StringConstraints

from careedit.net import MAX_URL
from careedit.records import EditTrace
from careedit_deployments.edits.stored import StoredOrder
from careedit_deployments.http.output import usage_of
from careedit_deployments.http.schema import Answer, Body, EditReport, ImageData, ImagesResponse
from careedit_deployments.http.services import Services
from careedit_deployments.state.records import JobRecord, JobStatus


class JobFields(Body):
    """What a job's body has beside an edit's."""

    webhook: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)] | None = None
    """Address that is told of the job's end, by a signed POST."""


class JobError(Answer):
    """Why a job failed."""

    code: str
    """For programs."""
    message: str
    """A sentence."""


class JobAnswer(Answer):
    """A job."""

    id: str
    """Id of the job."""
    object: str = "job"
    """Always "job"."""
    status: JobStatus
    """Where it stands."""
    created_at: int
    """Unix time at which it was accepted."""
    started_at: int | None = None
    """Unix time at which it was first begun."""
    finished_at: int | None = None
    """Unix time at which it ended."""
    expires_at: int | None = None
    """Unix time at which it is deleted; absent while it has not ended."""
    attempt: int
    """Times that it was begun: more than 1 if a worker was lost."""
    ahead: int | None = None
    """Queued jobs that come before it; only while it is queued, and not in lists."""
    images: int
    """Images that are made."""
    n: int
    """Images that were asked for."""
    webhook: str | None = None
    """Where its end is told."""
    error: JobError | None = None
    """Why it failed."""
    result: ImagesResponse | None = None
    """As `POST /v1/images/edits` would have answered; once it is completed, and not in lists."""


class JobList(Answer):
    """A page of jobs."""

    object: str = "list"
    """Always "list"."""
    data: list[JobAnswer]
    """Newest first."""
    first_id: str | None
    """Id of the first one."""
    last_id: str | None
    """Id of the last one: the next page's `after`."""
    has_more: bool
    """Whether there is a next page."""


class JobDeleted(Answer):
    """A job that is gone."""

    id: str
    """Its id."""
    object: str = "job.deleted"
    """Always "job.deleted"."""
    deleted: bool = True
    """Always true."""


def brief_answer(job: JobRecord) -> JobAnswer:
    """A job without its pictures."""
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
    """A job as it stands; `whole`: with its pictures, if it is completed."""
    brief = brief_answer(job)
    if job.status == "queued":
        return brief.model_copy(update={"ahead": await services.store.jobs.ahead(job)})
    if job.status != "completed" or not whole:
        return brief
    stored = StoredOrder(**job.order)
    traces = [EditTrace(**image.trace) for image in job.images]
    files = [await services.blobs.get(image.picture) for image in job.images]
    result = ImagesResponse(
        created=int(job.finished or job.created),
        data=[ImageData(b64_json=base64.b64encode(file).decode("ascii")) for file in files],
        output_format=stored.output.format,
        quality=stored.output.quality,
        size="{}x{}".format(*stored.output.size),
        safety_identifier=stored.user,
        usage=usage_of(traces, str(stored.request["instruction"]), len(stored.references)),
        careedit=EditReport(
            id=job.images[-1].edit_id, arm=job.images[-1].arm, traces=traces, notes=stored.output.notes
        ),
    )
    return brief.model_copy(update={"result": result})
