"""`/v1/sessions`: editing in turns. A turn takes the body of an edit without the source, which the session has."""

from __future__ import annotations

import base64
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from careedit.images import decoding_notes
from careedit_deployments.errors import FieldError
from careedit_deployments.http.accept import accept, finish, ingredient_from
from careedit_deployments.http.form import parse, picture_bytes, read_edit, sort_form
from careedit_deployments.http.openapi import edit_bodies, error_answers
from careedit_deployments.http.pictures import decode_pictures, hold_memory, inspect
from careedit_deployments.http.reading import read_form, read_json
from careedit_deployments.http.schema import (
    Answer,
    Body,
    EditBody,
    EditFields,
    ImageRef,
    ImagesResponse,
    ListAnswer,
    Text,
)
from careedit_deployments.http.services import caller_of, limiter_of, limits_of, services_of, sessions_of, user_of
from careedit_deployments.http.sse import unless_gone
from careedit_deployments.policy.contract import PolicyMark
from careedit_deployments.state.records import SessionRecord, TurnRecord

router = APIRouter(tags=["sessions"])


class SessionFields(Body):
    """The fields of a session, without its image."""

    model: Text | None = None
    """Name of the arm or expert set of its turns. Default: the traffic weights decide."""
    user: Text | None = None
    """The client's name for the end user. Default: none."""


class SessionBody(SessionFields):
    """`POST /v1/sessions` as JSON."""

    image: ImageRef
    """The source of the session."""


class TurnFields(EditFields):
    """The fields of a turn in a form: those of an edit, and more."""

    model_config = ConfigDict(title="EditFieldsWithTurnFields")

    turn: Text | None = None
    """Id of the turn whose result is edited, or "source". Default: the last turn."""


class TurnBody(EditBody, TurnFields):
    """`POST /v1/sessions/ID/turns` as JSON."""

    model_config = ConfigDict(title="EditBodyWithTurnFields")


class SessionAnswer(Answer):
    """The state of a session."""

    id: str
    """Id of the session, for the routes below `/v1/sessions`."""
    object: str = "session"
    """Type of the answer; always "session"."""
    created_at: int
    """Time at which the session was created, in Unix seconds."""
    expires_at: int
    """Time at which the session is deleted, in Unix seconds; every turn extends it, up to the server's maximum
    lifetime of a session."""
    head: str | None = None
    """Id of the turn whose result the next turn edits; null: the source."""
    turns: int
    """Number of turns that were made, undone ones included."""
    model: str | None = None
    """Name of the arm or expert set of its turns, as given; null: the traffic weights decide."""
    degradations: tuple[str, ...] = ()
    """Only when the session is created: what the image lost when it was decoded."""


class TurnAnswer(Answer):
    """One turn of a session."""

    id: str
    """Id of the turn, for the field `turn` of a later turn."""
    object: str = "session.turn"
    """Type of the answer; always "session.turn"."""
    number: int
    """Number of the turn; 1 for the first."""
    parent: str | None = None
    """Id of the turn whose result this turn edited; null: the source."""
    prompt: str
    """The instruction of the turn."""
    edit: str
    """Id of the edit, to which feedback refers."""
    arm: str
    """Name of the arm that edited."""
    policy: Annotated[tuple[PolicyMark, ...], Field(exclude_if=lambda marks: not marks)] = ()
    """Marks of the server's content policy for the turn's input and result; absent without any."""
    created_at: int
    """Time at which the turn was made, in Unix seconds."""
    b64_json: str | None = None
    """The result as a PNG in base64; null in lists."""


class History(ListAnswer):
    """Every turn of a session."""

    head: str | None
    """Id of the turn whose result the next turn edits; null: the source."""
    data: list[TurnAnswer]
    """The turns in the order in which they were made, undone ones included."""


class SessionList(ListAnswer):
    """A page of the caller's sessions."""

    data: list[SessionAnswer]
    """The sessions of the page, newest first."""
    has_more: bool
    """Whether another page follows; pass the id of the last session as `after` to get it."""


class SessionDeleted(Answer):
    """The answer to the deletion of a session."""

    id: str
    """Id of the deleted session."""
    object: str = "session.deleted"
    """Type of the answer; always "session.deleted"."""
    deleted: bool = True
    """Always true, as in OpenAI's API."""


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
    """Create a session from an image."""
    data, fields = await _read_session(request)
    file = await run_sync(inspect, data, "image", limits_of(request))
    await hold_memory(request, [file])
    (picture,) = await unless_gone(request, lambda: decode_pictures(request, [file]))
    owner, user = caller_of(request).id, await user_of(request, fields.user)
    ingredient = await ingredient_from(request, data)
    session = await sessions_of(request).create(
        picture, sent=data, ingredient=ingredient, owner=owner, user=user, model=fields.model
    )
    return session_answer(session).model_copy(update={"degradations": decoding_notes([picture])})


