"""What works on jobs, inside each ingress replica: claim, edit, write down every event, end exactly once.

Three things can end an edit before its time: somebody wants it cancelled, the claim is lost to another worker (this one
was silent for too long), or this worker shuts down and gives the job back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Literal

from anyio.to_thread import run_sync

from careedit_deployments.backend import EditEvent, Made, Partial
from careedit_deployments.config import JobsConfig
from careedit_deployments.errors import OverloadedError, UnavailableError
from careedit_deployments.http.errors import problem_of
from careedit_deployments.http.output import encode
from careedit_deployments.jobs.order import Output, StoredOrder, load_order, remaining, scope_of
from careedit_deployments.jobs.pool import heard
from careedit_deployments.service import EditOrder, Edits
from careedit_deployments.state.base import BlobStore, EventKind, JobEvent, JobImage, JobRecord, Store

logger = logging.getLogger(__name__)

BEAT_S = 0.5
"""Most seconds between two looks whether a job is to stop; its steps look too."""
PROGRESS_S = 0.1
"""Least seconds between two progress events of a job; fast steps would fill the table."""

Verdict = Literal["cancel", "lost"]


class _Stopped(Exception):
    """The edit is not to go on."""

    def __init__(self, why: Verdict) -> None:
        super().__init__(why)
        self.why: Verdict = why


class JobWorker:
    """Works on jobs that were claimed for it."""

    def __init__(
        self,
        name: str,
        edits: Edits,
        store: Store,
        blobs: BlobStore,
        config: JobsConfig,
        *,
        patience_s: float = 300.0,
        pause_s: float = 0.5,
    ) -> None:
        """`name` is this process's alone. An overloaded platform is asked again for `patience_s` seconds, at first after
        `pause_s`."""
        self.name = name
        self._edits, self._store, self._blobs, self._config = edits, store, blobs, config
        self._patience_s, self._pause_s = patience_s, pause_s

    async def claim(self) -> JobRecord | None:
        """The next job, if there is one."""
        return await self._store.jobs.claim(self.name, lease_s=self._config.lease_s, attempts=self._config.attempts)

    async def work(self, job: JobRecord) -> None:
        """Bring a claimed job to its end, or give it back if this task is cancelled."""
        editing = asyncio.create_task(self._edit(job))
        watching = asyncio.create_task(self._watch(job))
        try:
            await asyncio.wait({editing, watching}, return_when=asyncio.FIRST_COMPLETED)
            edited = editing.done()
        except asyncio.CancelledError:
            await _stop(editing, watching)
            await asyncio.shield(self._store.jobs.release(job))
            raise
        await _stop(editing, watching)
        await self._end(job, editing, None if edited else watching.result())

    async def _end(self, job: JobRecord, editing: asyncio.Task[None], verdict: Verdict | None) -> None:
        error = None if editing.cancelled() else editing.exception()
        if isinstance(error, _Stopped):
            verdict = error.why
        ended: JobRecord | None = None
        if verdict == "cancel":
            ended = await self._store.jobs.finish(job, "cancelled")
        elif verdict is None and error is None:
            ended = await self._store.jobs.finish(job, "completed")
        elif verdict is None and error is not None:
            problem = problem_of(error)
            told = {"code": problem.code or problem.type, "message": problem.message}
            ended = await self._store.jobs.finish(job, "failed", error=told)
        if ended is None:
            logger.warning(
                "The job %s was taken over by another worker; what was made of it here does not count.", job.id
            )
            if not await self._store.jobs.known([job.id]):
                await self._blobs.delete_scope(scope_of(job.id))  # it was deleted since, but we wrote once more

    async def _watch(self, job: JobRecord) -> Verdict:
        """Renews the lease until the job is to stop."""
        while True:
            event = self._store.jobs.listen("cancel")
            try:
                stop = await self._store.jobs.beat(job, lease_s=self._config.lease_s)
            except UnavailableError as error:
                logger.warning("The lease of the job %s was not renewed: %s", job.id, error)
                stop = False
            if stop is not False:
                return "lost" if stop is None else "cancel"
            await heard(event, min(self._config.lease_s / 3, BEAT_S))

    async def _edit(self, job: JobRecord) -> None:
        """Edits, again where the platform has no room or lost a replica, until every image is made."""
        stored = StoredOrder(**job.order)
        made = {image.image: image for image in job.images}
        order = await load_order(stored, self._blobs, owner=job.owner, request_id=job.id)
        started, failures = time.monotonic(), 0
        while True:
            try:
                await self._attempt(job, order, stored.output, made)
                return
            except OverloadedError as error:
                pause = max(self._pause_s, error.retry_after)
                if time.monotonic() + pause - started > self._patience_s:
                    raise
            except UnavailableError:
                failures += 1
                pause = self._pause_s * 2**failures
                if failures >= self._config.attempts:
                    raise
            await asyncio.sleep(pause)

    async def _attempt(self, job: JobRecord, order: EditOrder, output: Output, made: dict[int, JobImage]) -> None:
        rest, first = remaining(order.request, made.values())
        if rest is None:
            return
        running = await self._edits.start(order.model_copy(update={"request": rest, "progress": True}))
        told = 0.0
        async with aclosing(running.events()) as events:  # type: ignore[type-var]  # a generator, whose end stops it
            async for event in events:
                last = event.kind == "progress" and event.done == event.total
                if event.kind == "progress" and not last and time.monotonic() - told < PROGRESS_S:
                    continue
                told = time.monotonic()
                image = await self._tell(job, event, output, first=first, edit=running.id, arm=running.arm)
                if image is not None:
                    made[image.image] = image
        if len(made) != order.request.n:
            raise UnavailableError("The edit ended without all of its pictures; try again.")

    async def _tell(
        self, job: JobRecord, event: EditEvent, output: Output, *, first: int, edit: str, arm: str
    ) -> JobImage | None:
        index = first + event.image
        if isinstance(event, Made | Partial):
            data = await run_sync(encode, event.picture, output.size, output.format, output.compression)
            picture = await self._blobs.put(scope_of(job.id), data, suffix=output.format)
        if isinstance(event, Partial):
            await self._append(job, "partial", {"image": index, "index": event.index}, picture)
        elif isinstance(event, Made):
            trace = event.trace.model_dump(mode="json")
            image = JobImage(image=index, edit_id=edit, arm=arm, picture=picture, trace=trace)
            await self._append(job, "image", {"image": index, "edit": edit, "arm": arm}, picture, image)
            return image
        else:
            await self._append(job, "progress", {"image": index, "done": event.done, "total": event.total})
        return None

    async def _append(
        self,
        job: JobRecord,
        kind: EventKind,
        data: Mapping[str, Any],
        picture: str | None = None,
        image: JobImage | None = None,
    ) -> None:
        event = JobEvent(job=job.id, number=0, kind=kind, data=data, picture=picture, created=time.time())
        stop = await self._store.jobs.append(job, event, image=image)
        if stop is not False:
            raise _Stopped("lost" if stop is None else "cancel")


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
