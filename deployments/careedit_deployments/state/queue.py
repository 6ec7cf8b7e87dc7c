"""The queue of jobs, claimed by lease. Tenants take turns, as `shares` says.

Every write of a worker is a compare-and-set on its claim (worker, attempt). A worker that did not renew its lease may still
run: its next write then fails, and nothing that it does counts. So a job ends exactly once, whichever process dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from careedit_deployments.errors import (
    ConcurrencyError,
    ConflictError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from careedit_deployments.state.database import Database
from careedit_deployments.state.deliveries import write_messages
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import (
    ANONYMOUS,
    EventKind,
    JobEnd,
    JobEvent,
    JobImage,
    JobRecord,
)
from careedit_deployments.state.retention import kept_s
from careedit_deployments.state.shares import TURN, count_begin, jobs_ahead, next_job
from careedit_deployments.state.storage import free_reserved
from careedit_deployments.state.tables import job_events, jobs, keys, older, record_of, values_of, webhooks

Topic = Literal["queued", "event", "cancel", "webhook", "batch"]
"""Changes that `JobTable.subscribe` reports: a job was queued, an event was written, a job is to be cancelled, a webhook is due,
a batch was made."""

KEY_REVOKED = {
    "code": "key_revoked",
    "message": "The API key that made the job was revoked; send the request again with a valid key.",
}
"""The error of a job that is cancelled because its key was revoked."""

FULL_S = 10.0
"""Seconds after which a client whose job was refused because the queue is full should try again."""


class JobTable:
    """Jobs, claimed by lease: what a worker writes counts only while its claim (`worker`, `attempt`) is valid. Leases are
    compared with the database's clock (`unix_time`)."""

    def __init__(self, database: Database, clock: Clock, ttl_s: float) -> None:
        self._database, self._clock, self._ttl_s = database, clock, ttl_s
        self._subscribers: dict[Topic, asyncio.Event] = {}
        self._watchers: list[Callable[[JobRecord], None]] = []

    def subscribe(self, to: Topic) -> asyncio.Event:
        """An event that is set at the next change of this kind that this process makes.

        Get it before reading the table, then wait for it. Changes by other processes do not set it: wait with a time limit.
        """
        return self._subscribers.setdefault(to, asyncio.Event())

    def watch(self, watcher: Callable[[JobRecord], None]) -> None:
        """Call `watcher` with each job that this process queues, starts or ends, after the commit; `status` says which.

        It must neither block nor raise.
        """
        self._watchers.append(watcher)

    def notify(self, *topics: Topic, moved: JobRecord | None = None) -> None:
        """Set the events of `topics`, and call the watchers with the job that `moved`. Call it after a commit."""
        if moved is not None:
            for watcher in self._watchers:
                watcher(moved)
        for topic in topics:
            if topic in self._subscribers:
                self._subscribers.pop(topic).set()

    async def add(self, job: JobRecord, *, max_queued: int | None = None) -> JobRecord:
        """Queue a job, or return the existing job with the same owner and idempotency key.

        Raises `ConflictError` if the existing job has another body, and `OverloadedError` for a new job without room
        (`check_room`). In PostgreSQL, jobs that arrive at the same time may exceed that limit by a few.
        """
        statement = self._database.insert(jobs).values(**values_of(job))
        new = statement.on_conflict_do_nothing(index_elements=["owner", "idempotency_key"]).returning(jobs.c.id)
        same = (jobs.c.owner == job.owner) & (jobs.c.idempotency_key == job.idempotency_key)
        async with self._database.write() as connection:
            added = (await connection.execute(new)).one_or_none() is not None
            row = None if added else (await connection.execute(select(jobs).where(same))).one_or_none()
            if added:
                if max_queued is not None:
                    own, total = await _queued(connection, job.owner)
                    _check_room(job.owner, (own - 1, total - 1), max_queued)
                job = await self._write_event(connection, job, "queued", {})
        if added:
            self.notify("queued", moved=job)
            return job
        if row is None:
            raise UnavailableError("The job of this Idempotency-Key was just deleted; send the request again.")
        known = record_of(JobRecord, row)
        if known.body_sha256 != job.body_sha256:
            raise other_body(known)
        return known

    async def keyed(self, owner: str, key: str) -> JobRecord | None:
        """The job with this owner and idempotency key, or None."""
        query = select(jobs).where((jobs.c.owner == owner) & (jobs.c.idempotency_key == key))
        return await self._database.row(JobRecord, query)

    async def get(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """One job. Raises `NotFoundError` for an unknown id, or with `owner` for the job of another owner."""
        job = await self._database.row(JobRecord, select(jobs).where(_is(job_id, owner)))
        if job is None:
            raise _gone(job_id)
        return job

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[JobRecord]:
        """Jobs of an owner that are older than the job `before`, newest first."""
        return await self._database.rows(JobRecord, older(jobs, owner, before, limit))

    async def ahead(self, job: JobRecord) -> int:
        """Number of queued jobs that come before this queued one, if no more are added."""
        async with self._database.read() as connection:
            ahead: int = (await connection.execute(jobs_ahead(job.id))).scalar_one()
        return ahead

    async def waiting(self) -> int:
        """Number of queued jobs of all owners."""
        async with self._database.read() as connection:
            return (await _queued(connection))[1]

    async def check_room(self, owner: str, max_queued: int) -> None:
        """Raise `OverloadedError` if the queue has no place for another job of this owner.

        A tenant may have as many jobs waiting as places are free: alone half of all places, with N others a share of
        1 / (N + 2), and some place is always free for the next tenant. The anonymous owner may fill the queue.
        """
        async with self._database.read() as connection:
            _check_room(owner, await _queued(connection, owner), max_queued)

    async def claim(self, worker: str, *, lease_s: float, attempts: int) -> JobRecord | None:
        """Claim the next job that is queued or whose lease has expired, in the order of `shares`; None if no such job exists.

        A job with an expired lease that was started `attempts` times fails instead, with that reason.
        """
        while True:
            now = self._clock()
            due = or_(jobs.c.status == "queued", (jobs.c.status == "running") & (jobs.c.lease_until < now))
            async with self._database.write() as connection:
                await self._database.take_turns(connection, TURN)  # else two workers would serve the same owner
                # Other changes of a job do not take turns: PostgreSQL skips the rows that they have locked.
                first = (
                    await connection.execute(next_job(due).with_for_update(of=jobs, skip_locked=True))
                ).one_or_none()
                if first is None:
                    return None
                take = (
                    update(jobs)
                    .where(_is(first.id))
                    .values(
                        status="running",
                        worker=worker,
                        attempt=jobs.c.attempt + 1,
                        lease_until=now + lease_s,
                        started=func.coalesce(jobs.c.started, now),
                    )
                )
                job = record_of(JobRecord, (await connection.execute(take.returning(jobs))).one())
                ended: JobRecord | None = None
                if job.cancel_requested or await _is_revoked(connection, job.key):
                    ended = await self._end(connection, _is(job.id), "cancelled")
                elif job.attempt > attempts:
                    message = (
                        f"Every worker that started the job was lost ({attempts} attempts); send the request again."
                    )
                    error = {"code": "worker_lost", "message": message}
                    ended = await self._end(connection, _is(job.id), "failed", error=error, attempt=attempts)
                else:
                    if first.started is None:
                        await count_begin(self._database, connection, job.owner, job.cost)
                    job = await self._write_event(connection, job, "started", {"attempt": job.attempt})
            self.notify("event", "webhook", moved=ended or job)
            if ended is None:
                return job

    async def renew_lease(self, job: JobRecord, *, lease_s: float) -> bool | None:
        """Renew the lease. Returns whether the job is to be cancelled; None if the claim is lost."""
        renew = update(jobs).where(_claim(job)).values(lease_until=self._clock() + lease_s)
        async with self._database.write() as connection:
            row = (await connection.execute(renew.returning(jobs.c.cancel_requested))).one_or_none()
            return None if row is None else row.cancel_requested or await _is_revoked(connection, job.key)

    async def append(self, job: JobRecord, event: JobEvent, *, image: JobImage | None = None) -> bool | None:
        """Write an event, which gets its number here, and a finished image. Returns the same as `renew_lease`."""
        count = update(jobs).where(_claim(job)).values(last_event=jobs.c.last_event + 1)
        async with self._database.write() as connection:
            row = (await connection.execute(count.returning(jobs))).one_or_none()
            if row is None:
                return None
            now = record_of(JobRecord, row)
            if image is not None:
                others = [made for made in now.images if made.image != image.image]
                images = [made.model_dump(mode="json") for made in sorted([*others, image], key=lambda one: one.image)]
                await connection.execute(update(jobs).where(_is(job.id)).values(images=images))
            kept = event.model_copy(update={"number": now.last_event})
            await connection.execute(insert(job_events).values(**values_of(kept)))
            stop = now.cancel_requested or await _is_revoked(connection, job.key)
        self.notify("event")
        return stop

    async def finish(
        self, job: JobRecord, status: JobEnd, *, error: Mapping[str, str] | None = None
    ) -> JobRecord | None:
        """End a claimed job: status, last event and webhook in one transaction. Returns None if the claim is lost."""
        async with self._database.write() as connection:
            ended = await self._end(connection, _claim(job), status, error=error)
        self.notify("event", "webhook", moved=ended)
        return ended

    async def release(self, job: JobRecord) -> bool:
        """Put a claimed job back into the queue without counting the attempt. False: the claim is lost."""
        back = {"status": "queued", "attempt": jobs.c.attempt - 1, "worker": None, "lease_until": 0.0}
        async with self._database.write() as connection:
            row = (
                await connection.execute(update(jobs).where(_claim(job)).values(**back).returning(jobs))
            ).one_or_none()
            if row is None:
                return False
            await self._write_event(
                connection, record_of(JobRecord, row), "requeued", {"message": "The worker shut down."}
            )
        self.notify("queued", "event")
        return True

    async def cancel(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """Cancel a job: a queued one now, a running one through its worker. Raises `NotFoundError`."""
        its = _is(job_id, owner)
        async with self._database.write() as connection:
            ended = await self._end(connection, its & (jobs.c.status == "queued"), "cancelled")
            if ended is None:
                ask = update(jobs).where(its, jobs.c.status == "running").values(cancel_requested=True)
                await connection.execute(ask)
            row = (await connection.execute(select(jobs).where(its))).one_or_none()
        self.notify("cancel", "event", "webhook", moved=ended)
        if row is None:
            raise _gone(job_id)
        return record_of(JobRecord, row)

    async def end_queued(self, key_id: str) -> int:
        """Cancel the queued jobs of a revoked key; its running ones end through their workers. Returns their number."""
        theirs = (jobs.c.key == key_id) & (jobs.c.status == "queued")
        ids = await self._database.column(select(jobs.c.id).where(theirs))
        for job_id in ids:
            async with self._database.write() as connection:
                ended = await self._end(connection, _is(job_id) & theirs, "cancelled")
            self.notify("event", "webhook", moved=ended)
        return len(ids)

    async def events(self, job_id: str, *, after: int = 0) -> list[JobEvent]:
        """Events of a job with numbers above `after`, in order."""
        query = select(job_events).where(job_events.c.job == job_id, job_events.c.number > after)
        return await self._database.rows(JobEvent, query.order_by(job_events.c.number))

    async def delete(self, job_id: str) -> None:
        """Delete a job, its events and its webhooks, if it exists."""
        async with self._database.write() as connection:
            for table in (job_events, webhooks):
                await connection.execute(delete(table).where(table.c.job == job_id))
            await connection.execute(delete(jobs).where(jobs.c.id == job_id))

    async def expired(self) -> list[str]:
        """Ids of jobs that have expired."""
        return await self._database.column(select(jobs.c.id).where(jobs.c.expires <= self._clock()))

    async def existing(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the given ids that belong to a stored job."""
        return frozenset(await self._database.column(select(jobs.c.id).where(jobs.c.id.in_(list(ids)))))

    async def _end(
        self,
        connection: AsyncConnection,
        which: ColumnElement[bool],
        status: JobEnd,
        *,
        error: Mapping[str, str] | None = None,
        **more: Any,
    ) -> JobRecord | None:
        """End the job that `which` matches, if any, and write its last event and its webhook with it."""
        now = self._clock()
        whose = (await connection.execute(select(jobs.c.owner, jobs.c.key).where(which))).one_or_none()
        if whose is None:
            return None
        if status == "cancelled":
            error = KEY_REVOKED if await _is_revoked(connection, whose.key) else None
        values = {
            "status": status,
            "error": error,
            "finished": now,
            "expires": now + await kept_s(connection, whose.owner, "jobs", self._ttl_s),
            **more,
        }
        row = (await connection.execute(update(jobs).where(which).values(**values).returning(jobs))).one_or_none()
        if row is None:
            return None
        await free_reserved(connection, f"jobs/{row.id}")
        data = {"message": error["message"], "code": error["code"]} if error else {}
        job = await self._write_event(connection, record_of(JobRecord, row), status, data)
        await write_messages(connection, job, now)
        return job

    async def _write_event(
        self, connection: AsyncConnection, job: JobRecord, kind: EventKind, data: Mapping[str, Any]
    ) -> JobRecord:
        """Write an event of a job that this transaction has locked; returns the job with the event counted."""
        number = job.last_event + 1
        event = JobEvent(job=job.id, number=number, kind=kind, data=data, created=self._clock())
        await connection.execute(update(jobs).where(_is(job.id)).values(last_event=number))
        await connection.execute(insert(job_events).values(**values_of(event)))
        return job.model_copy(update={"last_event": number})


def other_body(job: JobRecord) -> ConflictError:
    """The error for a request that reuses the idempotency key of `job` with another body."""
    return ConflictError(
        f"The Idempotency-Key {job.idempotency_key!r} was used for job {job.id} with another body; use a new key for a new job."
    )


async def _queued(connection: AsyncConnection, owner: str = ANONYMOUS) -> tuple[int, int]:
    """Numbers of queued jobs: of one owner, and of all."""
    counts = select(func.count().filter(jobs.c.owner == owner), func.count()).where(jobs.c.status == "queued")
    own, total = (await connection.execute(counts)).one()
    return own, total


def _check_room(owner: str, queued: tuple[int, int], max_queued: int) -> None:
    own, total = queued
    if total >= max_queued:
        raise OverloadedError(
            f"{max_queued} jobs are waiting, which is the limit; try again later.", retry_after=FULL_S
        )
    if owner != ANONYMOUS and own >= max_queued - total:
        raise ConcurrencyError(
            f"{own} of your jobs are waiting, as many as you may have now; try again when one has begun.",
            retry_after=FULL_S,
        )


def _is(job_id: str, owner: str | None = None) -> ColumnElement[bool]:
    its = jobs.c.id == job_id
    return its if owner is None else its & (jobs.c.owner == owner)


async def _is_revoked(connection: AsyncConnection, key: str | None) -> bool:
    """Whether the key with this id was revoked."""
    if key is None:
        return False
    revoked = exists().where(keys.c.id == key, keys.c.revoked.is_not(None))
    return bool((await connection.execute(select(revoked))).scalar_one())


def _claim(job: JobRecord) -> ColumnElement[bool]:
    """Condition that the claim of this worker is still valid."""
    mine = (jobs.c.worker == job.worker) & (jobs.c.attempt == job.attempt)
    return _is(job.id) & (jobs.c.status == "running") & mine


def _gone(job_id: str) -> NotFoundError:
    return NotFoundError(f"The job {job_id!r} does not exist; it may have expired or been deleted.")
