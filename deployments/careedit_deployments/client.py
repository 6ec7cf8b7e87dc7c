"""A client of the HTTP API with the library's own records; the demo and the benchmarks use it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx2
from PIL import ImageChops

from careedit.errors import InputError
from careedit.files import png_bytes
from careedit.images import decode_image
from careedit.records import EditRequest, EditResult, EditTrace
from careedit_deployments.errors import OverloadedError, ServingError
from careedit_deployments.state.records import JOB_ENDS

MAX_FAILURES = 30
"""Number of failures in a row after which `follow` gives up."""
SILENCE_S = 40.0
"""Seconds without data after which a stream counts as broken; the server sends a comment every 10 seconds."""


@dataclass(frozen=True)
class JobEvent:
    """One event of a job."""

    number: int
    """Number of the event; 1 for the first of its job."""
    name: str
    """Name of the event, for example "job.completed"; docs/http-api.md lists them."""
    data: Mapping[str, Any]
    """The fields of the event, as JSON values."""


class Client:
    """Edits over HTTP. Threads may share a client. As a context, it closes its connections at the end."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 300.0) -> None:
        """`url` is the address of the server without a path; `timeout` is in seconds."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def edit(self, request: EditRequest, *, model: str | None = None, traceparent: str | None = None) -> EditResult:
        """Edit, and return the images and traces. `traceparent` makes the edit a part of a trace (W3C Trace Context).

        Raises `InputError` if the server refuses the request, `OverloadedError` if the request must be sent later,
        `ServingError` if the edit fails.
        """
        document = self._post(_fields(request, model), _files(request), traceparent)
        images = tuple(decode_image(base64.b64decode(one["b64_json"])) for one in document["data"])
        traces = tuple(EditTrace.model_validate_json(json.dumps(one)) for one in document["careedit"]["traces"])
        return EditResult(images=images, traces=traces)

    def follow(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """The events of a job after number `after`, each once, until the job has ended.

        Reconnects after the last event if a stream ends before the job does: the server ends each stream after a while, and
        a connection may break. Raises `InputError` for a job that does not exist, `ServingError` after `MAX_FAILURES`
        failures in a row.
        """
        failures = 0
        while True:
            pause, error = (
                1.0,
                ServingError(f"The stream of events of the job {job_id} breaks off; check whether the server runs."),
            )
            try:
                with self._http.stream(
                    "GET", f"/v1/jobs/{job_id}/events", headers={"last-event-id": str(after)}, timeout=SILENCE_S
                ) as answer:
                    if answer.status_code == 204:  # the job has ended, and `after` is its last event
                        return
                    if not answer.is_success:
                        answer.read()
                        pause = float(answer.headers.get("retry-after", "1"))
                        error = ServingError(_message(answer))
                        if answer.status_code < 500 and answer.status_code != 429:
                            raise InputError(_message(answer))
                    else:
                        for event in _events(answer.iter_lines()):
                            yield event
                            after, failures = event.number, 0
                            if event.name.removeprefix("job.") in JOB_ENDS:
                                return
                        failures = -1  # the server ended the stream after its time
            except httpx2.HTTPError:
                pass
            failures += 1
            if failures >= MAX_FAILURES:
                raise error
            time.sleep(pause)

    def _post(self, fields: Mapping[str, str], files: list[Any], traceparent: str | None) -> dict[str, Any]:
        headers = {} if traceparent is None else {"traceparent": traceparent}
        try:
            answer = self._http.post("/v1/images/edits", data=dict(fields), files=files, headers=headers)
        except httpx2.HTTPError as error:
            raise ServingError(
                f"The server does not answer ({type(error).__name__}); check whether it runs."
            ) from error
        if answer.is_success:
            document: dict[str, Any] = answer.json()
            return document
        message = _message(answer)
        if answer.status_code == 429:
            raise OverloadedError(message, float(answer.headers.get("retry-after", "1")))
        raise InputError(message) if answer.status_code < 500 else ServingError(message)


def _fields(request: EditRequest, model: str | None) -> dict[str, str]:
    wanted: dict[str, Any] = {
        "prompt": request.instruction,
        "n": request.n,
        "model": model,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "top_k": request.top_k,
        "refine_mask": request.refine_mask or None,
        "expert": request.expert if isinstance(request.expert, str) else json.dumps(dict(request.expert)),
        "early_filter": None if request.early_filter is None else request.early_filter.model_dump_json(),
    }
    return {name: str(value) for name, value in wanted.items() if value is not None}


def _files(request: EditRequest) -> list[Any]:
    files = [("image[]", ("source.png", png_bytes(request.image), "image/png"))]
    files += [("image[]", ("reference.png", png_bytes(picture), "image/png")) for picture in request.references]
    if request.mask is not None:
        transparent = request.image.copy()
        transparent.putalpha(ImageChops.invert(request.mask))  # OpenAI's masks: alpha 0 = edit
        files.append(("mask", ("mask.png", png_bytes(transparent), "image/png")))
    return files


def _events(lines: Iterable[str]) -> Iterator[JobEvent]:
    """The server-sent events of a stream; an incomplete event at its end is dropped, as the standard requires."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        else:
            if {"id", "data"} <= fields.keys():  # else it is a comment about the end of the stream
                yield JobEvent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {answer.status_code}; see its log."
