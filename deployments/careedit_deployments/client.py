"""A client of the HTTP API with the library's own records; the demo and the benchmarks use it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from PIL import Image, ImageChops
from pydantic import ValidationError

from careedit.errors import InputError
from careedit.files import png_bytes, png_data_url
from careedit.images import decode_image
from careedit.record import BaseRecord
from careedit.records import EditRequest, EditResult
from careedit.scoring import Score, ScoreRequest
from careedit_deployments.edits.erasure import Receipt
from careedit_deployments.errors import OverloadedError, ServingError
from careedit_deployments.http.edits import RouteAnswer
from careedit_deployments.http.feedback import FeedbackAnswer
from careedit_deployments.http.jobs import JobAnswer, JobList
from careedit_deployments.http.schema import ImagesResponse, ScoreAnswer
from careedit_deployments.http.sessions import History, SessionAnswer, SessionList, TurnAnswer
from careedit_deployments.http.status import ArmList, ExpertInfo, ExpertList, Model, ModelList
from careedit_deployments.http.webhooks import Delivery, DeliveryList, Endpoint, EndpointList
from careedit_deployments.state.records import JOB_ENDS

A = TypeVar("A", bound=BaseRecord)

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
    """The HTTP API as methods. Threads may share a client. As a context, it closes its connections at the end.

    Every method raises `InputError` if the server refuses the request, `OverloadedError` if the request must be sent later,
    and `ServingError` if the server fails or does not answer. Answers are the records of `careedit_deployments.http`.
    """

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
        """Edit, and return the images and traces; `model` is the name of an arm or an expert set.

        `traceparent` makes the edit a part of a trace (W3C Trace Context).
        """
        return result_of(self.answer(request, model=model, traceparent=traceparent))

    def answer(
        self, request: EditRequest, *, model: str | None = None, traceparent: str | None = None
    ) -> ImagesResponse:
        """As `edit`, but the whole answer; `rate` and `compare` take the id in its `careedit.id`."""
        headers = _given(traceparent=traceparent)
        return self._ask(ImagesResponse, "POST", "/v1/images/edits", headers=headers, **_form(request, model=model))

    def route(self, request: EditRequest, *, model: str | None = None) -> RouteAnswer:
        """Which experts would edit, and why. Nothing is edited."""
        return self._ask(RouteAnswer, "POST", "/v1/routes", **_form(request, model=model))

    def score(self, pairs: Sequence[ScoreRequest]) -> list[Score]:
        """The judge's scores, one per pair."""
        body = [
            {
                "source": _image_ref(pair.source),
                "edited": _image_ref(pair.edited),
                "instruction": pair.instruction,
                "reference": _image_ref(pair.references[0]) if pair.references else None,
            }
            for pair in pairs
        ]
        return self._ask(ScoreAnswer, "POST", "/v1/scores", json={"pairs": body}).scores

    def rate(self, edit: str, rating: int, *, comment: str | None = None) -> FeedbackAnswer:
        """Rate an edit from 1 to 5. A second verdict about it replaces the first."""
        return self._feedback(edit=edit, rating=rating, comment=comment)

    def compare(self, edits: tuple[str, str], winner: str, *, comment: str | None = None) -> FeedbackAnswer:
        """Say which of two edits is better: the id of one, or "tie"."""
        return self._feedback(edits=list(edits), winner=winner, comment=comment)

    def queue(
        self,
        request: EditRequest,
        *,
        model: str | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobAnswer:
        """Queue an edit as a job. The same `idempotency_key` with the same request returns the same job."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        return self._ask(JobAnswer, "POST", "/v1/jobs", headers=headers, **_form(request, model=model, webhook=webhook))

    def job(self, job_id: str) -> JobAnswer:
        """The state of a job; `result_of(job.result)` are the images and traces of a completed one."""
        return self._ask(JobAnswer, "GET", f"/v1/jobs/{_part(job_id)}")

    def jobs(self, *, after: str | None = None, limit: int = 20) -> JobList:
        """A page of at most `limit` jobs, newest first, from those older than the job `after`."""
        return self._ask(JobList, "GET", "/v1/jobs", params=_given(after=after, limit=limit))

    def delete_job(self, job_id: str) -> None:
        """Cancel a job that has not ended, or delete one that has."""
        self._send("DELETE", f"/v1/jobs/{_part(job_id)}")

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
                        pause = _pause(answer)
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

    def deliveries(self, job_id: str) -> list[Delivery]:
        """The webhook messages about the end of a job, with their attempts and the last error."""
        return self._ask(DeliveryList, "GET", f"/v1/jobs/{_part(job_id)}/deliveries").data

    def resend(self, job_id: str) -> list[Delivery]:
        """Send the messages about a job again that were delivered or given up."""
        return self._ask(DeliveryList, "POST", f"/v1/jobs/{_part(job_id)}/deliveries/resend").data

    def endpoints(self) -> list[Endpoint]:
        """The registered webhook endpoints, without their secrets."""
        return self._ask(EndpointList, "GET", "/v1/webhooks").data

    def add_endpoint(self, url: str) -> Endpoint:
        """Register an address for messages about every job. Keep the `secret` of the result; it is shown once."""
        return self._ask(Endpoint, "POST", "/v1/webhooks", json={"url": url})

    def rotate_secret(self, endpoint_id: str, *, overlap_s: int = 24 * 3600) -> Endpoint:
        """Give an endpoint a new `secret`. The old one signs as well for `overlap_s` seconds."""
        body = {"overlap_s": overlap_s}
        return self._ask(Endpoint, "POST", f"/v1/webhooks/{_part(endpoint_id)}/rotate", json=body)

    def delete_endpoint(self, endpoint_id: str) -> None:
        """Delete an endpoint. Messages to it that were not delivered yet are given up."""
        self._send("DELETE", f"/v1/webhooks/{_part(endpoint_id)}")

    def start_session(self, image: Image.Image, *, model: str | None = None, user: str | None = None) -> SessionAnswer:
        """Start a session, in which each turn edits the result of the one before."""
        files = [("image", ("source.png", png_bytes(image), "image/png"))]
        return self._ask(SessionAnswer, "POST", "/v1/sessions", data=_given(model=model, user=user), files=files)

    def session(self, session_id: str) -> SessionAnswer:
        """The state of a session."""
        return self._ask(SessionAnswer, "GET", f"/v1/sessions/{_part(session_id)}")

    def sessions(self, *, after: str | None = None, limit: int = 20) -> SessionList:
        """A page of at most `limit` sessions, newest first, from those older than the session `after`."""
        return self._ask(SessionList, "GET", "/v1/sessions", params=_given(after=after, limit=limit))

    def delete_session(self, session_id: str) -> None:
        """Delete a session with all of its images."""
        self._send("DELETE", f"/v1/sessions/{_part(session_id)}")

    def edit_in_session(self, session_id: str, request: EditRequest, *, turn: str | None = None) -> EditResult:
        """Edit the last result of a session, or that of `turn`. The image of `request` is not sent."""
        path = f"/v1/sessions/{_part(session_id)}/turns"
        return result_of(self._ask(ImagesResponse, "POST", path, **_form(request, source=False, turn=turn)))

    def turns(self, session_id: str) -> History:
        """Every turn of a session, in the order in which they were made."""
        return self._ask(History, "GET", f"/v1/sessions/{_part(session_id)}/turns")

    def turn(self, session_id: str, turn_id: str) -> TurnAnswer:
        """A turn with its result."""
        return self._ask(TurnAnswer, "GET", f"/v1/sessions/{_part(session_id)}/turns/{_part(turn_id)}")

    def undo(self, session_id: str) -> SessionAnswer:
        """Undo the last turn of a session."""
        return self._ask(SessionAnswer, "POST", f"/v1/sessions/{_part(session_id)}/undo")

    def export_user(self, user: str) -> bytes:
        """A zip file with what is stored of an end user of the caller's tenant; needs the scope `admin`."""
        return self._send("GET", f"/v1/users/{_part(user)}")

    def erase_user(self, user: str) -> Receipt:
        """Erase what is stored of an end user of the caller's tenant; needs the scope `admin`."""
        return self._ask(Receipt, "DELETE", f"/v1/users/{_part(user)}")

    def models(self) -> list[Model]:
        """The arms that a request may name."""
        return self._ask(ModelList, "GET", "/v1/models").data

    def model(self, name: str) -> Model:
        """The arm with this name."""
        return self._ask(Model, "GET", f"/v1/models/{_part(name)}")

    def experts(self) -> list[ExpertInfo]:
        """The experts that a request may name, arm by arm."""
        return self._ask(ExpertList, "GET", "/v1/experts").data

    def arms(self, *, hours: float | None = None, limit: int = 20) -> ArmList:
        """The state of the A/B test over the last `hours`, with at most `limit` latest edits; needs the scope `operator`."""
        return self._ask(ArmList, "GET", "/v1/arms", params=_given(hours=hours, limit=limit))

    def _feedback(self, **fields: Any) -> FeedbackAnswer:
        return self._ask(FeedbackAnswer, "POST", "/v1/feedback", json=_given(**fields))

    def _ask(self, answer: type[A], method: str, path: str, **content: Any) -> A:
        try:
            return answer.model_validate_json(self._send(method, path, **content))
        except ValidationError:
            raise ServingError(
                f"The answer to {method} {path} is not one of careedit; check the address of the server, and whether its "
                "version is this client's."
            ) from None

    def _send(self, method: str, path: str, **content: Any) -> bytes:
        try:
            answer = self._http.request(method, path, **content)
        except httpx2.HTTPError as error:
            raise ServingError(
                f"The server does not answer ({type(error).__name__}); check whether it runs."
            ) from error
        if answer.is_success:
            return answer.content
        message = _message(answer)
        if answer.status_code == 429:
            raise OverloadedError(message, _pause(answer))
        raise InputError(message) if answer.status_code < 500 else ServingError(message)


def result_of(answer: ImagesResponse) -> EditResult:
    """The images and traces of an answer."""
    images = tuple(decode_image(base64.b64decode(one.b64_json or "")) for one in answer.data)
    return EditResult(images=images, traces=tuple(answer.careedit.traces))


def _part(name: str) -> str:
    """An id or a name as one part of a path."""
    return quote(name, safe="")


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _image_ref(image: Image.Image) -> dict[str, str]:
    return {"image_url": png_data_url(image)}


def _form(request: EditRequest, *, source: bool = True, **fields: str | None) -> dict[str, Any]:
    """The fields and files of a request, with these fields in addition."""
    wanted = _given(
        prompt=request.instruction,
        n=request.n,
        seed=request.seed,
        steps=request.steps,
        guidance=request.guidance,
        top_k=request.top_k,
        refine_mask=request.refine_mask or None,
        expert=request.expert if isinstance(request.expert, str) else json.dumps(dict(request.expert)),
        early_filter=None if request.early_filter is None else request.early_filter.model_dump_json(),
        **fields,
    )
    pictures = [
        *([("source.png", request.image)] if source else []),
        *(("reference.png", one) for one in request.references),
    ]
    # Texts as parts, too: a turn has no file, and a form without one would not be multipart.
    files: list[Any] = [(name, (None, str(value))) for name, value in wanted.items()]
    files += [("image[]", (name, png_bytes(picture), "image/png")) for name, picture in pictures]
    if request.mask is not None:
        transparent = request.image.copy()
        transparent.putalpha(ImageChops.invert(request.mask))  # OpenAI's masks: alpha 0 = edit
        files.append(("mask", ("mask.png", png_bytes(transparent), "image/png")))
    return {"files": files}


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


def _pause(answer: httpx2.Response) -> float:
    """Seconds after which a request may be sent again."""
    stated = answer.headers.get("retry-after", "")
    return float(stated) if stated.isdecimal() else 1.0  # a proxy may send a date


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {answer.status_code}; see its log."
