"""Batches, the lines of their input, and their files. A batch is claimed by lease, as jobs are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, case, delete, func, insert, select, true, update

from careedit_deployments.errors import ConflictError, NotFoundError
from careedit_deployments.state.batch_records import BATCH_ENDS, BatchLine, BatchRecord, FileRecord
from careedit_deployments.state.database import Database, portions
from careedit_deployments.state.logs import IDS_AT_ONCE, Clock
from careedit_deployments.state.records import JOB_ENDS
from careedit_deployments.state.tables import batch_lines, batches, files, jobs, older, record_of, values_of

PER_OWNER = 2
"""Number of batches of one owner that are worked on at a time."""


class BatchTable:
    """Batches and their lines. What a worker writes counts only while its claim is valid."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, batch: BatchRecord) -> None:
        """Store a new batch, and keep its input file at least as long as it may be needed. Raises `NotFoundError`."""
        needed = update(files).where(files.c.id == batch.input_file, files.c.owner == batch.owner)
        async with self._database.write() as connection:
            later = case((files.c.expires < batch.deadline, batch.deadline), else_=files.c.expires)
            if not (await connection.execute(needed.values(expires=later))).rowcount:
                raise missing_file(batch.input_file)
            await connection.execute(insert(batches).values(**values_of(batch)))

    async def get(self, batch_id: str, *, owner: str | None = None) -> BatchRecord:
        """One batch. Raises `NotFoundError`, with `owner` also for the batch of another owner."""
        batch = await self._database.row(BatchRecord, select(batches).where(_is(batches, batch_id, owner)))
        if batch is None:
            raise NotFoundError(f"The batch {batch_id!r} does not exist; it may have expired.")
        return batch

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[BatchRecord]:
        """Batches of an owner that are older than the batch `before`, newest first."""
        return await self._database.rows(BatchRecord, older(batches, owner, before, limit))

    async def claim(self, worker: str, *, lease_s: float) -> BatchRecord | None:
        """Claim the oldest batch that has not ended and that no worker works on; None if no such batch exists.

        Workers work on at most `PER_OWNER` batches of an owner at a time, so that one owner cannot take every place.
        """
        now, others = self._clock(), batches.alias()
        active = others.c.status.not_in(BATCH_ENDS) & (others.c.lease_until >= now)
        held = select(func.count()).where(active, others.c.owner == batches.c.owner).scalar_subquery()
        due = batches.c.status.not_in(BATCH_ENDS) & (batches.c.lease_until < now) & (held < PER_OWNER)
        async with self._database.write() as connection:
            oldest = select(batches.c.id).where(due).order_by(batches.c.created).limit(1)
            first = (await connection.execute(oldest.with_for_update(skip_locked=True))).scalar_one_or_none()
            if first is None:
                return None
            take = update(batches).where(batches.c.id == first).values(worker=worker, lease_until=now + lease_s)
            return record_of(BatchRecord, (await connection.execute(take.returning(batches))).one())

    async def change(self, batch: BatchRecord, **values: Any) -> BatchRecord | None:
        """Change a claimed batch; returns it as it is now, None if the claim is lost."""
        mine = (batches.c.id == batch.id) & (batches.c.worker == batch.worker) & batches.c.status.not_in(BATCH_ENDS)
        async with self._database.write() as connection:
            row = (
                await connection.execute(update(batches).where(mine).values(**values).returning(batches))
            ).one_or_none()
        return None if row is None else record_of(BatchRecord, row)

    async def cancel(self, batch_id: str, *, owner: str | None = None) -> BatchRecord:
        """Cancel a batch that has not ended; its worker ends it. Raises `NotFoundError`, `ConflictError` for one that has."""
        active = _is(batches, batch_id, owner) & batches.c.status.in_(("validating", "in_progress"))
        await self._database.change(update(batches).where(active).values(status="cancelling", cancelling=self._clock()))
        batch = await self.get(batch_id, owner=owner)
        if batch.status != "cancelling":
            raise ConflictError(f"The batch is {batch.status}, so it cannot be cancelled any more.")
        return batch

    async def add_lines(self, lines: Sequence[BatchLine]) -> None:
        """Store the lines of a batch, unless they are stored already."""
        async with self._database.write() as connection:
            for some in portions(lines, IDS_AT_ONCE):
                values = [values_of(line) for line in some]
                await connection.execute(self._database.insert(batch_lines).on_conflict_do_nothing(), values)

    async def change_line(self, line: BatchLine, **values: Any) -> None:
        """Change a line."""
        its = (batch_lines.c.batch == line.batch) & (batch_lines.c.number == line.number)
        await self._database.change(update(batch_lines).where(its).values(**values))

    async def lines(self, batch_id: str, *, after: int = 0, done: bool | None = None) -> list[BatchLine]:
        """Up to `IDS_AT_ONCE` lines with numbers above `after`, in order; `done`: only those."""
        query = select(batch_lines).where(batch_lines.c.batch == batch_id, batch_lines.c.number > after)
        wanted = query if done is None else query.where(batch_lines.c.done.is_(done))
        return await self._database.rows(BatchLine, wanted.order_by(batch_lines.c.number).limit(IDS_AT_ONCE))

    async def refuse_waiting(self, batch_id: str, error: Mapping[str, Any]) -> None:
        """Give this error to every line that did not become a job."""
        waiting = (batch_lines.c.batch == batch_id) & batch_lines.c.job.is_(None) & batch_lines.c.error.is_(None)
        await self._database.change(update(batch_lines).where(waiting).values(error=dict(error)))

    async def open_jobs(self, batch_id: str) -> dict[str, str]:
        """State of each job of a batch that has not ended, by id."""
        query = select(jobs.c.id, jobs.c.status).join(batch_lines, batch_lines.c.job == jobs.c.id)
        mine = query.where(batch_lines.c.batch == batch_id, jobs.c.status.not_in(JOB_ENDS))
        async with self._database.read() as connection:
            return {row.id: row.status for row in await connection.execute(mine)}

    async def counts(self, batch_id: str) -> tuple[int, int]:
        """Numbers of the lines of a batch that are completed, and that failed."""
        failed = case(
            (batch_lines.c.error.is_not(None), true()),
            (batch_lines.c.job.is_not(None), jobs.c.id.is_(None) | jobs.c.status.in_(("failed", "cancelled"))),
        )
        query = select(func.count().filter(jobs.c.status == "completed"), func.count().filter(failed))
        joined = query.select_from(batch_lines.outerjoin(jobs, batch_lines.c.job == jobs.c.id))
        async with self._database.read() as connection:
            row = (await connection.execute(joined.where(batch_lines.c.batch == batch_id))).one()
        return row[0], row[1]

    async def keep_jobs(self, batch: BatchRecord) -> None:
        """Keep the ended jobs of a batch as long as the batch."""
        mine = jobs.c.id.in_(select(batch_lines.c.job).where(batch_lines.c.batch == batch.id))
        ended = mine & jobs.c.finished.is_not(None) & (jobs.c.expires < batch.expires)
        await self._database.change(update(jobs).where(ended).values(expires=batch.expires))

    async def forget_users(self, owner: str, names: Collection[str]) -> None:
        """Delete the lines of an owner's batches that name users with these stored names."""
        mine = batch_lines.c.batch.in_(select(batches.c.id).where(batches.c.owner == owner))
        await self._database.change(delete(batch_lines).where(mine, batch_lines.c.user.in_(list(names))))

    async def delete(self, batch_id: str) -> None:
        """Delete a batch, its lines and the lists of its results, if it exists. Its jobs stay."""
        async with self._database.write() as connection:
            await connection.execute(delete(batch_lines).where(batch_lines.c.batch == batch_id))
            await connection.execute(delete(files).where(files.c.batch == batch_id))
            await connection.execute(delete(batches).where(batches.c.id == batch_id))

    async def expired(self) -> list[str]:
        """Ids of ended batches that have expired."""
        due = batches.c.status.in_(BATCH_ENDS) & (batches.c.expires <= self._clock())
        return await self._database.column(select(batches.c.id).where(due))


