"""The worker of batches: reads the input, makes each line a job, waits for the jobs, and writes the lists of results.

Only a few jobs of a batch wait in the queue at a time, so a batch neither fills the queue nor delays its tenant's other jobs.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any, Literal

from anyio.to_thread import run_sync
from fastapi import FastAPI

from careedit_deployments.errors import NotFoundError, OverloadedError, UnavailableError
from careedit_deployments.http.batch_lines import Ask, Spool, make_job, read_lines, result_of
from careedit_deployments.http.services import Services
from careedit_deployments.jobs.background import worker_name
from careedit_deployments.jobs.workers import Pool, wait_for
from careedit_deployments.problems import problem_of
from careedit_deployments.state.batch_records import BatchEnd, BatchLine, BatchRecord, FileRecord
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import new_id

logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds without a sign of life from its worker after which another worker takes a batch."""
POLL_S = 1.0
"""Maximum seconds between two looks at the jobs of a batch."""
BATCHES = 64
"""Number of batches that one ingress replica works on at once. Others wait in the state "validating"."""

_ENDED: Mapping[str, Mapping[str, str]] = {
    "cancelled": {"code": "batch_cancelled", "message": "The batch was cancelled before this line was edited."},
    "expired": {"code": "batch_expired", "message": "The batch's time was over before this line was edited."},
}


class _Lost(Exception):
    """The claim is lost to another worker, or the batch was deleted."""


