"""The lines of a batch: read from the input file, made jobs of, and written as results."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Message

from careedit.tabular import lines_of
from careedit_deployments.errors import FieldError, NotFoundError
from careedit_deployments.http.admission import too_many_values
from careedit_deployments.http.auth import Caller
from careedit_deployments.http.form import read_edit
from careedit_deployments.http.jobs import JobBody, JobFields, add_job, answer_of
from careedit_deployments.http.pictures import holding_pictures
from careedit_deployments.http.reading import once
from careedit_deployments.http.services import Services
from careedit_deployments.state.batch_records import BatchLine, BatchRecord
from careedit_deployments.state.records import JobRecord

ENDPOINT = "/v1/images/edits"
"""The only endpoint of batches."""
MAX_LINES = 50_000
"""Maximum number of lines of an input, as in OpenAI's API."""
MAX_ERRORS = 20
"""Maximum number of errors of an input that a batch reports."""

_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Ask:
    """One line of the input."""

    number: int
    """Number of the line in the file; the first one has 1."""
    custom_id: str
    """Name that the client gave to the line."""
    body: bytes
    """Body of the request, as JSON."""
    user: str | None = None
    """End user whom the body names."""


class Spool:
    """The bodies of waiting lines in a temporary file, so that a batch of many hours does not hold them in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._places: dict[int, tuple[int, int]] = {}

    def add(self, asks: Iterable[Ask]) -> None:
        """Write the bodies of lines."""
        for ask in asks:
            self._places[ask.number] = self._file.tell(), len(ask.body)
            self._file.write(ask.body)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def body(self, number: int) -> bytes:
        """The body of the line with this number."""
        start, size = self._places[number]
        self._file.seek(start)
        return self._file.read(size)


def read_lines(data: bytes) -> tuple[list[Ask], list[dict[str, Any]]]:
    """The requests of an input, and what is wrong with it: code, message, line and param of each error."""
    asks: list[Ask] = []
    errors: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    try:
        lines = lines_of(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return [], [_error("invalid_file", "The file is not UTF-8 text; save it as UTF-8.", None, None)]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            ask = _ask(line, number)
            if ask.custom_id in seen:
                raise FieldError(
                    f"The custom_id {ask.custom_id[:64]!r} is that of line {seen[ask.custom_id]} as well; give each line another.",
                    "custom_id",
                    "duplicate_custom_id",
                )
        except FieldError as error:
            errors.append(_error(error.code, str(error), number, error.field))
            continue
        seen[ask.custom_id] = number
        asks.append(ask)
    if len(asks) > MAX_LINES:
        errors.insert(0, _error("too_many_requests", f"A batch has at most {MAX_LINES:,} lines; split it.", None, None))
    if not asks and not errors:
        errors.append(_error("empty_file", "The file has no requests; write one per line.", None, None))
    return asks, errors[:MAX_ERRORS]


async def make_job(app: FastAPI, batch: BatchRecord, number: int, body: bytes) -> JobRecord:
    """The job of a line, as `POST /v1/jobs` makes it; the same job if it was made before. Raises what that route raises."""
    received = False

    async def receive() -> Message:
        nonlocal received
        if received:
            await asyncio.Event().wait()  # this client does not leave
        received = True
        return {"type": "http.request", "body": body, "more_body": False}

    services: Services = app.state.services
    policy = await services.store.tenants.policy(batch.owner)
    caller = Caller(id=batch.owner, key=batch.key, clear_names=batch.clear_names, policy=policy)
    scope = {
        "type": "http",
        "method": "POST",
        "path": ENDPOINT,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "app": app,
        "careedit.caller": caller,
        "careedit.request_id": batch.id,
    }
    request = Request(scope, receive)
    async with AsyncExitStack() as held:
        await held.enter_async_context(holding_pictures(request))
        form = await read_edit(request, JobFields, JobBody)
        # No Idempotency-Key of a client has a space, so this key is not one of theirs.
        job, _ = await add_job(request, form, f"{batch.id} {number}")
    return job


async def result_of(services: Services, line: BatchLine) -> tuple[bytes, bool]:
    """A line of the results or of the errors, and whether it is completed."""
    response, error, completed = None, None, False
    if line.job is None:
        refused = line.error or {}
        response, error = refused.get("response"), refused.get("error")
    else:
        try:
            job = await services.store.jobs.get(line.job)
            answer = await answer_of(services, job, whole=True)
        except NotFoundError:
            error = {"code": "job_deleted", "message": "The job of this line was deleted, and its result with it."}
        else:
            completed = answer.result is not None
            if answer.result is not None:
                body = await run_sync(partial(answer.result.model_dump, mode="json"))
                response = {"status_code": 200, "request_id": line.job, "body": body}
            elif answer.error is not None:
                error = answer.error.model_dump()
            else:
                error = {"code": f"job_{job.status}", "message": f"The job of this line was {job.status}."}
    document = {
        "id": f"batch_req_{line.batch.removeprefix('batch_')}_{line.number}",
        "custom_id": line.custom_id,
        "response": response,
        "error": error,
    }
    text = await run_sync(lambda: json.dumps(document, ensure_ascii=False, allow_nan=False))
    return f"{text}\n".encode(), completed


def _ask(line: str, number: int) -> Ask:
    """A line as a request. Raises `FieldError`."""
    if too_many_values(line.encode()):
        raise FieldError(
            "The line has too many values; send images as base64, not as numbers.", None, "invalid_json_line"
        )
    try:
        found = json.loads(line, object_pairs_hook=once)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FieldError("The line is not a JSON object; write one object per line.", None, "invalid_json_line")
    for name in _FIELDS:
        if name not in found:
            raise FieldError(f"The field {name!r} is missing; give it.", name, "missing_required_parameter")
    for name in found.keys() - set(_FIELDS):
        raise FieldError(f"The field {name[:64]!r} is unknown here; leave it out.", name[:64], "unknown_parameter")
    _check_values(found)
    body = found["body"]
    named = body.get("safety_identifier") or body.get("user")
    return Ask(number, found["custom_id"], json.dumps(body).encode(), named if isinstance(named, str) else None)


def _check_values(found: dict[str, Any]) -> None:
    if not isinstance(found["custom_id"], str) or not 1 <= len(found["custom_id"]) <= 512:
        raise FieldError("The custom_id must be a text of 1 to 512 characters.", "custom_id")
    if found["method"] != "POST":
        raise FieldError("The method must be 'POST'.", "method", "invalid_method")
    if found["url"] != ENDPOINT:
        raise FieldError(f"The url must be {ENDPOINT!r}, as the endpoint of the batch.", "url", "mismatched_endpoint")
    if not isinstance(found["body"], dict):
        raise FieldError("The body must be an object with the fields of an edit.", "body")
    for name in ("stream", "partial_images", "candidate_images", "session", "webhook"):
        if found["body"].get(name):
            raise FieldError(f"The field {name!r} has no use in a batch; leave it out.", name, "unsupported_parameter")


def _error(code: str, message: str, line: int | None, param: str | None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": param}
