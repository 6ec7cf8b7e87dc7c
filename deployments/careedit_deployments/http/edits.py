"""`POST /v1/images/edits`, OpenAI's route with careedit's fields, and `POST /v1/routes`, which only routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter
from fastapi.sse import KEEPALIVE_COMMENT
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from careedit.records import RoutingDecision, mixture_rows
from careedit.selection.plan import evaluations
from careedit_deployments.edits.backend import Candidate, EditEvent, ImageDone, Preview
from careedit_deployments.edits.output import Output
from careedit_deployments.errors import FieldError, UnavailableError
from careedit_deployments.http.accept import AcceptedEdit, accept, check_before_decoding, finish, order_of
from careedit_deployments.http.form import read_edit
from careedit_deployments.http.openapi import EDIT_ANSWERS, EDIT_BODIES, error_answers
from careedit_deployments.http.output import usage_of
from careedit_deployments.http.schema import Answer, ImagesResponse
from careedit_deployments.http.services import caller_of, limiter_of, services_of, trace_headers_of
from careedit_deployments.http.sse import HEARTBEAT_S, EventStream, EventStreamResponse, sse, sse_error, unless_gone
from careedit_deployments.state.clock import unix_time

FIRST_EVENT_S = 1.0
"""Seconds that the head of a stream waits for the first event of the edit: an error until then still gets its status."""

_NOT_IDEMPOTENT = "Idempotency-Key has no effect here: a repeated request is another edit. POST it to /v1/jobs instead."

router = APIRouter()


@router.post(
    "/v1/images/edits",
    tags=["images"],
    operation_id="createImageEdit",
    response_model=ImagesResponse,
    responses=EDIT_ANSWERS,
    openapi_extra={"requestBody": EDIT_BODIES},
)
async def edit_image(request: Request) -> Response:
    """Edit an image by an instruction. The answer is JSON, or server-sent events if `stream` is set."""
    async with AsyncExitStack() as stack:
        stack.enter_context(limiter_of(request).hold(caller_of(request)))
        with services_of(request).tracing.span("read", trace_headers_of(request)):
            form = await read_edit(request)
        notes = (_NOT_IDEMPOTENT,) if "idempotency-key" in request.headers else ()
        accepted = await unless_gone(request, lambda: accept(request, form, notes=notes))
        if not form.fields.stream:
            return await unless_gone(request, lambda: finish(request, accepted))
        events = EventStream(accepted.running.events())
        stack.push_async_callback(events.close)
        events.start()
        first = await unless_gone(request, lambda: events.next(FIRST_EVENT_S))
        chunks = _chunks(accepted, events, first)
        return EventStreamResponse(chunks, headers=accepted.headers, resources=stack.pop_all())


async def _chunks(
    accepted: AcceptedEdit, events: EventStream[EditEvent], event: EditEvent | None
) -> AsyncIterator[bytes]:
    """The answer as a stream; an error in it is its last event."""
    done = 0
    try:
        while True:
            if event is None:
                yield KEEPALIVE_COMMENT
            elif isinstance(event, Preview):
                yield sse("image_edit.partial_image", await _preview(accepted, event))
            elif isinstance(event, Candidate):
                yield sse("image_edit.candidate", await _candidate(accepted, event))
            elif isinstance(event, ImageDone):
                done += 1
                yield sse("image_edit.completed", await _completed(accepted, event))
            try:
                event = await events.next(HEARTBEAT_S)
            except StopAsyncIteration:
                break
        if done != accepted.form.fields.n:
            raise UnavailableError("The edit ended before all of its images were made; try again.")
    except Exception as error:  # noqa: BLE001 - the client gets every error as an event
        yield sse_error(error)


async def _preview(accepted: AcceptedEdit, event: Preview) -> dict[str, Any]:
    return {
        **await _event(accepted, "image_edit.partial_image", event.picture),
        "partial_image_index": event.index,
        "careedit": {**accepted.report, "image": event.image},
    }


async def _candidate(accepted: AcceptedEdit, event: Candidate) -> dict[str, Any]:
    own_size = accepted.output.model_copy(update={"size": event.picture.size})
    return {
        **await _event(accepted, "image_edit.candidate", event.picture, own_size),
        "candidate_index": event.index,
        "careedit": {**accepted.report, "image": event.image},
    }


async def _completed(accepted: AcceptedEdit, event: ImageDone) -> dict[str, Any]:
    fields = accepted.form.fields
    data = {
        **await _event(accepted, "image_edit.completed", event.picture),
        "usage": usage_of([event.trace], fields.prompt, accepted.references).model_dump(mode="json"),
        "careedit": {
            **accepted.report,
            "image": event.image,
            "traces": [event.trace.model_dump(mode="json")],
            **({"policy": [mark.model_dump(mode="json") for mark in event.marks]} if event.marks else {}),
        },
    }
    return data if fields.end_user is None else {**data, "safety_identifier": fields.end_user}


async def _event(
    accepted: AcceptedEdit, kind: str, picture: Image.Image, output: Output | None = None
) -> dict[str, Any]:
    output = output or accepted.output
    return {
        "type": kind,
        "b64_json": await accepted.encode_base64(picture, output),
        "background": "opaque",
        "created_at": int(unix_time()),
        "output_format": output.format,
        "quality": output.quality,
        "size": "{}x{}".format(*output.size),
    }


class RouteAnswer(Answer):
    """The experts that would edit, and the cost."""

    model: str
    """Name of the arm that the user is assigned to."""
    expert_set: str
    """Name of the arm's expert set."""
    routing: RoutingDecision
    """The chosen experts, their weights, and the reason."""
    steps: int
    """Number of denoising steps per image."""
    evaluations: int
    """Maximum number of transformer evaluations that the edit would take."""


@router.post(
    "/v1/routes",
    tags=["models"],
    operation_id="createRoute",
    openapi_extra={"requestBody": EDIT_BODIES},
    responses=error_answers(400, 401, 404, 413, 415, 429, 500, 503),
)
async def explain_route(request: Request) -> RouteAnswer:
    """Take the body of an edit and say which experts would make it, and why. Nothing is edited or stored."""
    services = services_of(request)
    form = await read_edit(request)
    if not form.pictures:  # `read_edit` accepts that in a session
        raise FieldError("A routing request has no session; send the source.", "session")
    check_before_decoding(request, form)
    order = await unless_gone(request, lambda: order_of(request, form))
    running = await unless_gone(request, lambda: services.edits.start(order, counted=False))
    arm = services.backend.arms[running.arm]
    steps = order.request.steps or arm.steps
    return RouteAnswer(
        model=running.arm,
        expert_set=arm.expert_set,
        routing=running.decision,
        steps=steps,
        evaluations=evaluations(
            order.request.early_filter,
            n=order.request.n,
            steps=steps,
            rows=len(mixture_rows(running.decision.weights, masked=order.request.mask is not None)),
        ),
    )
