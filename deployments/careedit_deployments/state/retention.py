"""How long data are kept: as `StateConfig` says, or as a tenant's own `Retention`. The cleanup (`jobs/cleanup.py`) applies it.

Jobs, batches, their files and sessions have the time of their end in their rows. Logs are compared with their age.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, Table, case, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from careedit.record import Record
from careedit_deployments.config import StateConfig
from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import AuditRecord
from careedit_deployments.state.tables import (
    arm_events,
    assignments,
    audit,
    batch_lines,
    batches,
    edits,
    feedback,
    files,
    jobs,
    keys,
    sessions,
    tenants,
    turns,
)
from careedit_deployments.state.tenant_records import Retention

DAY_S = 24 * 3600.0
"""Seconds of a day, the unit of `Retention`."""

SWEPT = "state.swept"
"""Action of the audit entry in which the cleanup reports what it has deleted."""

OwnKind = Literal["jobs", "sessions", "edits", "assignments"]
"""What a tenant may have kept for a time of its own; the fields of `Retention`."""
LogKind = Literal["edits", "assignments", "arm_events", "keys"]
"""Tables whose rows end by their age."""
LOGS: Mapping[LogKind, Table] = {"edits": edits, "assignments": assignments, "arm_events": arm_events, "keys": keys}
"""The table of each kind."""


class Kept(Record):
    """What is stored of one kind, and for how long."""

    days: float
    """Days for which it is kept, unless its tenant has a time of its own."""
    stored: int
    """Number of items that are stored now."""
    oldest: float | None
    """Time at which the oldest item was made, in Unix seconds; None if nothing is stored."""


class RetentionReport(Record):
    """What is stored, for how long it is kept, and what the cleanup deleted last."""

    version: int = 1
    """Version of this format; always 1."""
    kinds: dict[str, Kept]
    """What is stored, by kind."""
    tenants: dict[str, Retention]
    """Times of the tenants that have their own, by id."""
    swept_at: float | None
    """Time at which the cleanup last deleted something, in Unix seconds; None if it never did."""
    swept: dict[str, int]
    """Numbers of items that it deleted then, by kind."""


async def kept_s(connection: AsyncConnection, owner: str, kind: OwnKind, default: float) -> float:
    """Seconds for which a tenant's data of a kind are kept: its own time, or the default."""
    own = (await connection.execute(select(tenants.c.retention).where(tenants.c.id == owner))).scalar_one_or_none()
    days = None if own is None else own.get(kind)
    return default if days is None else days * DAY_S


async def _keep_jobs_and_batches(connection: AsyncConnection, tenant: str, job_s: float) -> None:
    """Give the stored jobs, batches and files of a tenant the ends that they have if jobs are kept for `job_s` seconds.

    A batch keeps its input until its deadline, and its jobs and results as long as itself.
    """
    mine = batches.c.owner == tenant
    await connection.execute(update(batches).where(mine).values(expires=batches.c.deadline + job_s))
    result_end = select(batches.c.expires).where(batches.c.id == files.c.batch).scalar_subquery()
    results = (files.c.owner == tenant) & files.c.batch.is_not(None)
    await connection.execute(update(files).where(results).values(expires=result_end))
    needed = select(func.max(batches.c.deadline)).where(batches.c.input_file == files.c.id).scalar_subquery()
    inputs = (files.c.owner == tenant) & files.c.batch.is_(None)
    await connection.execute(update(files).where(inputs).values(expires=_later(files.c.created + job_s, needed)))
    of_batch = select(func.max(batches.c.expires)).join(batch_lines, batch_lines.c.batch == batches.c.id)
    kept = of_batch.where(batch_lines.c.job == jobs.c.id).scalar_subquery()
    ended = (jobs.c.owner == tenant) & jobs.c.finished.is_not(None)
    await connection.execute(update(jobs).where(ended).values(expires=_later(jobs.c.finished + job_s, kept)))


def _later(time: ColumnElement[float], other: ColumnElement[float | None]) -> ColumnElement[float]:
    """The later of two times, of which the other may be NULL."""
    return case((other > time, other), else_=time)