@router.get("/v1/sessions", operation_id="listSessions", responses=_ERRORS)
async def list_sessions(
    request: Request,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> SessionList:
    """List the caller's sessions, newest first, from those older than the session `after`."""
    page = await services_of(request).store.sessions.page(caller_of(request).id, before=after, limit=limit + 1)
    return SessionList(data=[session_answer(session) for session in page[:limit]], has_more=len(page) > limit)


@router.get(
    "/v1/sessions/{session_id}",
    operation_id="retrieveSession",
    responses=_ERRORS,
)
async def get_session(session_id: str, request: Request) -> SessionAnswer:
    """Return one session."""
    return session_answer(await sessions_of(request).get(session_id, caller_of(request).id))


@router.delete("/v1/sessions/{session_id}", operation_id="deleteSession", responses=_ERRORS)
async def delete_session(session_id: str, request: Request) -> SessionDeleted:
    """Delete a session with all of its images, at once."""
    caller = caller_of(request)
    await sessions_of(request).delete(session_id, caller.id, actor=caller.actor)
    return SessionDeleted(id=session_id)


@router.post(
    "/v1/sessions/{session_id}/turns",
    operation_id="createTurn",
    response_model=ImagesResponse,
    responses={**_ERRORS, **error_answers(504)},
    openapi_extra={
        "requestBody": edit_bodies(
            TurnFields, TurnBody, without=("session", "stream", "partial_images", "candidate_images", "n"), source=False
        )
    },
)
async def create_turn(session_id: str, request: Request) -> Response:
    """Edit the last result, or that of `turn`. For a stream, use /v1/images/edits with `session`."""
    with limiter_of(request).hold(caller_of(request)):
        form = await read_edit(request, TurnFields, TurnBody, session=session_id)
        assert isinstance(form.fields, TurnFields)
        turn = form.fields.turn
        if form.fields.stream:
            raise FieldError("A turn is not streamed here; POST it to /v1/images/edits with `session`.", "stream")

        async def make() -> Response:
            return await finish(request, await accept(request, form, turn=turn))

        return await unless_gone(request, make)


@router.get("/v1/sessions/{session_id}/turns", operation_id="listTurns", responses=_ERRORS)
async def list_turns(session_id: str, request: Request) -> History:
    """List every turn of a session."""
    sessions, owner = sessions_of(request), caller_of(request).id
    session = await sessions.get(session_id, owner)
    return History(head=session.head, data=[turn_answer(turn) for turn in await sessions.history(session_id, owner)])


@router.get(
    "/v1/sessions/{session_id}/turns/{turn_id}",
    operation_id="retrieveTurn",
    responses=_ERRORS,
)
async def get_turn(session_id: str, turn_id: str, request: Request) -> TurnAnswer:
    """Return one turn, with its result."""
    base = await sessions_of(request).base(session_id, caller_of(request).id, turn_id)
    if base.parent is None:
        raise FieldError("The source is not a turn; give the id of a turn from the list.", "turn_id")
    return turn_answer(base.parent).model_copy(update={"b64_json": base64.b64encode(base.data).decode("ascii")})


@router.post(
    "/v1/sessions/{session_id}/undo",
    operation_id="undoTurn",
    responses={**_ERRORS, **error_answers(409)},
)
async def undo_turn(session_id: str, request: Request) -> SessionAnswer:
    """Undo the last turn: the next turn edits what it edited. The turn stays in the list."""
    return session_answer(await sessions_of(request).undo(session_id, caller_of(request).id))


async def _read_session(request: Request) -> tuple[bytes, SessionFields]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body: SessionBody = parse(SessionBody, await read_json(request), strict=True)
        return picture_bytes(body.image, "image"), body
    if kind != "multipart/form-data":
        raise FieldError("Send multipart/form-data or application/json.", "content-type", "unsupported_media_type")
    parts = await sort_form(await read_form(request))
    if parts.masks:
        raise FieldError("A session takes no mask; send it with a turn.", "mask", "unknown_parameter")
    if len(parts.pictures) != 1:
        raise FieldError(
            f"{len(parts.pictures)} images were given; a session starts from one, in the field 'image'.",
            "image",
            "invalid_value" if parts.pictures else "missing_required_parameter",
        )
    fields: SessionFields = parse(SessionFields, parts.texts)
    return parts.pictures[0], fields


def session_answer(session: SessionRecord) -> SessionAnswer:
    """The answer about a session."""
    return SessionAnswer(**dict(session), created_at=int(session.created), expires_at=int(session.expires))


def turn_answer(turn: TurnRecord) -> TurnAnswer:
    """The answer about a turn, without its image."""
    marks = tuple(PolicyMark(**mark) for mark in turn.marks or ())
    created = int(turn.created)
    return TurnAnswer(**dict(turn), prompt=turn.instruction, edit=turn.edit_id, policy=marks, created_at=created)
