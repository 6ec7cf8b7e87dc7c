"""Edits, arms, and feedback: rows that are written once and read in bulk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import Text, cast, func, or_, select, update

from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.database import Database, portions
from careedit_deployments.state.records import (
    ArmCount,
    ArmEvent,
    AssignmentRecord,
    EditRecord,
    FeedbackRecord,
)
from careedit_deployments.state.tables import (
    arm_events,
    assignments,
    edits,
    feedback,
    newest,
    values_of,
)
from careedit_deployments.state.tenant_policy import PURPOSES, Purpose

IDS_AT_ONCE = 1000
"""Ids in one query; databases limit the number of parameters."""

Clock = Callable[[], float]
"""Seconds since 1970, as `time.time`."""


class EditLog:
    """Edits and their outcomes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, edit: EditRecord) -> None:
        """Store an edit; it replaces an edit with the same id."""
        values = values_of(edit)
        statement = self._database.insert(edits).values(**values)
        await self._database.change(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    async def get(self, edit_id: str, *, owner: str | None = None) -> EditRecord:
        """One edit. Raises `NotFoundError` for an unknown id, or with `owner` for the edit of another owner."""
        query = select(edits).where(edits.c.id == edit_id)
        edit = await self._database.row(EditRecord, query if owner is None else query.where(edits.c.owner == owner))
        if edit is None:
            raise NotFoundError(f"The edit {edit_id!r} does not exist; check the id.")
        return edit

    async def arms_of(self, ids: Collection[str]) -> Mapping[str, str]:
        """The arm of each of these edits that is still stored, by id."""
        found: dict[str, str] = {}
        for some in portions(ids, IDS_AT_ONCE):
            async with self._database.read() as connection:
                rows = await connection.execute(select(edits.c.id, edits.c.arm).where(edits.c.id.in_(some)))
                found.update({row.id: row.arm for row in rows})
        return found

    async def purposes_of(self, ids: Collection[str]) -> tuple[Purpose, ...]:
        """What any of these edits may be used for, in the order of `PURPOSES`; edits that are no longer stored do not count."""
        found = await self._database.column(select(edits.c.purposes).where(edits.c.id.in_(list(ids))))
        return tuple(one for one in PURPOSES if any(one in (purposes or ()) for purposes in found))

    async def latest(
        self, *, arm: str | None = None, since: float = 0.0, limit: int = 100, outcomes: Collection[str] = ()
    ) -> list[EditRecord]:
        """Edits with one of these outcomes (none given: any outcome), newest first."""
        query = select(edits).where(edits.c.created >= since)
        if arm is not None:
            query = query.where(edits.c.arm == arm)
        if outcomes:
            query = query.where(edits.c.outcome.in_(outcomes))
        return await self._database.rows(EditRecord, newest(query, edits, limit))

    async def window(
        self, arm: str, *, since: float, limit: int, each: int, outcomes: Collection[str]
    ) -> list[EditRecord]:
        """The latest edits of an arm that are evidence, `limit` at most.

        The `each` latest ones of every tenant come first, so that one tenant's many edits do not displace the others'.
        """
        rank = func.row_number().over(partition_by=edits.c.owner, order_by=(edits.c.created.desc(), edits.c.id.desc()))
        meant = (edits.c.arm == arm, edits.c.created >= since, edits.c.evidence, edits.c.outcome.in_(outcomes))
        ranked = select(edits, rank.label("rank")).where(*meant).subquery()
        query = select(*(ranked.c[column.name] for column in edits.c))
        return await self._database.rows(
            EditRecord, query.order_by(ranked.c.rank > each, ranked.c.created.desc(), ranked.c.id.desc()).limit(limit)
        )

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
        return await self._database.rows(ArmCount, query)

    async def score(self, edit_id: str, scores: Mapping[str, float]) -> None:
        """Add the scores of a judge, if the edit is still stored."""
        await self._database.change(update(edits).where(edits.c.id == edit_id).values(scores=dict(scores)))

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


class ArmLog:
    """Assignments of users to arms, and which arms are out of traffic."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def assign(self, assignment: AssignmentRecord) -> None:
        """Store an assignment. It replaces an earlier one of the same user and salt."""
        values = values_of(assignment)
        statement = self._database.insert(assignments).values(**values)
        moved = {name: values[name] for name in ("owner", "arm", "created")}
        await self._database.change(statement.on_conflict_do_update(index_elements=["user_sha256", "salt"], set_=moved))

    async def assigned(self, salt: str) -> Mapping[str, int]:
        """Number of assigned users per arm."""
        query = select(assignments.c.arm, func.count()).where(assignments.c.salt == salt).group_by(assignments.c.arm)
        async with self._database.read() as connection:
            return {arm: users for arm, users in await connection.execute(query)}

    async def add(self, event: ArmEvent) -> None:
        """Store an event."""
        await self._database.add(arm_events, event)

    async def events(self, *, arm: str | None = None, limit: int = 100) -> list[ArmEvent]:
        """Events of one arm or of all arms, newest first."""
        query = select(arm_events) if arm is None else select(arm_events).where(arm_events.c.arm == arm)
        return await self._database.rows(ArmEvent, newest(query, arm_events, limit))

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

    async def add(self, feedback_record: FeedbackRecord) -> bool:
        """Store feedback; it replaces feedback with the same id. Returns whether it is new."""
        values = values_of(feedback_record)
        async with self._database.write() as connection:
            known = await connection.scalar(select(feedback.c.id).where(feedback.c.id == feedback_record.id))
            statement = self._database.insert(feedback).values(**values)
            await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
        return known is None

    async def latest(self, *, since: float = 0.0, limit: int = 1000) -> list[FeedbackRecord]:
        """Feedback, newest first."""
        query = select(feedback).where(feedback.c.created >= since)
        return await self._database.rows(FeedbackRecord, newest(query, feedback, limit))
