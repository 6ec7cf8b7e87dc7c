"""Keys, edits, arms, feedback and audit in SQL: rows that are written once and read in bulk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import Text, cast, delete, func, insert, or_, select, update

from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.database import Database
from careedit_deployments.state.records import (
    ArmCount,
    ArmEvent,
    AssignmentRecord,
    AuditRecord,
    EditRecord,
    FeedbackRecord,
    KeyRecord,
    new_id,
)
from careedit_deployments.state.tables import (
    arm_events,
    assignments,
    audit,
    edits,
    feedback,
    keys,
    record_of,
    values_of,
)

Clock = Callable[[], float]
"""Seconds since 1970, as `time.time`."""


class Keys:
    """`Keys` in SQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, key: KeyRecord) -> None:
        """Keep a key."""
        async with self._database.write() as connection:
            await connection.execute(insert(keys).values(**values_of(key)))

    async def find(self, sha256: str) -> KeyRecord | None:
        """The key of this hash, unless it was revoked."""
        async with self._database.read() as connection:
            query = select(keys).where(keys.c.sha256 == sha256, keys.c.revoked.is_(None))
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else record_of(KeyRecord, row)

    async def all(self) -> list[KeyRecord]:
        """Every key, revoked ones included, oldest first."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(keys).order_by(keys.c.created, keys.c.id))
            return [record_of(KeyRecord, row) for row in rows]

    async def revoke(self, key_id: str) -> bool:
        """Refuse a key from now on; False: there is no good key of this id."""
        async with self._database.write() as connection:
            good = (keys.c.id == key_id) & keys.c.revoked.is_(None)
            return (await connection.execute(update(keys).where(good).values(revoked=self._clock()))).rowcount > 0


class EditLog:
    """`EditLog` in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, edit: EditRecord) -> None:
        """Keep an edit; one of the same id is replaced."""
        values = values_of(edit)
        async with self._database.write() as connection:
            statement = self._database.insert(edits).values(**values)
            await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    async def get(self, edit_id: str, *, owner: str | None = None) -> EditRecord:
        """One edit."""
        async with self._database.read() as connection:
            query = select(edits).where(edits.c.id == edit_id)
            row = (
                await connection.execute(query if owner is None else query.where(edits.c.owner == owner))
            ).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no edit {edit_id!r} here; check the id.")
        return record_of(EditRecord, row)

    async def latest(
        self, *, arm: str | None = None, since: float = 0.0, limit: int = 100, outcomes: Collection[str] = ()
    ) -> list[EditRecord]:
        """Edits, newest first; those that ended in one of these ways (none named: in any)."""
        query = select(edits).where(edits.c.created >= since)
        if arm is not None:
            query = query.where(edits.c.arm == arm)
        if outcomes:
            query = query.where(edits.c.outcome.in_(outcomes))
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(edits.c.created.desc(), edits.c.id.desc()).limit(limit))
            return [record_of(EditRecord, row) for row in rows]

    async def counts(self, *, since: float = 0.0) -> list[ArmCount]:
        """Edits by arm, outcome and whether they were a shadow's."""
        shadow = edits.c.shadow_of.is_not(None)
        query = (
            select(
                edits.c.arm,
                edits.c.outcome,
                shadow.label("shadow"),
                func.count().label("edits"),
                func.avg(edits.c.seconds).label("seconds"),
            )
            .where(edits.c.created >= since)
            .group_by(edits.c.arm, edits.c.outcome, shadow)
            .order_by(edits.c.arm, edits.c.outcome, shadow)
        )
        async with self._database.read() as connection:
            return [record_of(ArmCount, row) for row in await connection.execute(query)]

    async def score(self, edit_id: str, scores: Mapping[str, float]) -> None:
        """Add a judge's scores, if the edit is still kept."""
        async with self._database.write() as connection:
            await connection.execute(update(edits).where(edits.c.id == edit_id).values(scores=dict(scores)))

    async def forget(self, request_id: str) -> int:
        """Take words, user, traces and pictures from the edits of a request, job or session; returns how many.

        What remains says nothing of the person: arm, experts, outcome, seconds, scores. Comments on them go too.
        """
        its = or_(edits.c.request_id == request_id, edits.c.request_id.startswith(f"{request_id}/", autoescape=True))
        nothing: dict[str, Any] = {"user": None, "instruction": None, "error": None, "traces": [], "pictures": []}
        async with self._database.write() as connection:
            ids = (await connection.execute(update(edits).where(its).values(**nothing).returning(edits.c.id))).scalars()
            found = list(ids)
            if found:
                listed = cast(feedback.c.edits, Text)
                about = or_(*(listed.contains(f'"{edit_id}"', autoescape=True) for edit_id in found))
                await connection.execute(update(feedback).where(about).values(comment=None))
        return len(found)

    async def prune(self, before: float) -> int:
        """Delete edits, and feedback, that are older; returns how many edits."""
        async with self._database.write() as connection:
            await connection.execute(delete(feedback).where(feedback.c.created < before))
            return (await connection.execute(delete(edits).where(edits.c.created < before))).rowcount


