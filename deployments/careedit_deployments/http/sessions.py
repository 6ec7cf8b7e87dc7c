"""`/v1/sessions`: multi-turn editing. A turn takes the body of an edit without its source, which the session has."""

from __future__ import annotations

import base64
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from careedit.images import decoding_notes, inspect_picture
from careedit_deployments.edits.backend import ImageDone
from careedit_deployments.edits.output import encode_base64
from careedit_deployments.edits.sessions import Turn
from careedit_deployments.errors import FieldError, UnavailableError
from careedit_deployments.http.amend import Amendment, bodies
from careedit_deployments.http.form import EditInput, no_address, parse, picture_bytes, read_edit, sort_form
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.order import check_before_decoding, order_of
from careedit_deployments.http.output import size_notes, target_size, usage_of
from careedit_deployments.http.pictures import decode_pictures, hold_memory, look_at
from careedit_deployments.http.reading import read_form, read_json
from careedit_deployments.http.schema import EditReport, ImageData, ImagesResponse
from careedit_deployments.http.services import caller_of, limiter_of, services_of, sessions_of
from careedit_deployments.http.session_answers import (
    History,
    SessionAnswer,
    SessionBody,
    SessionDeleted,
    SessionFields,
    SessionList,
    TurnAnswer,
    TurnFields,
    session_answer,
    turn_answer,
)
from careedit_deployments.http.sse import unless_gone

router = APIRouter(tags=["sessions"])

_ERRORS = error_answers(400, 401, 404, 413, 415, 429, 500, 503)
_JSON = SessionBody.model_json_schema(ref_template="#/components/schemas/{model}")
_JSON.pop("$defs")  # the edit route's schemas are components already
_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "user": {"type": "string"},
    },
}


async def start_turn(
    request: Request, found: EditInput, session_id: str, turn: str | None = None
) -> tuple[EditInput, Turn]:
    """Accept an edit as a session's turn; returns it with its source put in. `found.pictures` are the references."""
    sessions = sessions_of(request)
    check_before_decoding(services_of(request), found)
    base = await sessions.base(session_id, caller_of(request).id, turn)
    complete = replace(found, pictures=(base.data, *found.pictures))
    return complete, await sessions.start(base, await order_of(request, complete, kept_source=True))


@router.post(
    "/v1/sessions",
    operation_id="createSession",
    status_code=201,
    responses=_ERRORS,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _FORM},
                "application/json": {"schema": _JSON},
            },
        }
    },
)
async def create_session(request: Request) -> SessionAnswer:
    """Begin with a picture."""
    data, fields = await _read_session(request)
    file = await run_sync(look_at, data, "image", services_of(request).config.limits)
    await hold_memory(request, [file])
    (picture,) = await unless_gone(request, lambda: decode_pictures(request, [file]))
    owner = caller_of(request).id
    session = await sessions_of(request).create(picture, owner=owner, user=fields.user, model=fields.model)
    return session_answer(session).model_copy(update={"degradations": decoding_notes([picture])})


