"""Sessions and turns as clients see them."""

from __future__ import annotations

from careedit_deployments.http.schema import Answer, Body, ImageRef, Text
from careedit_deployments.state.records import SessionRecord, TurnRecord


class SessionFields(Body):
    """What a session's body has beside the picture."""

    model: Text | None = None
    """Arm or expert set of its turns; absent: the traffic's split decides."""
    user: Text | None = None
    """Who edits, in the client's words."""


class SessionBody(SessionFields):
    """`POST /v1/sessions` as JSON."""

    image: ImageRef
    """The picture."""


class TurnFields(Body):
    """What a turn's body has beside an edit's."""

    turn: Text | None = None
    """Id of the turn whose result is edited, or "source"; absent: the last one's."""


class SessionAnswer(Answer):
    """A session."""

    id: str
    """Id of the session."""
    object: str = "session"
    """Always "session"."""
    created_at: int
    """Unix time at which it was made."""
    expires_at: int
    """Unix time at which it is deleted; every turn puts it off."""
    head: str | None = None
    """The turn whose result the next turn edits; absent: the source."""
    turns: int
    """Turns that were ever made."""
    model: str | None = None
    """As given."""
    degradations: tuple[str, ...] = ()
    """Where the session is made: what the picture lost when it was decoded."""


class TurnAnswer(Answer):
    """A turn, as the history tells of it."""

    id: str
    """Id of the turn."""
    object: str = "session.turn"
    """Always "session.turn"."""
    number: int
    """1 for the first turn."""
    parent: str | None = None
    """The turn whose result it edited; absent: the source."""
    prompt: str
    """What was asked for."""
    edit: str
    """Id of the edit, for feedback."""
    arm: str
    """Who edited."""
    created_at: int
    """Unix time at which it was made."""
    b64_json: str | None = None
    """The result, a PNG; only where one turn is asked for."""


class History(Answer):
    """The turns of a session."""

    object: str = "list"
    """Always "list"."""
    head: str | None
    """The turn whose result the next turn edits; null: the source."""
    data: list[TurnAnswer]
    """In the order in which they were made; those that were undone are among them."""


class SessionList(Answer):
    """A page of sessions."""

    object: str = "list"
    """Always "list"."""
    data: list[SessionAnswer]
    """Newest first."""
    has_more: bool
    """Whether there is a next page; its `after` is the last one's id."""


class SessionDeleted(Answer):
    """A session that is gone with every byte."""

    id: str
    """Its id."""
    object: str = "session.deleted"
    """Always "session.deleted"."""
    deleted: bool = True
    """Always true."""


def session_answer(session: SessionRecord) -> SessionAnswer:
    """A session as clients see it."""
    return SessionAnswer(
        id=session.id,
        created_at=int(session.created),
        expires_at=int(session.expires),
        head=session.head,
        turns=session.turns,
        model=session.model,
    )


def turn_answer(turn: TurnRecord) -> TurnAnswer:
    """A turn as clients see it, without its picture."""
    return TurnAnswer(
        id=turn.id,
        number=turn.number,
        parent=turn.parent,
        prompt=turn.instruction,
        edit=turn.edit_id,
        arm=turn.arm,
        created_at=int(turn.created),
    )