class RetentionTable:
    """Times of tenants, and what is due in the logs."""

    def __init__(self, database: Database, clock: Clock, config: StateConfig) -> None:
        self._database, self._clock, self._config = database, clock, config
        self._default: Mapping[LogKind, float] = {
            "edits": config.edit_ttl_s,
            "assignments": config.assignment_ttl_s,
            "arm_events": config.arm_event_ttl_s,
            "keys": config.key_ttl_s,
        }

    async def kept_s(self, owner: str, kind: OwnKind, default: float) -> float:
        """Seconds for which a tenant's data of a kind are kept: its own time, or the default."""
        async with self._database.read() as connection:
            return await kept_s(connection, owner, kind, default)

    async def set(self, tenant: str, retention: Retention) -> None:
        """Keep a tenant's data for these times, those that are stored as well. Raises `NotFoundError`."""
        values = retention.model_dump(mode="json", exclude_none=True)
        turned = select(func.max(turns.c.created)).where(turns.c.session == sessions.c.id).scalar_subquery()
        last = func.coalesce(turned, sessions.c.created)
        async with self._database.write() as connection:
            change = update(tenants).where(tenants.c.id == tenant).values(retention=values or None)
            if not (await connection.execute(change)).rowcount:
                raise NotFoundError(f"The tenant {tenant!r} does not exist; `careedit tenants list` shows the ids.")
            job_s = await kept_s(connection, tenant, "jobs", self._config.job_ttl_s)
            await _keep_jobs_and_batches(connection, tenant, job_s)
            session_s = await kept_s(connection, tenant, "sessions", self._config.session_ttl_s)
            by_turn, at_most = last + session_s, sessions.c.created + self._config.session_max_s
            end = case((by_turn < at_most, by_turn), else_=at_most)
            await connection.execute(update(sessions).where(sessions.c.owner == tenant).values(expires=end))

    async def own(self) -> dict[str, Retention]:
        """The tenants with times of their own."""
        query = select(tenants.c.id, tenants.c.retention).where(tenants.c.retention.is_not(None))
        async with self._database.read() as connection:
            return {tenant: Retention(**own) for tenant, own in await connection.execute(query)}

    async def report(self) -> RetentionReport:
        """What is stored now, and the last report of the cleanup."""
        config = self._config
        seconds = {
            jobs: config.job_ttl_s,
            batches: config.job_ttl_s,
            files: config.job_ttl_s,
            sessions: config.session_ttl_s,
            edits: config.edit_ttl_s,
            feedback: config.edit_ttl_s,
            assignments: config.assignment_ttl_s,
            arm_events: config.arm_event_ttl_s,
            keys: config.key_ttl_s,
            audit: config.audit_ttl_s,
        }
        kinds = {}
        async with self._database.read() as connection:
            for table, kept in seconds.items():
                found = await connection.execute(select(func.count(), func.min(table.c.created)).select_from(table))
                stored, oldest = found.one()
                kinds[table.name] = Kept(days=kept / DAY_S, stored=stored, oldest=oldest)
        query = select(audit).where(audit.c.action == SWEPT).order_by(audit.c.number.desc()).limit(1)
        last = await self._database.row(AuditRecord, query)
        return RetentionReport(
            kinds=kinds,
            tenants=await self.own(),
            swept_at=None if last is None else last.created,
            swept={} if last is None else {kind: int(count) for kind, count in last.detail.items()},
        )

    async def due(self, kind: LogKind) -> int:
        """Number of rows of a log whose time is over."""
        query = select(func.count()).select_from(LOGS[kind]).where(await self._is_due(kind))
        return int((await self._database.column(query))[0])

    async def delete(self, kind: LogKind) -> dict[str, int]:
        """Delete the rows of a log whose time is over, in one transaction; returns their numbers by table.

        Feedback ends with the first of its edits, never before.
        """
        due = await self._is_due(kind)
        counts: dict[str, int] = {}
        async with self._database.write() as connection:
            if kind == "edits":
                about = self._edits_of_feedback()
                gone = select(edits.c.id).where(due, edits.c.id == about.c.value).correlate(feedback).exists()
                orphan = ~select(edits.c.id).where(edits.c.id == about.c.value).correlate(feedback).exists()
                old = await self._is_due("edits", feedback)
                counts["feedback"] = (await connection.execute(delete(feedback).where(gone | (orphan & old)))).rowcount
            counts[kind] = (await connection.execute(delete(LOGS[kind]).where(due))).rowcount
        return counts

    def _edits_of_feedback(self) -> Any:
        """The ids in `feedback.edits` as rows with the column `value`."""
        split = func.json_each if self._database.is_sqlite else func.json_array_elements_text
        return split(feedback.c.edits).table_valued("value")

    async def _is_due(self, kind: LogKind, table: Table | None = None) -> ColumnElement[bool]:
        """Condition on the rows of a log (or of `table`, for as long) that their time is over."""
        now, table = self._clock(), LOGS[kind] if table is None else table
        before = now - self._default[kind]
        if kind == "keys":
            return or_(keys.c.revoked < before, keys.c.expires < before)
        if kind == "arm_events":
            rank = func.row_number().over(
                partition_by=arm_events.c.arm, order_by=(arm_events.c.created.desc(), arm_events.c.id.desc())
            )
            ranked = select(arm_events.c.id, rank.label("rank")).subquery()
            latest = select(ranked.c.id).where(ranked.c.rank == 1)  # it says whether the arm takes traffic
            return (arm_events.c.created < before) & arm_events.c.id.not_in(latest)
        tenants_by_days = defaultdict[float, list[str]](list)
        for tenant, own in (await self.own()).items():
            if (days := getattr(own, kind)) is not None:
                tenants_by_days[days].append(tenant)
        with_own = [tenant for some in tenants_by_days.values() for tenant in some]
        as_configured = table.c.owner.is_(None) | table.c.owner.not_in(with_own)
        return or_(
            as_configured & (table.c.created < before),
            *(
                table.c.owner.in_(some) & (table.c.created < now - days * DAY_S)
                for days, some in tenants_by_days.items()
            ),
        )
