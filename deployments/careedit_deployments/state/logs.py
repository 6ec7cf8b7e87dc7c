"""Keys, edits, arms, feedback and audit entries: rows that are written once and read in bulk."""

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
    """API keys, found by their hash."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, key: KeyRecord) -> None:
        """Store a key."""
        async with self._database.write() as connection:
            await connection.execute(insert(keys).values(**values_of(key)))

    async def find(self, sha256: str) -> KeyRecord | None:
        """The key with this hash; None if no such key exists or it was revoked."""
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
        """Refuse a key from now on. Returns False if no valid key has this id."""
        async with self._database.write() as connection:
            good = (keys.c.id == key_id) & keys.c.revoked.is_(None)
            return (await connection.execute(update(keys).where(good).values(revoked=self._clock()))).rowcount > 0


class EditLog:
    """Edits and their outcomes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, edit: EditRecord) -> None:
        """Store an edit; it replaces an edit with the same id."""
        values = values_of(edit)
        async with self._database.write() as connection:
            statement = self._database.insert(edits).values(**values)
            await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    async def get(self, edit_id: str, *, owner: str | None = None) -> EditRecord:
        """One edit. Raises `NotFoundError` for an unknown id, or with `owner` for the edit of another owner."""
        async with self._database.read() as connection:
            query = select(edits).where(edits.c.id == edit_id)
            row = (
                await connection.execute(query if owner is None else query.where(edits.c.owner == owner))
            ).one_or_none()
        if row is None:
            raise NotFoundError(f"The edit {edit_id!r} does not exist; check the id.")
        return record_of(EditRecord, row)

    async def latest(
        self, *, arm: str | None = None, since: float = 0.0, limit: int = 100, outcomes: Collection[str] = ()
    ) -> list[EditRecord]:
        """Edits with one of these outcomes (none given: any outcome), newest first."""
        query = select(edits).where(edits.c.created >= since)
        if arm is not None:
            query = query.where(edits.c.arm == arm)
        if outcomes:
            query = query.where(edits.c.outcome.in_(outcomes))
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(edits.c.created.desc(), edits.c.id.desc()).limit(limit))
            return [record_of(EditRecord, row) for row in rows]

    async def counts(self, *, since: float = 0.0) -> list[ArmCount]:
        """Numbers of edits by arm, outcome and whether a shadow arm made them."""
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
        """Add the scores of a judge, if the edit is still stored."""
        async with self._database.write() as connection:
            await connection.execute(update(edits).where(edits.c.id == edit_id).values(scores=dict(scores)))

    async def redact(self, request_id: str) -> int:
        """Remove texts, user, traces and pictures from the edits of a request, job or session; returns the number of edits.

        Arm, experts, outcome, seconds and scores stay: they say nothing about the person. Comments on the edits are removed.
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
        """Delete edits and feedback from before a time; returns the number of deleted edits."""
        async with self._database.write() as connection:
            await connection.execute(delete(feedback).where(feedback.c.created < before))
            return (await connection.execute(delete(edits).where(edits.c.created < before))).rowcount


class ArmLog:
    """Assignments of users to arms, and which arms are out of traffic."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def assign(self, assignment: AssignmentRecord) -> None:
        """Store an assignment. An earlier one of the same user and salt stays and gets the new arm."""
        statement = self._database.insert(assignments).values(**values_of(assignment))
        async with self._database.write() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["user_sha256", "salt"], set_={"arm": assignment.arm})
            )

    async def assigned(self, salt: str) -> Mapping[str, int]:
        """Number of assigned users per arm."""
        query = select(assignments.c.arm, func.count()).where(assignments.c.salt == salt).group_by(assignments.c.arm)
        async with self._database.read() as connection:
            return {arm: users for arm, users in await connection.execute(query)}

    async def add(self, event: ArmEvent) -> None:
        """Store an event."""
        async with self._database.write() as connection:
            await connection.execute(insert(arm_events).values(**values_of(event)))

    async def events(self, *, arm: str | None = None, limit: int = 100) -> list[ArmEvent]:
        """Events of one arm or of all arms, newest first."""
        query = select(arm_events) if arm is None else select(arm_events).where(arm_events.c.arm == arm)
        newest = query.order_by(arm_events.c.created.desc(), arm_events.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [record_of(ArmEvent, row) for row in await connection.execute(newest)]

    async def disabled(self) -> frozenset[str]:
        """Arms whose latest event took them out of traffic."""
        query = select(arm_events.c.arm, arm_events.c.kind).order_by(arm_events.c.created, arm_events.c.id)
        async with self._database.read() as connection:
            latest = {arm: kind for arm, kind in await connection.execute(query)}
        return frozenset(arm for arm, kind in latest.items() if kind == "cut")


class FeedbackLog:
    """People's opinions of edits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, feedback_record: FeedbackRecord) -> None:
        """Store feedback."""
        async with self._database.write() as connection:
            await connection.execute(insert(feedback).values(**values_of(feedback_record)))

    async def latest(self, *, since: float = 0.0, limit: int = 1000) -> list[FeedbackRecord]:
        """Feedback, newest first."""
        query = select(feedback).where(feedback.c.created >= since)
        newest = query.order_by(feedback.c.created.desc(), feedback.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [record_of(FeedbackRecord, row) for row in await connection.execute(newest)]


class AuditLog:
    """Actions that an operator may have to explain later."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, actor: str, action: str, subject: str, **detail: Any) -> None:
        """Store an entry with the current time."""
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