class ArmLog:
    """`ArmLog` in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def assign(self, assignment: AssignmentRecord) -> None:
        """Keep an assignment; the first one of a user and salt stays, with its arm renewed."""
        statement = self._database.insert(assignments).values(**values_of(assignment))
        async with self._database.write() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["user_sha256", "salt"], set_={"arm": assignment.arm})
            )

    async def assigned(self, salt: str) -> Mapping[str, int]:
        """Users per arm."""
        query = select(assignments.c.arm, func.count()).where(assignments.c.salt == salt).group_by(assignments.c.arm)
        async with self._database.read() as connection:
            return {arm: users for arm, users in await connection.execute(query)}

    async def add(self, event: ArmEvent) -> None:
        """Keep an event."""
        async with self._database.write() as connection:
            await connection.execute(insert(arm_events).values(**values_of(event)))

    async def events(self, *, arm: str | None = None, limit: int = 100) -> list[ArmEvent]:
        """Events, newest first."""
        query = select(arm_events) if arm is None else select(arm_events).where(arm_events.c.arm == arm)
        newest = query.order_by(arm_events.c.created.desc(), arm_events.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [record_of(ArmEvent, row) for row in await connection.execute(newest)]

    async def cut(self) -> frozenset[str]:
        """Arms whose latest event cut them out."""
        query = select(arm_events.c.arm, arm_events.c.kind).order_by(arm_events.c.created, arm_events.c.id)
        async with self._database.read() as connection:
            latest = {arm: kind for arm, kind in await connection.execute(query)}
        return frozenset(arm for arm, kind in latest.items() if kind == "cut")


class FeedbackLog:
    """`FeedbackLog` in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, feedback_record: FeedbackRecord) -> None:
        """Keep it."""
        async with self._database.write() as connection:
            await connection.execute(insert(feedback).values(**values_of(feedback_record)))

    async def latest(self, *, since: float = 0.0, limit: int = 1000) -> list[FeedbackRecord]:
        """Feedback, newest first."""
        query = select(feedback).where(feedback.c.created >= since)
        newest = query.order_by(feedback.c.created.desc(), feedback.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [record_of(FeedbackRecord, row) for row in await connection.execute(newest)]


class AuditLog:
    """`AuditLog` in SQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, actor: str, action: str, subject: str, **detail: Any) -> None:
        """Keep an entry, made now."""
        entry = AuditRecord(
            id=new_id("audit"), actor=actor, action=action, subject=subject, detail=detail, created=self._clock()
        )
        async with self._database.write() as connection:
            await connection.execute(insert(audit).values(**values_of(entry)))

    async def latest(self, *, limit: int = 100) -> list[AuditRecord]:
        """Entries, newest first."""
        query = select(audit).order_by(audit.c.created.desc(), audit.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [record_of(AuditRecord, row) for row in await connection.execute(query)]