@router.get("/v1/sessions", operation_id="listSessions", responses=_ERRORS)
async def list_sessions(
    request: Request,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> SessionList:
    """The caller's sessions, newest first, those older than the session `after`."""
    page = await services_of(request).store.sessions.page(caller_of(request).id, before=after, limit=limit + 1)
    return SessionList(data=[session_answer(session) for session in page[:limit]], has_more=len(page) > limit)


@router.get(
    "/v1/sessions/{session_id}",
    operation_id="retrieveSession",
    responses=_ERRORS,
)
async def get_session(session_id: str, request: Request) -> SessionAnswer:
    """One session."""
    return session_answer(await sessions_of(request).get(session_id, caller_of(request).id))


@router.delete("/v1/sessions/{session_id}", operation_id="deleteSession", responses=_ERRORS)
async def delete_session(session_id: str, request: Request) -> SessionDeleted:
    """Delete a session with every byte, at once."""
    await sessions_of(request).delete(session_id, caller_of(request).id)
    return SessionDeleted(id=session_id)


@router.post(
    "/v1/sessions/{session_id}/turns",
    operation_id="createTurn",
    response_model=ImagesResponse,
    responses={**_ERRORS, **error_answers(504)},
    openapi_extra={
        "requestBody": bodies(TurnFields, without=("session", "stream", "partial_images", "n"), source=False)
    },
)
async def create_turn(session_id: str, request: Request) -> Response:
    """Edit the last result, or the one of `turn`. A turn with `stream` goes to /v1/images/edits, with `session`."""
    amended = Amendment(take=("turn",), session=session_id)
    with limiter_of(request).hold(caller_of(request)):
        found = await read_edit(request, amended)
        extra: TurnFields = parse(TurnFields, amended.taken)
        if found.fields.stream:
            raise FieldError("A turn is not streamed here; POST to /v1/images/edits with `session`.", "stream")
        if found.fields.response_format == "url":  # its copy would outlive a session that is deleted with every byte
            raise no_address("A session keeps its pictures")
        return await unless_gone(request, lambda: _turn(request, found, session_id, extra.turn))


@router.get("/v1/sessions/{session_id}/turns", operation_id="listTurns", responses=_ERRORS)
async def list_turns(session_id: str, request: Request) -> History:
    """Every turn."""
    sessions, owner = sessions_of(request), caller_of(request).id
    session = await sessions.get(session_id, owner)
    return History(head=session.head, data=[turn_answer(turn) for turn in await sessions.history(session_id, owner)])


@router.get(
    "/v1/sessions/{session_id}/turns/{turn_id}",
    operation_id="retrieveTurn",
    responses=_ERRORS,
)
async def get_turn(session_id: str, turn_id: str, request: Request) -> TurnAnswer:
    """One turn, with its result."""
    base = await sessions_of(request).base(session_id, caller_of(request).id, turn_id)
    if base.parent is None:
        raise FieldError("The source is no turn; take an id from the history.", "turn_id")
    return turn_answer(base.parent).model_copy(update={"b64_json": base64.b64encode(base.data).decode("ascii")})


@router.post(
    "/v1/sessions/{session_id}/undo",
    operation_id="undoTurn",
    responses={**_ERRORS, **error_answers(409)},
)
async def undo_turn(session_id: str, request: Request) -> SessionAnswer:
    """Go back to what the last turn edited; the turn stays in the history."""
    return session_answer(await sessions_of(request).undo(session_id, caller_of(request).id))


async def _turn(request: Request, found: EditInput, session_id: str, named: str | None) -> Response:
    complete, turn = await start_turn(request, found, session_id, named)
    fields = found.fields
    _, source = inspect_picture(complete.pictures[0])
    size = target_size(fields, source, services_of(request).config)
    made: ImageDone | None = None
    async with aclosing(turn.events()) as events:  # type: ignore[type-var]  # a generator, whose end stops the edit
        async for event in events:
            made = event if isinstance(event, ImageDone) else made
    if made is None:
        raise UnavailableError("The edit ended without its picture; try again.")
    data = await run_sync(encode_base64, made.picture, size, fields.output_format, fields.output_compression)
    answer = ImagesResponse(
        created=int(time.time()),
        data=[ImageData(b64_json=data)],
        output_format=fields.output_format,
        quality=fields.level,
        size="{}x{}".format(*size),
        safety_identifier=fields.safety_identifier or fields.user,
        usage=usage_of([made.trace], fields.prompt, len(found.pictures)),
        careedit=EditReport(
            id=turn.id,
            arm=turn.arm,
            session=session_id,
            turn=turn.turn_id,
            traces=[made.trace],
            notes=(*found.notes, *size_notes(size, source)),
        ),
    )
    headers = {"x-careedit-arm": turn.arm, "x-careedit-edit": turn.id}
    return Response(await run_sync(answer.model_dump_json), media_type="application/json", headers=headers)


async def _read_session(request: Request) -> tuple[bytes, SessionFields]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body: SessionBody = parse(SessionBody, await read_json(request), strict=True)
        return picture_bytes(body.image, "image"), body
    if kind != "multipart/form-data":
        raise FieldError("Send multipart/form-data or application/json.", "content-type", "unsupported_media_type")
    parts = await sort_form(await read_form(request))
    if parts.masks:
        raise FieldError("A session has no mask; give it with a turn.", "mask", "unknown_parameter")
    if len(parts.pictures) != 1:
        raise FieldError(
            f"{len(parts.pictures)} pictures were given; a session begins with one, in the field 'image'.",
            "image",
            "invalid_value" if parts.pictures else "missing_required_parameter",
        )
    fields: SessionFields = parse(SessionFields, parts.texts)
    return parts.pictures[0], fields
