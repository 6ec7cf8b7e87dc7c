"""Sessions: a picture that is edited turn by turn. A turn edits the last result or an earlier one, so turns form a tree.

`head` is the turn whose result comes next; undo moves it to its parent and deletes nothing, so that what was undone can
still be named. A turn that fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from anyio.to_thread import run_sync
from PIL import Image

from careedit.errors import InputError
from careedit.provenance import Credit
from careedit.records import RoutingDecision
from careedit_deployments.edits.backend import EditEvent, EditOrder, ImageDone
from careedit_deployments.edits.codecs import Codecs, Origin, Reading
from careedit_deployments.edits.edit_service import EditService, Running
from careedit_deployments.edits.stored import delete_files, delete_session, kept_file, put_file, reading_of, scope_of
from careedit_deployments.errors import ConflictError, NotFoundError
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import SessionRecord, TurnRecord, new_id
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

SOURCE = "source"
"""Names the source of a session in place of a turn."""


@dataclass(frozen=True)
class Base:
    """The image that a turn edits."""

    session: SessionRecord
    """The session of the turn."""
    parent: TurnRecord | None
    """The turn whose result is edited; None: the source of the session."""
    data: bytes
    """The file of that image: the client's, or a PNG that this server made."""
    reading: Reading
    """How the file is decoded."""

    @property
    def depth(self) -> int:
        """Number of edits from the source to this image."""
        return 0 if self.parent is None else self.parent.depth


class Sessions:
    """Creates, edits, undoes and deletes sessions. `owner` is the caller's id; a caller reaches only its own sessions."""

    def __init__(
        self,
        edits: EditService,
        store: Store,
        blobs: BlobStore,
        metrics: Metrics,
        codecs: Codecs,
        *,
        ttl_s: float,
        max_s: float,
    ) -> None:
        """A session ends `ttl_s` seconds after its last turn, and `max_s` seconds after its creation at the latest."""
        self._edits, self._store, self._blobs, self._metrics, self._codecs = edits, store, blobs, metrics, codecs
        self._ttl_s, self._max_s = ttl_s, max_s

    async def create(
        self,
        picture: Image.Image,
        *,
        owner: str,
        sent: bytes | None = None,
        ingredient: bytes | None = None,
        user: str | None = None,
        model: str | None = None,
    ) -> SessionRecord:
        """Create a session from an image, and from the file that was `sent` if there is one. Raises `QuotaError`.

        `ingredient` is that file with its Content Credentials, if results keep them.
        """
        identity, now = new_id("session"), unix_time()
        scope = scope_of(identity)
        data, suffix = await run_sync(kept_file, picture, sent)
        try:
            put = partial(put_file, self._store, self._blobs, scope, owner=owner)
            source = await put(data, suffix=suffix)
            kept = None if ingredient is None else await put(ingredient, suffix="cred")
            session = SessionRecord(
                id=identity,
                owner=owner,
                user=user,
                model=model,
                source=source,
                ingredient=kept,
                created=now,
                expires=await self._end(owner, now, now),
            )
            await self._store.sessions.add(session)
        except BaseException:
            await asyncio.shield(delete_files(self._store, self._blobs, scope))
            raise
        self._metrics.session("made")
        return session

    async def get(self, session_id: str, owner: str) -> SessionRecord:
        """A session by its id. Raises `NotFoundError`."""
        return await self._store.sessions.get(session_id, owner=owner)

    async def history(self, session_id: str, owner: str) -> list[TurnRecord]:
        """Every turn, undone ones included, in their order. Raises `NotFoundError`."""
        await self.get(session_id, owner)
        return await self._store.sessions.turns(session_id)

    async def base(self, session_id: str, owner: str, turn: str | None = None) -> Base:
        """The image that a turn edits: that of the head, of the named turn, or the `SOURCE`. Raises `NotFoundError`."""
        session = await self.get(session_id, owner)
        wanted = session.head if turn is None else None if turn == SOURCE else turn
        parent = None if wanted is None else await self._store.sessions.turn(session_id, wanted)
        key = session.source if parent is None else parent.picture
        return Base(session, parent, await self._blobs.get(key), reading_of(key))

    async def start(self, base: Base, order: EditOrder, *, ingredient: bytes | None = None) -> Turn:
        """Accept a turn; the source of `order` is the image of `base`. Raises the errors of `EditService.start`.

        The session's id precedes `order.request_id`, so that the log of edits can be redacted with the session. `ingredient`
        is that image with its Content Credentials, if results keep them.
        """
        if order.request.n != 1:
            raise InputError(f"n is {order.request.n}; a turn of a session has one image, so leave n out.", field="n")
        await self._store.storage.check_room(order.owner, len(base.data))  # about what the result takes
        turn_id = new_id("turn")
        mine = {
            "turn": base.depth,
            "request_id": f"{base.session.id}/{order.request_id or turn_id}",
            "model": order.model or base.session.model,
            "user": order.user or base.session.user,
        }
        running = await self._edits.start(order.model_copy(update=mine))
        return Turn(self, running, base, turn_id, order.request.instruction, ingredient)

    async def undo(self, session_id: str, owner: str) -> SessionRecord:
        """Go back to what the head edited. Raises `ConflictError` at the source, or if another request was faster."""
        session = await self.get(session_id, owner)
        if session.head is None:
            raise ConflictError("The session is at its source, so nothing can be undone.")
        turn = await self._store.sessions.turn(session_id, session.head)
        if not await self._store.sessions.move_head(session_id, seen=session.head, to=turn.parent):
            raise ConflictError("Another turn or undo was faster; read the session and undo again.")
        return session.model_copy(update={"head": turn.parent})

    async def delete(self, session_id: str, owner: str, *, actor: str | None = None) -> None:
        """Delete a session with all of its images; `actor`, by default the owner, is audited. Raises `NotFoundError`."""
        await self.get(session_id, owner)
        if await delete_session(self._store, self._blobs, session_id):
            self._metrics.session("deleted")
        await self._store.scrub()
        await self._store.audit.add(actor or owner, "session.deleted", session_id)

    async def keep(self, turn: Turn, made: ImageDone) -> TurnRecord:
        """Store a finished turn within its deadline.

        Raises `NotFoundError` if the session has been deleted since, `QuotaError`, and `DeadlineError`.
        """
        session, owner = turn.base.session, turn.running.call.owner
        session_id = session.id
        origin = Origin(turn.credit, turn.ingredient)
        data = await self._codecs.encode(owner, made.picture, None, origin=origin, ends=turn.ends)
        picture = await put_file(self._store, self._blobs, scope_of(session_id), data, suffix="png", owner=owner)
        now = unix_time()
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
            marks=tuple(mark.model_dump(mode="json") for mark in made.marks) or None,
            created=now,
        )
        try:
            kept = await self._store.sessions.add_turn(
                record, expires=await self._end(session.owner, session.created, now)
            )
        except NotFoundError:
            await self.forget(session_id)
            raise
        self._metrics.session("turned")
        return kept

    async def _end(self, owner: str, created: float, turned: float) -> float:
        """The time at which a session of this owner ends after a turn."""
        ttl_s = await self._store.retention.kept_s(owner, "sessions", self._ttl_s)
        return min(turned + ttl_s, created + self._max_s)

    async def forget(self, session_id: str) -> None:
        """Delete what a turn stored for a session that has been deleted since."""
        if not await self._store.sessions.existing([session_id]):
            await delete_session(self._store, self._blobs, session_id)