class FileTable:
    """Files of batches. An expired file is not found, even before it is deleted."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, file: FileRecord) -> None:
        """Store a file."""
        await self._database.add(files, file)

    async def replace_results(self, batch_id: str, lists: Sequence[FileRecord]) -> None:
        """Store the lists of a batch's results in place of those that a lost worker has stored."""
        async with self._database.write() as connection:
            await connection.execute(delete(files).where(files.c.batch == batch_id))
            for file in lists:
                await connection.execute(insert(files).values(**values_of(file)))

    async def get(self, file_id: str, *, owner: str) -> FileRecord:
        """One file of an owner. Raises `NotFoundError`."""
        query = select(files).where(_is(files, file_id, owner), files.c.expires > self._clock())
        file = await self._database.row(FileRecord, query)
        if file is None:
            raise missing_file(file_id)
        return file

    async def page(
        self, owner: str, *, before: str | None = None, limit: int = 20, purpose: str | None = None
    ) -> list[FileRecord]:
        """Files of an owner that are older than the file `before`, newest first; `purpose`: only those."""
        page = older(files, owner, before, limit).where(files.c.expires > self._clock())
        return await self._database.rows(
            FileRecord, page if purpose is None else page.where(files.c.purpose == purpose)
        )

    async def in_use(self, file_id: str) -> bool:
        """Whether a batch that has not ended reads the file."""
        using = select(batches.c.id).where(batches.c.input_file == file_id, batches.c.status.not_in(BATCH_ENDS))
        return bool(await self._database.column(using.limit(1)))

    async def delete(self, file_id: str) -> None:
        """Delete the row of a file, if it exists."""
        await self._database.change(delete(files).where(files.c.id == file_id))

    async def expired(self) -> list[str]:
        """Ids of files that have expired."""
        return await self._database.column(select(files.c.id).where(files.c.expires <= self._clock()))

    async def existing(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the given ids that belong to a stored file."""
        return frozenset(await self._database.column(select(files.c.id).where(files.c.id.in_(list(ids)))))


def missing_file(file_id: str) -> NotFoundError:
    """The error for a file that does not exist."""
    return NotFoundError(f"The file {file_id!r} does not exist; it may have expired or been deleted. Upload it again.")


def _is(table: Table, row_id: str, owner: str | None) -> ColumnElement[bool]:
    its: ColumnElement[bool] = table.c.id == row_id
    return its if owner is None else its & (table.c.owner == owner)
