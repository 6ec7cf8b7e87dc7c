"""`POST /v1/images/edits`, as OpenAI's API has it, and careedit's fields beside it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.sse import KEEPALIVE_COMMENT
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from careedit_deployments.edits.backend import EditEvent, ImageDone, Preview
from careedit_deployments.edits.edit_service import Running
from careedit_deployments.edits.output import encode_base64
from careedit_deployments.edits.sessions import Turn
from careedit_deployments.errors import UnavailableError
from careedit_deployments.http.files import image_data
from careedit_deployments.http.form import EditInput, read_edit
from careedit_deployments.http.openapi import EDIT_ANSWERS, EDIT_BODIES
from careedit_deployments.http.order import check_before_decoding, order_of
from careedit_deployments.http.output import size_notes, target_size, usage_of
from careedit_deployments.http.schema import EditReport, ImagesResponse
from careedit_deployments.http.services import caller_of, limiter_of, services_of, sessions_of
from careedit_deployments.http.sse import HEARTBEAT_S, EventStream, Pump, sse, sse_error, unless_gone

FIRST_EVENT_S = 1.0
"""Seconds that a stream's head waits for the edit's first sign of life: an error until then still has a status."""

_NOT_KEPT = (
    "Idempotency-Key changes nothing here: a request that is repeated is another edit. POST it to /v1/jobs instead."
)

router = APIRouter(tags=["images"])


@dataclass(frozen=True, eq=False)
class _Accepted:
    """An edit that was started, and how its results are to look."""

    found: EditInput
    running: Running | Turn
    size: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def identity(self) -> str | None:
        fields = self.found.fields
        return fields.safety_identifier or fields.user

    @property
    def report(self) -> dict[str, Any]:
        """What every answer says of the edit."""
        turn = {"turn": self.running.turn_id} if isinstance(self.running, Turn) else {}
        session = self.found.fields.session
        notes = {"notes": self.notes} if self.notes else {}
        return {
            "id": self.running.id,
            "arm": self.running.arm,
            **({"session": session} if session else {}),
            **turn,
            **notes,
        }

    @property
    def headers(self) -> dict[str, str]:
        return {"x-careedit-arm": self.running.arm, "x-careedit-edit": self.running.id}

    async def encode(self, picture: Image.Image) -> str:
        fields = self.found.fields
        return await run_sync(encode_base64, picture, self.size, fields.output_format, fields.output_compression)


@router.post(
    "/v1/images/edits",
    operation_id="createImageEdit",
    response_model=ImagesResponse,
    responses=EDIT_ANSWERS,
    openapi_extra={"requestBody": EDIT_BODIES},
)
async def edit_image(request: Request) -> Response:
    """Edit a picture by an instruction. The answer is JSON, or, with `stream`, server-sent events."""
    async with AsyncExitStack() as stack:
        stack.enter_context(limiter_of(request).hold(caller_of(request)))
        found = await read_edit(request)
        accepted = await unless_gone(request, lambda: _accept(request, found))
        if not found.fields.stream:
            return await unless_gone(request, lambda: _whole(request, accepted))
        pump = Pump(accepted.running.events())
        stack.push_async_callback(pump.close)
        pump.start()
        first = await unless_gone(request, lambda: pump.next(FIRST_EVENT_S))
        return EventStream(_chunks(accepted, pump, first), headers=accepted.headers, resources=stack.pop_all())


async def _accept(request: Request, found: EditInput) -> _Accepted:
    services, session = services_of(request), found.fields.session
    check_before_decoding(services, found)
    base = None
    if session is not None:
        base = await sessions_of(request).base(session, caller_of(request).id)
        found = replace(found, pictures=(base.data, *found.pictures))
    order = await order_of(request, found, kept_source=base is not None)
    source = order.request.image.size
    size = target_size(found.fields, source, services.config)
    running = await (services.edits.start(order) if base is None else sessions_of(request).start(base, order))
    kept = () if "idempotency-key" not in request.headers else (_NOT_KEPT,)
    return _Accepted(found, running, size, (*found.notes, *size_notes(size, source), *kept))


async def _whole(request: Request, accepted: _Accepted) -> Response:
    """The answer without a stream."""
    made: dict[int, ImageDone] = {}
    async with aclosing(accepted.running.events()) as events:  # type: ignore[type-var]  # a generator, whose end stops it
        async for event in events:
            if isinstance(event, ImageDone):
                made[event.image] = event
    fields = accepted.found.fields
    if len(made) != fields.n:
        raise UnavailableError("The edit ended without all of its pictures; try again.")
    images = [made[i] for i in range(fields.n)]
    traces = [image.trace for image in images]
    answer = ImagesResponse(
        created=int(time.time()),
        data=[await image_data(request, fields, image.picture, accepted.size) for image in images],
        output_format=fields.output_format,
        quality=fields.level,
        size="{}x{}".format(*accepted.size),
        safety_identifier=accepted.identity,
        usage=usage_of(traces, fields.prompt, max(0, len(accepted.found.pictures) - 1)),
        careedit=EditReport(**accepted.report, traces=traces),
    )
    content = await run_sync(answer.model_dump_json)
    return Response(content, media_type=JSONResponse.media_type, headers=accepted.headers)


async def _chunks(accepted: _Accepted, pump: Pump[EditEvent], event: EditEvent | None) -> AsyncIterator[bytes]:
    """The answer as a stream; an error in it is its last event."""
    made = 0
    try:
        while True:
            if event is None:
                yield KEEPALIVE_COMMENT
            elif isinstance(event, Preview):
                yield sse("image_edit.partial_image", await _partial(accepted, event))
            elif isinstance(event, ImageDone):
                made += 1
                yield sse("image_edit.completed", await _completed(accepted, event))
            try:
                event = await pump.next(HEARTBEAT_S)
            except StopAsyncIteration:
                break
        if made != accepted.found.fields.n:
            raise UnavailableError("The edit ended without all of its pictures; try again.")
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
        yield sse_error(error)


async def _partial(accepted: _Accepted, event: Preview) -> dict[str, Any]:
    return {
        **await _event(accepted, "image_edit.partial_image", event.picture),
        "partial_image_index": event.index,
        "careedit": {**accepted.report, "image": event.image},
    }


async def _completed(accepted: _Accepted, event: ImageDone) -> dict[str, Any]:
    found = accepted.found
    data = {
        **await _event(accepted, "image_edit.completed", event.picture),
        "usage": usage_of([event.trace], found.fields.prompt, max(0, len(found.pictures) - 1)).model_dump(mode="json"),
        "careedit": {
            **accepted.report,
            "image": event.image,
            "traces": [event.trace.model_dump(mode="json")],
        },
    }
    return data if accepted.identity is None else {**data, "safety_identifier": accepted.identity}


async def _event(accepted: _Accepted, kind: str, picture: Image.Image) -> dict[str, Any]:
    fields = accepted.found.fields
    return {
        "type": kind,
        "b64_json": await accepted.encode(picture),
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": fields.output_format,
        "quality": fields.level,
        "size": "{}x{}".format(*accepted.size),
    }
