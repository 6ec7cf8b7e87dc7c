"""A client of the HTTP API that takes and gives the library's own records: what the demo and the benchmark speak with."""

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

TRIES = 30
"""Times in a row that a stream of events may not be had before it is given up."""
SILENCE_S = 40.0
"""Seconds of silence after which a stream counts as broken; the server says something every 10."""


@dataclass(frozen=True)
class JobEvent:
    """What happened to a job."""

    number: int
    """1 for its first event."""
    name: str
    """E.g. "job.completed"; docs/http-api.md lists them."""
    data: Mapping[str, Any]
    """The rest."""


class Client:
    """Edits over HTTP; safe to share between threads. As a context, it closes its connections at the end."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 300.0) -> None:
        """`url` is the server's address without a path; `timeout` is in seconds."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def edit(self, request: EditRequest, *, model: str | None = None) -> EditResult:
        """One request's images and traces.

        Raises `InputError` where the server refuses the request, `OverloadedError` where it is to come later,
        `ServingError` where the edit fails.
        """
        document = self._post(_fields(request, model), _files(request))
        images = tuple(decode_image(base64.b64decode(one["b64_json"])) for one in document["data"])
        traces = tuple(EditTrace.model_validate_json(json.dumps(one)) for one in document["careedit"]["traces"])
        return EditResult(images=images, traces=traces)

    def follow(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """The events of a job behind number `after`, each once, until the job has ended.

        Comes again, behind the last event, where a stream ends before the job does: the server ends each after a while, and
        a connection may break off. Raises `InputError` for a job that is not there, `ServingError` where the server gives no
        answer `TRIES` times in a row.
        """
        failures = 0
        while True:
            pause, error = 1.0, ServingError(f"The events of the job {job_id} break off; see whether the server runs.")
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
                        failures = -1  # it had its time
            except httpx2.HTTPError:
                pass
            failures += 1
            if failures >= TRIES:
                raise error
            time.sleep(pause)

    def _post(self, fields: Mapping[str, str], files: list[Any]) -> dict[str, Any]:
        try:
            answer = self._http.post("/v1/images/edits", data=dict(fields), files=files)
        except httpx2.HTTPError as error:
            raise ServingError(f"The server gives no answer ({type(error).__name__}); see whether it runs.") from error
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
    """Server-sent events of a stream's lines; one that breaks off in the middle is left out, as the standard asks."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        else:
            if {"id", "data"} <= fields.keys():  # else it says why the stream ends
                yield JobEvent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {answer.status_code}; see its log."
