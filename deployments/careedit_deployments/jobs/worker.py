"""What works on jobs, inside each ingress replica: claim, edit, write down every event, end exactly once.

Three things can end an edit before its time: somebody wants it cancelled, the claim is lost to another worker (this one
was silent for too long), or this worker shuts down and gives the job back.

A job fails by its own fault only (`OWN`), or when the platform was at fault for `jobs.patience_s` seconds without an image
being made. While the application stops, its router and its experts go before this worker: what it meets then is such a
fault, and the job waits until it is given back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Literal

from anyio.to_thread import run_sync

from careedit.errors import CareEditError, InputError, ReplayError
from careedit_deployments.config import JobsConfig
from careedit_deployments.edits.backend import EditEvent, EditOrder, ImageDone, Preview
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.edits.output import encode
from careedit_deployments.edits.stored import Output, StoredOrder, load_order, remaining, scope_of
from careedit_deployments.errors import (
    AuthError,
    ConflictError,
    NotFoundError,
    OverloadedError,
    TooExpensiveError,
    UnavailableError,
)
from careedit_deployments.jobs.pool import heard
from careedit_deployments.problems import problem_of
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import EventKind, JobEnd, JobEvent, JobImage, JobRecord
from careedit_deployments.state.store import Store

logger = logging.getLogger(__name__)

BEAT_S = 0.5
"""Most seconds between two looks whether a job is to stop; its steps look too."""
PROGRESS_S = 0.1
"""Least seconds between two progress events of a job; fast steps would fill the table."""

LONGEST_PAUSE_S = 30.0
"""Most seconds between two attempts of a job."""
OWN = (InputError, NotFoundError, TooExpensiveError, ConflictError, AuthError, ReplayError)
"""What a job itself is to blame for: another attempt would end the same way."""

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
        edits: EditService,
        store: Store,
        blobs: BlobStore,
        config: JobsConfig,
        *,
        pause_s: float = 0.5,
    ) -> None:
        """`name` is this process's alone. What failed by the platform's fault is tried again, at first after `pause_s`
        seconds."""
        self.name = name
        self._edits, self._store, self._blobs, self._config = edits, store, blobs, config
        self._pause_s = pause_s

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
            await _stop(editing, watching)
            await self._end(job, editing, None if edited else watching.result())
        except asyncio.CancelledError:
            await _stop(editing, watching)
            await asyncio.shield(self._store.jobs.release(job))  # changes nothing where the end is written already
            raise

    async def _end(self, job: JobRecord, editing: asyncio.Task[None], verdict: Verdict | None) -> None:
        error = None if editing.cancelled() else editing.exception()
        if isinstance(error, _Stopped):
            verdict = error.why
        ended: JobRecord | None = None
        if verdict == "cancel":
            ended = await self._finish(job, "cancelled")
        elif verdict is None and error is None:
            ended = await self._finish(job, "completed")
        elif verdict is None and error is not None:
            problem = problem_of(error)
            told = {"code": problem.code or problem.type, "message": problem.message}
            ended = await self._finish(job, "failed", told)
        if ended is None:
            logger.warning(
                "The job %s was taken over by another worker; what was made of it here does not count.", job.id
            )
            if not await self._store.jobs.known([job.id]):
                await self._blobs.delete_scope(scope_of(job.id))  # it was deleted since, but we wrote once more

    async def _finish(self, job: JobRecord, end: JobEnd, error: Mapping[str, str] | None = None) -> JobRecord | None:
        """Write the end down, again while the store is away: an edit that was made is not to be made twice."""
        trouble = _Trouble(self._config.patience_s, self._pause_s)
        while True:
            try:
                return await self._store.jobs.finish(job, end, error=error)
            except UnavailableError as failure:
                await trouble.wait(job, failure)

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
        """Edits, again where it failed by the platform's fault, until every image is made."""
        stored = StoredOrder(**job.order)
        made = {image.image: image for image in job.images}
        trouble, unexplained, order = _Trouble(self._config.patience_s, self._pause_s), 0, None
        while True:
            before = len(made)
            try:
                order = order or await load_order(stored, self._blobs, owner=job.owner, request_id=job.id)
                await self._attempt(job, order, stored.output, made)
                return
            except (_Stopped, *OWN):
                raise
            except (OverloadedError, UnavailableError) as error:
                failure: Exception = error
            except Exception as error:
                unexplained += 1
                if unexplained >= self._config.attempts:
                    raise
                failure = error
            if len(made) > before:
                trouble = _Trouble(self._config.patience_s, self._pause_s)
            await trouble.wait(job, failure)

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
        if isinstance(event, ImageDone | Preview):
            data = await run_sync(encode, event.picture, output.size, output.format, output.compression)
            picture = await self._blobs.put(scope_of(job.id), data, suffix=output.format)
        if isinstance(event, Preview):
            await self._append(job, "partial", {"image": index, "index": event.index}, picture)
        elif isinstance(event, ImageDone):
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


class _Trouble:
    """Pauses between attempts that failed by the platform's fault: longer each time, and not for ever."""

    def __init__(self, patience_s: float, pause_s: float) -> None:
        self._patience_s, self._pause_s = patience_s, pause_s
        self._since: float | None = None

    async def wait(self, job: JobRecord, error: Exception) -> None:
        """Wait until it is time for another attempt. Raises `error` where patience would end before that."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        pause = max(self._pause_s, error.retry_after) if isinstance(error, OverloadedError) else self._pause_s
        if now + pause - self._since > self._patience_s:
            raise error
        logger.warning("The job %s is tried again in %.3g seconds: %s", job.id, pause, _words(error))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        await asyncio.sleep(pause)


def _words(error: Exception) -> str:
    """What a log may say of an error: one that was not foreseen may quote a request."""
    return str(error) if isinstance(error, CareEditError) else type(error).__name__


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
