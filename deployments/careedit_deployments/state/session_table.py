"""Sessions and their turns."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, insert, select, update

from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import SessionRecord, TurnRecord
from careedit_deployments.state.tables import record_of, sessions, turns, values_of


class SessionTable:
    """Sessions and their turns. An expired session is not found, even before it is deleted."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, session: SessionRecord) -> None:
        """Store a session."""
        async with self._database.write() as connection:
            await connection.execute(insert(sessions).values(**values_of(session)))

    async def get(self, session_id: str, *, owner: str | None = None) -> SessionRecord:
        """One session that has not expired. Raises `NotFoundError`, with `owner` also for the session of another owner."""
        query = select(sessions).where(sessions.c.id == session_id, sessions.c.expires > self._clock())
        async with self._database.read() as connection:
            mine = query if owner is None else query.where(sessions.c.owner == owner)
            row = (await connection.execute(mine)).one_or_none()
        if row is None:
            raise _gone(session_id)
        return record_of(SessionRecord, row)

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[SessionRecord]:
        """Sessions of an owner that are older than the session `before`, newest first."""
        query = select(sessions).where(sessions.c.owner == owner, sessions.c.expires > self._clock())
        if before is not None:
            query = query.where(sessions.c.id < before)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(sessions.c.id.desc()).limit(limit))
            return [record_of(SessionRecord, row) for row in rows]

    async def add_turn(self, turn: TurnRecord, *, expires: float) -> TurnRecord:
        """Store a turn, which gets its number here, make it the head and extend the session to `expires`."""
        alive = (sessions.c.id == turn.session) & (sessions.c.expires > self._clock())
        change = (
            update(sessions)
            .where(alive)
            .values(turns=sessions.c.turns + 1, head=turn.id, expires=expires)
            .returning(sessions.c.turns)
        )
        async with self._database.write() as connection:
            number = (await connection.execute(change)).scalar_one_or_none()
            if number is None:
                raise _gone(turn.session)
            kept = turn.model_copy(update={"number": number})
            await connection.execute(insert(turns).values(**values_of(kept)))
        return kept

    async def turn(self, session_id: str, turn_id: str) -> TurnRecord:
        """One turn of a session. Raises `NotFoundError`."""
        async with self._database.read() as connection:
            query = select(turns).where(turns.c.session == session_id, turns.c.id == turn_id)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(f"The session has no turn {turn_id!r}; use an id from its history.")
        return record_of(TurnRecord, row)

    async def turns(self, session_id: str) -> list[TurnRecord]:
        """Every turn of a session, oldest first."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(turns).where(turns.c.session == session_id).order_by(turns.c.number))
            return [record_of(TurnRecord, row) for row in rows]

    async def move_head(self, session_id: str, *, seen: str | None, to: str | None) -> bool:
        """Make the turn `to` the head, if the head is still `seen`; returns whether it was."""
        unmoved = (sessions.c.id == session_id) & sessions.c.head.is_not_distinct_from(seen)
        async with self._database.write() as connection:
            return (await connection.execute(update(sessions).where(unmoved).values(head=to))).rowcount > 0

    async def delete(self, session_id: str) -> bool:
        """Delete a session and its turns. Returns False if it did not exist."""
        async with self._database.write() as connection:
            await connection.execute(delete(turns).where(turns.c.session == session_id))
            return (await connection.execute(delete(sessions).where(sessions.c.id == session_id))).rowcount > 0

    async def expired(self) -> list[str]:
        """Ids of sessions that have expired."""
        async with self._database.read() as connection:
            query = select(sessions.c.id).where(sessions.c.expires <= self._clock())
            return list((await connection.execute(query)).scalars())

    async def existing(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the given ids that belong to a stored session."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(sessions.c.id).where(sessions.c.id.in_(list(ids))))
            return frozenset(rows.scalars())


def _gone(session_id: str) -> NotFoundError:
    return NotFoundError(
        f"The session {session_id!r} does not exist; it may have expired or been deleted. Make a new one."
    )