@dataclass
class Turn:
    """An accepted turn, like `Running`. Its result is stored and becomes the head before the event is yielded."""

    sessions: Sessions
    """The sessions that store the turn."""
    running: Running
    """The edit behind the turn."""
    base: Base
    """The image that the turn edits."""
    turn_id: str
    """Id of the turn, also before it is stored."""
    instruction: str
    """The instruction of the turn."""
    ingredient: bytes | None = None
    """The edited image with its Content Credentials, if results keep them."""
    record: TurnRecord | None = field(default=None, init=False)
    """The stored turn; None until it is made."""

    @property
    def id(self) -> str:
        """Id of the edit."""
        return self.running.id

    @property
    def arm(self) -> str:
        """Name of the arm that edits."""
        return self.running.arm

    @property
    def ends(self) -> float:
        """Monotonic time at which the edit is given up, and its encoding."""
        return self.running.ends

    @property
    def decision(self) -> RoutingDecision:
        """The experts that edit, and why."""
        return self.running.decision

    @property
    def credit(self) -> Credit:
        """What the Content Credentials of the result say."""
        return self.running.credit

    async def events(self) -> AsyncIterator[EditEvent]:
        """Edit, as `Running.events` does, and store the result."""
        try:
            async with aclosing(self.running.events()) as events:  # type: ignore[type-var]  # its end stops the edit
                async for event in events:
                    if isinstance(event, ImageDone):
                        self.record = await self.sessions.keep(self, event)
                    yield event
        finally:
            # The log has an entry since the end of the edit, perhaps later than the deletion of the session.
            await self.sessions.forget(self.base.session.id)
