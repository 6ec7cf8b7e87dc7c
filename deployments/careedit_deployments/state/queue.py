"""The queue of jobs and of their webhooks, claimed by lease.

Every write of a worker is a compare-and-set on its claim (worker, attempt). A worker that did not renew its lease may still
run: its next write then fails, and nothing that it does counts. So a job ends exactly once, whichever process dies.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from careedit_deployments.errors import ConflictError, NotFoundError, OverloadedError, UnavailableError
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import (
    EventKind,
    JobEnd,
    JobEvent,
    JobImage,
    JobRecord,
    WebhookRecord,
    new_id,
)
from careedit_deployments.state.tables import job_events, jobs, older, record_of, values_of, webhooks

Topic = Literal["queued", "event", "cancel", "webhook"]
"""Changes that `JobTable.subscribe` reports: a job was queued, an event was written, a job is to be cancelled, a webhook is due."""

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

    def _notify(self, *topics: Topic, moved: JobRecord | None = None) -> None:
        """Set the events of `topics`, and call the watchers with the job that `moved`. For use after a commit."""
        if moved is not None:
            for watcher in self._watchers:
                watcher(moved)
        for topic in topics:
            if topic in self._subscribers:
                self._subscribers.pop(topic).set()

    async def add(self, job: JobRecord, *, max_queued: int | None = None) -> JobRecord:
        """Queue a job, or return the existing job with the same owner and idempotency key.

        Raises `ConflictError` if the existing job has another body, and `OverloadedError` for a new job if `max_queued` jobs
        wait. In PostgreSQL, jobs that arrive at the same time may exceed that limit by a few.
        """
        statement = self._database.insert(jobs).values(**values_of(job))
        new = statement.on_conflict_do_nothing(index_elements=["owner", "idempotency_key"]).returning(jobs.c.id)
        same = (jobs.c.owner == job.owner) & (jobs.c.idempotency_key == job.idempotency_key)
        async with self._database.write() as connection:
            added = (await connection.execute(new)).one_or_none() is not None
            row = None if added else (await connection.execute(select(jobs).where(same))).one_or_none()
            if added:
                if max_queued is not None and await _queued(connection) > max_queued:
                    raise queue_full(max_queued)
                job = await self._write_event(connection, job, "queued", {})
        if added:
            self._notify("queued", moved=job)
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
        """Number of queued jobs that come before this one."""
        earlier = (jobs.c.status == "queued") & (jobs.c.created < job.created)
        async with self._database.read() as connection:
            return (await connection.execute(select(func.count()).select_from(jobs).where(earlier))).scalar_one()

    async def waiting(self) -> int:
        """Number of queued jobs of all owners."""
        async with self._database.read() as connection:
            return await _queued(connection)

    async def claim(self, worker: str, *, lease_s: float, attempts: int) -> JobRecord | None:
        """Claim the oldest job that is queued or whose lease has expired; None if no such job exists.

        A job with an expired lease that was started `attempts` times fails instead, with that reason.
        """
        while True:
            now = self._clock()
            due = or_(jobs.c.status == "queued", (jobs.c.status == "running") & (jobs.c.lease_until < now))
            # PostgreSQL: concurrent workers skip rows that others have locked. SQLite: writers are serialised anyway.
            oldest = select(jobs.c.id).where(due).order_by(jobs.c.created, jobs.c.id).limit(1)
            take = (
                update(jobs)
                .where(jobs.c.id == oldest.with_for_update(skip_locked=True).scalar_subquery(), due)
                .values(
                    status="running",
                    worker=worker,
                    attempt=jobs.c.attempt + 1,
                    lease_until=now + lease_s,
                    started=func.coalesce(jobs.c.started, now),
                )
                .returning(jobs)
            )
            async with self._database.write() as connection:
                row = (await connection.execute(take)).one_or_none()
                if row is None:
                    return None
                job = record_of(JobRecord, row)
                ended: JobRecord | None = None
                if job.cancel_requested:
                    ended = await self._end(connection, _is(job.id), "cancelled")
                elif job.attempt > attempts:
                    message = (
                        f"Every worker that started the job was lost ({attempts} attempts); send the request again."
                    )
                    error = {"code": "worker_lost", "message": message}
                    ended = await self._end(connection, _is(job.id), "failed", error=error, attempt=attempts)
                else:
                    job = await self._write_event(connection, job, "started", {"attempt": job.attempt})
            self._notify("event", "webhook", moved=ended or job)
            if ended is None:
                return job

    async def renew_lease(self, job: JobRecord, *, lease_s: float) -> bool | None:
        """Renew the lease. Returns whether the job is to be cancelled; None if the claim is lost."""
        renew = update(jobs).where(_claim(job)).values(lease_until=self._clock() + lease_s)
        async with self._database.write() as connection:
            stop: bool | None = (
                await connection.execute(renew.returning(jobs.c.cancel_requested))
            ).scalar_one_or_none()
        return stop

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
        self._notify("event")
        return now.cancel_requested

    async def finish(
        self, job: JobRecord, status: JobEnd, *, error: Mapping[str, str] | None = None
    ) -> JobRecord | None:
        """End a claimed job: status, last event and webhook in one transaction. Returns None if the claim is lost."""
        async with self._database.write() as connection:
            ended = await self._end(connection, _claim(job), status, error=error)
        self._notify("event", "webhook", moved=ended)
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
        self._notify("queued", "event")
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
        self._notify("cancel", "event", "webhook", moved=ended)
        if row is None:
            raise _gone(job_id)
        return record_of(JobRecord, row)

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
        values = {"status": status, "error": error, "finished": now, "expires": now + self._ttl_s, **more}
        row = (await connection.execute(update(jobs).where(which).values(**values).returning(jobs))).one_or_none()
        if row is None:
            return None
        data = {"message": error["message"], "code": error["code"]} if error else {}
        job = await self._write_event(connection, record_of(JobRecord, row), status, data)
        if job.webhook is not None:
            message = WebhookRecord(
                id=new_id("msg"), job=job.id, url=job.webhook, payload=payload_of(job), next_at=now, created=now
            )
            await connection.execute(insert(webhooks).values(**values_of(message)))
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


def payload_of(job: JobRecord) -> str:
    """Body of the webhook that reports the end of a job, in the shape that Standard Webhooks recommends."""
    ended = datetime.fromtimestamp(job.finished or job.created, UTC).isoformat().replace("+00:00", "Z")
    data = {"id": job.id, "object": "job", "status": job.status, "images": len(job.images), "error": job.error}
    return json.dumps({"type": f"job.{job.status}", "timestamp": ended, "data": data}, separators=(",", ":"))


def queue_full(max_queued: int) -> OverloadedError:
    """The error for a new job while `max_queued` others wait."""
    return OverloadedError(f"{max_queued} jobs are waiting, which is the limit; try again later.", retry_after=FULL_S)


def other_body(job: JobRecord) -> ConflictError:
    """The error for a request that reuses the idempotency key of `job` with another body."""
    return ConflictError(
        f"The Idempotency-Key {job.idempotency_key!r} was used for job {job.id} with another body; use a new key for a new job."
    )


async def _queued(connection: AsyncConnection) -> int:
    """Number of queued jobs."""
    query = select(func.count()).select_from(jobs).where(jobs.c.status == "queued")
    return (await connection.execute(query)).scalar_one()


def _is(job_id: str, owner: str | None = None) -> ColumnElement[bool]:
    its = jobs.c.id == job_id
    return its if owner is None else its & (jobs.c.owner == owner)


def _claim(job: JobRecord) -> ColumnElement[bool]:
    """Condition that the claim of this worker is still valid."""
    mine = (jobs.c.worker == job.worker) & (jobs.c.attempt == job.attempt)
    return _is(job.id) & (jobs.c.status == "running") & mine


def _gone(job_id: str) -> NotFoundError:
    return NotFoundError(f"The job {job_id!r} does not exist; it may have expired or been deleted.")


class WebhookTable:
    """Webhooks, claimed by lease. Each one is written in the transaction that ends its job, so none is lost."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def claim(self, *, lease_s: float) -> WebhookRecord | None:
        """Claim a webhook that is due, for `lease_s` seconds; None if no webhook is due. `attempt` counts this attempt."""
        now = self._clock()
        due = (webhooks.c.status == "pending") & (webhooks.c.next_at <= now)
        oldest = select(webhooks.c.id).where(due).order_by(webhooks.c.next_at).limit(1)
        take = (
            update(webhooks)
            .where(webhooks.c.id == oldest.with_for_update(skip_locked=True).scalar_subquery(), due)
            .values(attempt=webhooks.c.attempt + 1, next_at=now + lease_s)
            .returning(webhooks)
        )
        async with self._database.write() as connection:
            row = (await connection.execute(take)).one_or_none()
        return None if row is None else record_of(WebhookRecord, row)

    async def settle(
        self, webhook: WebhookRecord, *, error: str | None = None, retry_in_s: float | None = None
    ) -> None:
        """Store the result of an attempt: without `error` delivered, with `error` but no `retry_in_s` given up."""
        if error is None:
            values: dict[str, object] = {"status": "delivered", "error": None}
        elif retry_in_s is None:
            values = {"status": "given_up", "error": error}
        else:
            values = {"next_at": self._clock() + retry_in_s, "error": error}
        mine = (webhooks.c.id == webhook.id) & (webhooks.c.attempt == webhook.attempt)
        await self._database.change(update(webhooks).where(mine).values(**values))

    async def of(self, job_id: str) -> list[WebhookRecord]:
        """Webhooks of a job, oldest first."""
        query = select(webhooks).where(webhooks.c.job == job_id).order_by(webhooks.c.id)
        return await self._database.rows(WebhookRecord, query)