@asynccontextmanager
async def working_on_batches(app: FastAPI, services: Services) -> AsyncIterator[None]:
    """Work on batches while the block lasts. Those in progress continue in another replica, or after a restart."""
    worker = BatchWorker(app, services, worker_name())
    pool = Pool(worker.claim, worker.work, partial(services.store.jobs.subscribe, "batch"), places=BATCHES)
    running = asyncio.create_task(pool.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.drain(0.0)


class BatchWorker:
    """Works on the batches that it claims."""

    def __init__(self, app: FastAPI, services: Services, name: str) -> None:
        self._app, self._services, self._name = app, services, name
        self._batches = services.store.batches
        self._ahead = 2 * services.config.jobs.workers
        self._reading = asyncio.Lock()  # one input at a time is in memory

    async def claim(self) -> BatchRecord | None:
        """Claim the next batch, if any."""
        if self._services.stopping.begun:
            return None
        # A name per claim, so that this worker does not take its own expired claim for a valid one.
        return await self._batches.claim(f"{self._name}:{secrets.token_hex(4)}", lease_s=LEASE_S)

    async def work(self, batch: BatchRecord) -> None:
        """Work on a claimed batch to its end, or give it back if this task is cancelled."""
        try:
            with closing(Spool()) as bodies:
                await self._work(batch, bodies)
        except _Lost:
            logger.warning("The batch %s was taken over by another worker, or deleted.", batch.id)
        except asyncio.CancelledError:
            await asyncio.shield(self._batches.change(batch, lease_until=0.0))
            raise

    async def _work(self, batch: BatchRecord, bodies: Spool) -> None:
        if batch.finalizing is None and batch.status != "cancelling":
            async with self._reading:
                batch = await self._renewed(batch)
                asks, errors = await self._read(batch)
                if batch.status == "validating" and not errors:
                    await self._batches.add_lines([await self._line(batch, ask) for ask in asks])
                    batch = await self._changed(batch, status="in_progress", begun=unix_time(), total=len(asks))
                await run_sync(bodies.add, asks)
                del asks
            if errors and batch.total == 0:
                await self._changed(batch, status="failed", errors=errors, ended=unix_time())
                return
            if errors:  # since it was read the first time
                error = {name: errors[0][name] for name in ("code", "message")}
                await self._batches.refuse_waiting(batch.id, {"error": error})
        if batch.finalizing is None:
            end = await self._edit(batch, bodies)
            if end == "completed":
                batch = await self._changed(batch, status="finalizing", finalizing=unix_time())
            else:
                batch = await self._changed(batch, finalizing=unix_time())
        await self._finish(batch)

    async def _read(self, batch: BatchRecord) -> tuple[list[Ask], list[dict[str, Any]]]:
        """The lines of the input, and its errors."""
        try:
            file = await self._services.store.files.get(batch.input_file, owner=batch.owner)
            data = await self._services.blobs.get(str(file.key))
        except NotFoundError:
            message = "The input file was deleted before all lines were read; upload it again."
            return [], [{"code": "input_file_deleted", "message": message, "line": None, "param": None}]
        return await run_sync(read_lines, data)

    async def _line(self, batch: BatchRecord, ask: Ask) -> BatchLine:
        user = await self._services.users.stored(batch.owner, ask.user, clear=batch.clear_names)
        return BatchLine(batch=batch.id, number=ask.number, custom_id=ask.custom_id, user=user)

    async def _waiting(self, batch: BatchRecord, bodies: Spool) -> deque[BatchLine]:
        """The lines that neither became a job nor were refused."""
        found, after = deque[BatchLine](), 0
        while lines := await self._batches.lines(batch.id, after=after):
            found.extend(one for one in lines if one.job is None and one.error is None and one.number in bodies)
            after = lines[-1].number
        return found

    async def _edit(self, batch: BatchRecord, bodies: Spool) -> BatchEnd:
        """Make jobs of the lines, as there is room, and wait for their end."""
        jobs, waiting = self._services.store.jobs, await self._waiting(batch, bodies)
        while True:
            changed = jobs.subscribe("event")
            batch = await self._renewed(batch)
            end = self._ends(batch)
            states = await self._batches.open_jobs(batch.id)
            if end is not None:
                waiting.clear()
                await self._batches.refuse_waiting(batch.id, {"error": dict(_ENDED[end])})
                for job_id in states:
                    await jobs.cancel(job_id)
            elif (
                waiting
                and list(states.values()).count("queued") < self._ahead
                and await self._add(batch, waiting[0], bodies)
            ):
                waiting.popleft()
                continue
            if not waiting and not states:
                return end or "completed"
            await self._batches.keep_jobs(batch)
            await wait_for(changed, POLL_S)

    def _ends(self, batch: BatchRecord) -> Literal["cancelled", "expired"] | None:
        """How a batch ends that must not continue; None: it continues."""
        if batch.status == "cancelling":
            return "cancelled"
        return "expired" if self._services.store.clock() > batch.deadline else None

    async def _add(self, batch: BatchRecord, line: BatchLine, bodies: Spool) -> bool:
        """Make a line a job, or refuse it; False: the queue has no room now."""
        try:
            job = await make_job(self._app, batch, line.number, bodies.body(line.number))
        except (OverloadedError, UnavailableError) as error:
            logger.debug("A line of the batch %s waits: %s", batch.id, error)
            return False
        except Exception as error:  # noqa: BLE001 - every other error is the line's, as it would be the request's
            problem = problem_of(error)
            response = {"status_code": problem.status, "request_id": batch.id, "body": problem.body}
            await self._batches.change_line(line, error={"response": response})
        else:
            await self._batches.change_line(line, job=job.id)
        return True

    async def _finish(self, batch: BatchRecord) -> None:
        """Write the lists of results and end the batch."""
        await self._batches.keep_jobs(batch)
        sizes, counts, after = {True: 0, False: 0}, {True: 0, False: 0}, 0
        while lines := await self._batches.lines(batch.id, after=after):
            for line in lines:
                data, completed = await result_of(self._services, line)
                if completed != line.done:
                    await self._batches.change_line(line, done=completed)
                sizes[completed] += len(data)
                counts[completed] += 1
            after = lines[-1].number
            await self._renewed(batch)
        made: dict[bool, FileRecord] = {
            completed: FileRecord(
                id=new_id("batchfile"),
                owner=batch.owner,
                name=f"{batch.id}_{'output' if completed else 'error'}.jsonl",
                purpose="batch_output",
                bytes=sizes[completed],
                batch=batch.id,
                errors=not completed,
                created=unix_time(),
                expires=batch.expires,
            )
            for completed, count in counts.items()
            if count
        }
        await self._services.store.files.replace_results(batch.id, list(made.values()))
        await self._changed(
            batch,
            status={"finalizing": "completed", "cancelling": "cancelled"}.get(batch.status, "expired"),
            completed=counts[True],
            failed=counts[False],
            output_file=made[True].id if True in made else None,
            error_file=made[False].id if False in made else None,
            ended=unix_time(),
        )

    async def _renewed(self, batch: BatchRecord) -> BatchRecord:
        """The batch as it is now, with a new lease. Raises `_Lost`."""
        return await self._changed(batch, lease_until=self._services.store.clock() + LEASE_S)

    async def _changed(self, batch: BatchRecord, **values: Any) -> BatchRecord:
        """Change the batch. Raises `_Lost`."""
        changed = await self._batches.change(batch, **values)
        if changed is None:
            raise _Lost
        return changed
