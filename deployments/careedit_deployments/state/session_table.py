"""Sessions and their turns."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, func, insert, select, update

from careedit_deployments.errors import NotFoundError, QuotaError
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import SessionRecord, TurnRecord
from careedit_deployments.state.storage import lock_owner, own_limit
from careedit_deployments.state.tables import older, sessions, tenants, turns, values_of


class SessionTable:
    """Sessions and their turns. An expired session is not found, even before it is deleted."""

    def __init__(self, database: Database, clock: Clock, quota: int) -> None:
        """`quota` is the number of sessions of a tenant that has no limit of its own."""
        self._database, self._clock, self._quota = database, clock, quota

    async def add(self, session: SessionRecord) -> None:
        """Store a session. Raises `QuotaError` if its owner has as many as it may."""
        alive = (sessions.c.owner == session.owner) & (sessions.c.expires > self._clock())
        async with self._database.write() as connection:
            await lock_owner(self._database, connection, session.owner)
            quota = await own_limit(connection, session.owner, tenants.c.sessions, self._quota)
            held = (await connection.execute(select(func.count()).where(alive))).scalar_one()
            if held >= quota:
                raise QuotaError(
                    f"You have {held:,} sessions and may have {quota:,}; delete one that you no longer need, or wait until one "
                    "expires."
                )
            await connection.execute(insert(sessions).values(**values_of(session)))

    async def get(self, session_id: str, *, owner: str | None = None) -> SessionRecord:
        """One session that has not expired. Raises `NotFoundError`, with `owner` also for the session of another owner."""
        query = select(sessions).where(sessions.c.id == session_id, sessions.c.expires > self._clock())
        mine = query if owner is None else query.where(sessions.c.owner == owner)
        session = await self._database.row(SessionRecord, mine)
        if session is None:
            raise _gone(session_id)
        return session

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[SessionRecord]:
        """Sessions of an owner that are older than the session `before`, newest first."""
        page = older(sessions, owner, before, limit).where(sessions.c.expires > self._clock())
        return await self._database.rows(SessionRecord, page)

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
        query = select(turns).where(turns.c.session == session_id, turns.c.id == turn_id)
        turn = await self._database.row(TurnRecord, query)
        if turn is None:
            raise NotFoundError(f"The session has no turn {turn_id!r}; use an id from its history.")
        return turn

    async def turns(self, session_id: str) -> list[TurnRecord]:
        """Every turn of a session, oldest first."""
        query = select(turns).where(turns.c.session == session_id).order_by(turns.c.number)
        return await self._database.rows(TurnRecord, query)

    async def move_head(self, session_id: str, *, seen: str | None, to: str | None) -> bool:
        """Make the turn `to` the head, if the head is still `seen`; returns whether it was."""
        unmoved = (sessions.c.id == session_id) & sessions.c.head.is_not_distinct_from(seen)
        return await self._database.change(update(sessions).where(unmoved).values(head=to)) > 0

    async def delete(self, session_id: str) -> bool:
        """Delete a session and its turns. Returns False if it did not exist."""
        async with self._database.write() as connection:
            await connection.execute(delete(turns).where(turns.c.session == session_id))
            return (await connection.execute(delete(sessions).where(sessions.c.id == session_id))).rowcount > 0

    async def expired(self) -> list[str]:
        """Ids of sessions that have expired."""
        return await self._database.column(select(sessions.c.id).where(sessions.c.expires <= self._clock()))

    async def existing(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the given ids that belong to a stored session."""
        return frozenset(await self._database.column(select(sessions.c.id).where(sessions.c.id.in_(list(ids)))))


def _gone(session_id: str) -> NotFoundError:
    return NotFoundError(
        f"The session {session_id!r} does not exist; it may have expired or been deleted. Make a new one."
    )
