"""`/v1/files`: inputs of batches, and lists of their results, in the shape of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from careedit.tabular import lines_of
from careedit_deployments.edits.stored import delete_files, delete_upload, put_file, scope_of
from careedit_deployments.errors import ConflictError, FieldError
from careedit_deployments.http.admission import too_many_values
from careedit_deployments.http.batch_lines import result_of
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.reading import read_form
from careedit_deployments.http.schema import Answer, ListAnswer, page_of
from careedit_deployments.http.services import Services, caller_of, services_of, user_of
from careedit_deployments.state.batch_records import FileRecord
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import new_id

JSONL = "application/jsonl"

router = APIRouter(tags=["batches"])


class FileObject(Answer):
    """A file, as OpenAI's API describes it."""

    id: str
    """Id of the file, for the routes below `/v1/files` and for `input_file_id` of a batch."""
    object: Literal["file"] = "file"
    """Type of the answer; always "file"."""
    bytes: int
    """Size of the file in bytes. A list of results gets shorter when jobs are deleted; this is its size at the batch's end."""
    created_at: int
    """Time at which the file was made, in Unix seconds."""
    expires_at: int
    """Time at which the file is deleted, in Unix seconds."""
    filename: str
    """Name of the file, as it was uploaded or as the server chose it."""
    purpose: Literal["batch", "batch_output"]
    """What the file is for: "batch" is the input of a batch, "batch_output" its results or errors."""
    status: Literal["processed"] = "processed"
    """State of the file; always "processed", as this field is deprecated in OpenAI's API."""


class FileList(ListAnswer):
    """A page of the caller's files."""

    data: list[FileObject]
    """The files of the page, newest first."""
    first_id: str | None
    """Id of the first file of the page; null if the page is empty."""
    last_id: str | None
    """Id of the last file of the page; pass it as `after` to get the next page."""
    has_more: bool
    """Whether older files follow on another page."""


class FileDeleted(Answer):
    """The answer to the deletion of a file."""

    id: str
    """Id of the deleted file."""
    object: Literal["file"] = "file"
    """Type of the answer; always "file"."""
    deleted: bool = True
    """Always true, as in OpenAI's API."""


_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSON lines, one request per line."},
        "purpose": {"type": "string", "enum": ["batch"], "description": "What the file is for."},
    },
    "additionalProperties": False,
}


@router.post(
    "/v1/files",
    operation_id="createFile",
    responses=error_answers(400, 401, 408, 413, 415, 429, 500, 503),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def create_file(request: Request) -> FileObject:
    """Upload the input of a batch: JSON lines with `custom_id`, `method`, `url` and `body`. It is kept for as many days as a job."""
    services, owner = services_of(request), caller_of(request).id
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise FieldError("A file is uploaded as multipart/form-data.", "content-type", "unsupported_media_type")
    form = await read_form(request)
    for name in form:
        if name not in ("file", "purpose"):
            raise FieldError(f"The field {name!r} is not supported here; leave it out.", name, "unsupported_parameter")
    files, purposes = form.getlist("file"), form.getlist("purpose")
    if purposes != ["batch"]:
        raise FieldError("The purpose must be given once and be 'batch'.", "purpose")
    if len(files) != 1 or not isinstance(files[0], UploadFile):
        raise FieldError("Send one file in the field 'file'.", "file")
    data = await files[0].read()
    if not data.strip():
        raise FieldError("The file is empty; send one request per line.", "file", "empty_file")
    file_id = new_id("batchfile")
    scope = scope_of(file_id)
    users = {await user_of(request, name) for name in await run_sync(_users, data)}
    stored = False
    try:
        key = await put_file(services.store, services.blobs, scope, data, suffix="json", owner=owner)
        now = unix_time()
        kept = await services.store.retention.kept_s(owner, "jobs", services.config.state.job_ttl_s)
        record = FileRecord(
            id=file_id,
            owner=owner,
            name=(files[0].filename or "batch.jsonl")[:255],
            purpose="batch",
            bytes=len(data),
            key=key,
            users=tuple(sorted(user for user in users if user is not None)),
            created=now,
            expires=now + kept,
        )
        await services.store.files.add(record)
        stored = True
    finally:
        if not stored:
            await delete_files(services.store, services.blobs, scope)
    return _answer(record)


@router.get("/v1/files", operation_id="listFiles", responses=error_answers(400, 401, 429, 500, 503))
async def list_files(
    request: Request,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    purpose: Literal["batch", "batch_output"] | None = None,
    order: Literal["desc"] = "desc",
) -> FileList:
    """List the caller's files, newest first, from those older than the file `after`."""
    files = services_of(request).store.files
    page = await files.page(caller_of(request).id, before=after, limit=limit + 1, purpose=purpose)
    data = [_answer(file) for file in page[:limit]]
    return page_of(FileList, data, more=len(page) > limit)


@router.get("/v1/files/{file_id}", operation_id="retrieveFile", responses=error_answers(401, 404, 429, 500, 503))
async def get_file(file_id: str, request: Request) -> FileObject:
    """Return what is known of a file, without its content."""
    return _answer(await services_of(request).store.files.get(file_id, owner=caller_of(request).id))


@router.get(
    "/v1/files/{file_id}/content",
    operation_id="downloadFile",
    response_class=Response,
    responses={
        200: {"description": "The content: JSON lines.", "content": {JSONL: {"schema": {"type": "string"}}}},
        **error_answers(401, 404, 429, 500, 503),
    },
)
async def get_content(file_id: str, request: Request) -> Response:
    """Return the content of a file. A list of results is composed of the jobs of its batch while it is sent."""
    services = services_of(request)
    file = await services.store.files.get(file_id, owner=caller_of(request).id)
    if file.key is not None:
        return Response(await services.blobs.get(file.key), media_type=JSONL)
    return StreamingResponse(_results(services, file), media_type=JSONL)


@router.delete("/v1/files/{file_id}", operation_id="deleteFile", responses=error_answers(401, 404, 409, 429, 500, 503))
async def delete_file(file_id: str, request: Request) -> FileDeleted:
    """Delete a file. Deleting a list of results keeps the jobs; the input of a batch is needed until the batch has ended."""
    services, caller = services_of(request), caller_of(request)
    file = await services.store.files.get(file_id, owner=caller.id)
    if await services.store.files.in_use(file_id):
        raise ConflictError("A batch reads the file; cancel the batch or wait for its end.")
    await delete_upload(services.store, services.blobs, file.id)
    await services.store.scrub()
    await services.store.audit.add(caller.actor, "file.deleted", file_id)
    return FileDeleted(id=file_id)


async def _results(services: Services, file: FileRecord) -> AsyncIterator[bytes]:
    """The lines of a list of results, one after the other."""
    after = 0
    while lines := await services.store.batches.lines(str(file.batch), after=after, done=not file.errors):
        for line in lines:
            yield (await result_of(services, line))[0]
        after = lines[-1].number


def _answer(file: FileRecord) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created),
        expires_at=int(file.expires),
        filename=file.name,
        purpose=file.purpose,
    )


def _users(data: bytes) -> set[str]:
    """The names of end users in the lines of an input, as far as they can be read."""
    names = set[str]()
    for line in lines_of(data.decode("utf-8", "replace")):
        if too_many_values(line.encode("utf-8", "surrogatepass")):
            continue  # a batch refuses the line
        try:
            body: Any = json.loads(line)["body"]
            named = [body.get("user"), body.get("safety_identifier")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        names.update(name for name in named if isinstance(name, str) and name)
    return names
