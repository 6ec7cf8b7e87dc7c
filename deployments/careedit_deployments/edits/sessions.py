"""Sessions: a picture that is edited turn by turn. A turn edits the last result or an earlier one, so turns form a tree.

`head` is the turn whose result comes next; undo moves it to its parent and deletes nothing, so that what was undone can
still be named. A turn that fails leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from anyio.to_thread import run_sync
from PIL import Image

from careedit.errors import InputError
from careedit.records import RoutingDecision
from careedit_deployments.edits.backend import EditEvent, EditOrder, ImageDone
from careedit_deployments.edits.deletion import delete_session
from careedit_deployments.edits.edit_service import EditService, Running
from careedit_deployments.edits.stored import png_of
from careedit_deployments.errors import ConflictError, NotFoundError
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import SessionRecord, TurnRecord, new_id
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

SOURCE = "source"
"""Names the picture that a session began with, where a turn is asked for."""


def scope_of(session_id: str) -> str:
    """Where a session's pictures are."""
    return f"sessions/{session_id}"


@dataclass(frozen=True)
class Base:
    """What a turn starts from."""

    session: SessionRecord
    """The session."""
    parent: TurnRecord | None
    """The turn whose result is edited; None: the source is."""
    data: bytes
    """That picture, a PNG."""

    @property
    def depth(self) -> int:
        """Edits that were made of the source before."""
        return 0 if self.parent is None else self.parent.depth


class Sessions:
    """Everything that can be done with sessions. `owner` is the caller's id: nobody sees another one's."""

    def __init__(self, edits: EditService, store: Store, blobs: BlobStore, metrics: Metrics, *, ttl_s: float) -> None:
        self._edits, self._store, self._blobs, self._metrics, self._ttl_s = edits, store, blobs, metrics, ttl_s

    async def create(
        self, picture: Image.Image, *, owner: str, user: str | None = None, model: str | None = None
    ) -> SessionRecord:
        """Begin with a picture."""
        identity, now = new_id("session"), time.time()
        source = await self._blobs.put(scope_of(identity), await run_sync(png_of, picture), suffix="png")
        session = SessionRecord(
            id=identity, owner=owner, user=user, model=model, source=source, created=now, expires=now + self._ttl_s
        )
        try:
            await self._store.sessions.add(session)
        except BaseException:
            await self._blobs.delete_scope(scope_of(identity))
            raise
        self._metrics.session("made")
        return session

    async def get(self, session_id: str, owner: str) -> SessionRecord:
        """One session. Raises `NotFoundError`."""
        return await self._store.sessions.get(session_id, owner=owner)

    async def history(self, session_id: str, owner: str) -> list[TurnRecord]:
        """Every turn, undone ones included, in the order in which they were made. Raises `NotFoundError`."""
        await self.get(session_id, owner)
        return await self._store.sessions.turns(session_id)

    async def base(self, session_id: str, owner: str, turn: str | None = None) -> Base:
        """What a turn would edit: the head, the turn that is named, or the `SOURCE`. Raises `NotFoundError`."""
        session = await self.get(session_id, owner)
        wanted = session.head if turn is None else None if turn == SOURCE else turn
        parent = None if wanted is None else await self._store.sessions.turn(session_id, wanted)
        return Base(session, parent, await self._blobs.get(session.source if parent is None else parent.picture))

    async def start(self, base: Base, order: EditOrder) -> Turn:
        """Accept a turn: `order` holds the picture of `base`. Errors as in `EditService.start`.

        `order.request_id` is put behind the session's id, so that what the log of edits holds can be forgotten with it.
        """
        if order.request.n != 1:
            raise InputError(f"n is {order.request.n}; a turn of a session has one result, so leave n out.", field="n")
        turn_id = new_id("turn")
        mine = {
            "turn": base.depth,
            "request_id": f"{base.session.id}/{order.request_id or turn_id}",
            "model": order.model or base.session.model,
            "user": order.user or base.session.user,
        }
        running = await self._edits.start(order.model_copy(update=mine))
        return Turn(self, running, base, turn_id, order.request.instruction)

    async def undo(self, session_id: str, owner: str) -> SessionRecord:
        """Go back to what the head edited. Raises `ConflictError` at the source, or when somebody else was faster."""
        session = await self.get(session_id, owner)
        if session.head is None:
            raise ConflictError("The session is at its source; there is nothing to undo.")
        turn = await self._store.sessions.turn(session_id, session.head)
        if not await self._store.sessions.move_head(session_id, seen=session.head, to=turn.parent):
            raise ConflictError("Another turn or undo came in between; look at the session and undo again.")
        return session.model_copy(update={"head": turn.parent})

    async def delete(self, session_id: str, owner: str) -> None:
        """Delete a session with every byte. Raises `NotFoundError`."""
        await self.get(session_id, owner)
        if await delete_session(self._store, self._blobs, session_id):
            self._metrics.session("deleted")
        await self._store.scrub()
        await self._store.audit.add(owner, "session.deleted", session_id)

    async def keep(self, turn: Turn, made: ImageDone) -> TurnRecord:
        """Write a finished turn down. Raises `NotFoundError` if the session was deleted meanwhile."""
        session_id = turn.base.session.id
        scope = scope_of(session_id)
        picture = await self._blobs.put(scope, await run_sync(lambda: png_of(made.picture, made=True)), suffix="png")
        now = time.time()
        record = TurnRecord(
            id=turn.turn_id,
            session=session_id,
            number=0,
            parent=None if turn.base.parent is None else turn.base.parent.id,
            depth=turn.base.depth + 1,
            instruction=turn.instruction,
            edit_id=turn.id,
            arm=turn.arm,
            picture=picture,
            trace=made.trace.model_dump(mode="json"),
            created=now,
        )
        try:
            kept = await self._store.sessions.add_turn(record, expires=now + self._ttl_s)
        except NotFoundError:
            await self.forget(session_id)
            raise
        self._metrics.session("turned")
        return kept

    async def forget(self, session_id: str) -> None:
        """Delete what a turn wrote into a session that is gone by now."""
        if not await self._store.sessions.existing([session_id]):
            await delete_session(self._store, self._blobs, session_id)


@dataclass
class Turn:
    """A turn that was accepted; a `Running` whose result becomes the session's head before it is told."""

    sessions: Sessions
    """Where it is written down."""
    running: Running
    """The edit."""
    base: Base
    """What it edits."""
    turn_id: str
    """Id that the turn will have."""
    instruction: str
    """What was asked for."""
    record: TurnRecord | None = field(default=None, init=False)
    """The turn, once it is made."""

    @property
    def id(self) -> str:
        """Id of the edit."""
        return self.running.id

    @property
    def arm(self) -> str:
        """Who edits."""
        return self.running.arm

    @property
    def decision(self) -> RoutingDecision:
        """Which experts, and why."""
        return self.running.decision

    async def events(self) -> AsyncIterator[EditEvent]:
        """As `Running.events`."""
        try:
            async with aclosing(self.running.events()) as events:  # type: ignore[type-var]  # its end stops the edit
                async for event in events:
                    if isinstance(event, ImageDone):
                        self.record = await self.sessions.keep(self, event)
                    yield event
        finally:
            # The edit wrote itself into the log at its end, perhaps after the session was deleted.
            await self.sessions.forget(self.base.session.id)
