"""The job worker of an ingress replica: claims a job, edits, stores every event, and ends the job exactly once.

Three things stop an edit early: the owner cancels the job, the claim is lost to another worker because the lease expired, or
this worker shuts down and puts the job back into the queue.

A job fails only because of the request itself (`OWN`), or when the platform failed for `jobs.patience_s` seconds without a
new image. While the application stops, its router and experts end before this worker: such a failure counts as the
platform's, and the job waits until it is put back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Literal

from careedit.errors import CareEditError, InputError, ReplayError
from careedit_deployments.config import JobsConfig
from careedit_deployments.edits.backend import EditEvent, EditOrder, ImageDone, Preview, Progress
from careedit_deployments.edits.codecs import Codecs, Origin
from careedit_deployments.edits.edit_service import EditService, Running
from careedit_deployments.edits.output import Output
from careedit_deployments.edits.stored import StoredOrder, delete_files, loaded_order, put_file, remaining, scope_of
from careedit_deployments.errors import (
    AuthError,
    ConflictError,
    NotFoundError,
    OverloadedError,
    TenantPolicyError,
    TooExpensiveError,
    UnavailableError,
)
from careedit_deployments.jobs.workers import wait_for
from careedit_deployments.problems import problem_of
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import EventKind, JobEnd, JobEvent, JobImage, JobRecord
from careedit_deployments.state.store import Store

logger = logging.getLogger(__name__)

CANCEL_CHECK_S = 0.5
"""Maximum seconds between two checks whether a job is cancelled. Progress events check too."""
PROGRESS_S = 0.1
"""Minimum seconds between two progress events of a job, so that fast steps do not fill the table."""

LONGEST_PAUSE_S = 30.0
"""Maximum seconds between two attempts of a job."""
OWN = (InputError, NotFoundError, TenantPolicyError, TooExpensiveError, ConflictError, AuthError, ReplayError)
"""Errors that the request itself causes: another attempt would end the same way."""

Verdict = Literal["cancel", "lost"]


class _Stopped(Exception):
    """The edit must not continue."""

    def __init__(self, why: Verdict) -> None:
        super().__init__(why)
        self.why: Verdict = why


class JobWorker:
    """Runs the jobs that it claims."""

    def __init__(
        self,
        name: str,
        edits: EditService,
        store: Store,
        blobs: BlobStore,
        codecs: Codecs,
        config: JobsConfig,
        *,
        pause_s: float = 0.5,
    ) -> None:
        """`name` is unique to this process. After a failure of the platform the job is retried, first after `pause_s` seconds."""
        self.name = name
        self._edits, self._store, self._blobs, self._codecs, self._config = edits, store, blobs, codecs, config
        self._pause_s = pause_s

    async def claim(self) -> JobRecord | None:
        """Claim the next job, if any."""
        return await self._store.jobs.claim(self.name, lease_s=self._config.lease_s, attempts=self._config.attempts)

    async def work(self, job: JobRecord) -> None:
        """Run a claimed job to its end, or put it back if this task is cancelled."""
        editing = asyncio.create_task(self._edit(job))
        watching = asyncio.create_task(self._watch(job))
        try:
            await asyncio.wait({editing, watching}, return_when=asyncio.FIRST_COMPLETED)
            edited = editing.done()
            await _stop(editing, watching)
            await self._end(job, editing, None if edited else watching.result())
        except asyncio.CancelledError:
            await _stop(editing, watching)
            await asyncio.shield(self._store.jobs.release(job))  # does nothing if the end is stored already
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
            answer = {"code": problem.code or problem.type, "message": problem.message}
            ended = await self._finish(job, "failed", answer)
        if ended is None:
            logger.warning("The job %s was taken over by another worker; the results of this one do not count.", job.id)
            if not await self._store.jobs.existing([job.id]):
                await delete_files(
                    self._store, self._blobs, scope_of(job.id)
                )  # the job was deleted, but we have written since

    async def _finish(self, job: JobRecord, end: JobEnd, error: Mapping[str, str] | None = None) -> JobRecord | None:
        """Store the end, again while the store does not answer: a finished edit must not be made twice."""
        trouble = _Trouble(self._config.patience_s, self._pause_s)
        while True:
            try:
                return await self._store.jobs.finish(job, end, error=error)
            except UnavailableError as failure:
                await trouble.wait(job, failure)

    async def _watch(self, job: JobRecord) -> Verdict:
        """Renew the lease until the job must stop."""
        while True:
            event = self._store.jobs.subscribe("cancel")
            try:
                stop = await self._store.jobs.renew_lease(job, lease_s=self._config.lease_s)
            except UnavailableError as error:
                logger.warning("The lease of the job %s was not renewed: %s", job.id, error)
                stop = False
            if stop is not False:
                return "lost" if stop is None else "cancel"
            await wait_for(event, min(self._config.lease_s / 3, CANCEL_CHECK_S))

    async def _edit(self, job: JobRecord) -> None:
        """Edit until every image is made; retry after a failure of the platform."""
        stored = StoredOrder(**job.order)
        made = {image.image: image for image in job.images}
        trouble, unexplained = _Trouble(self._config.patience_s, self._pause_s), 0
        given = {"owner": job.owner, "request_id": job.id}
        while True:
            before = len(made)
            try:
                async with loaded_order(stored, self._blobs, self._codecs, **given) as order:
                    key = stored.ingredient
                    ingredient = None if key is None else await self._blobs.get(key)
                    await self._attempt(job, order, stored.output, made, ingredient)
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

    async def _attempt(
        self,
        job: JobRecord,
        order: EditOrder,
        output: Output,
        made: dict[int, JobImage],
        ingredient: bytes | None,
    ) -> None:
        rest, first = remaining(order.request, made.values())
        if rest is None:
            return
        left = order.model_copy(update={"request": rest, "progress": True})
        running = await self._edits.start(left, counted=False)
        if "keep_source" not in running.purposes:  # the tenant may have withdrawn it since
            ingredient = None
        stored_at = 0.0
        async with aclosing(running.events()) as events:  # type: ignore[type-var]  # a generator, whose end stops it
            async for event in events:
                last = event.kind == "progress" and event.done == event.total
                if event.kind == "progress" and not last and time.monotonic() - stored_at < PROGRESS_S:
                    continue
                stored_at = time.monotonic()
                image = await self._store_event(job, event, output, running, first=first, ingredient=ingredient)
                if image is not None:
                    made[image.image] = image
        if len(made) != order.request.n:
            raise UnavailableError("The edit ended without all of its images; try again.")

    async def _store_event(
        self,
        job: JobRecord,
        event: EditEvent,
        output: Output,
        running: Running,
        *,
        first: int,
        ingredient: bytes | None,
    ) -> JobImage | None:
        index, edit, arm = first + event.image, running.id, running.arm
        if isinstance(event, ImageDone | Preview):
            origin = Origin(running.credit, ingredient)
            data = await self._codecs.encode(job.owner, event.picture, output, origin=origin, ends=running.ends)
            given = {"suffix": output.format, "owner": job.owner}
            picture = await put_file(self._store, self._blobs, scope_of(job.id), data, **given, accepted=True)
        if isinstance(event, Preview):
            await self._append(job, "partial", {"image": index, "index": event.index}, picture)
        elif isinstance(event, ImageDone):
            trace = event.trace.model_dump(mode="json")
            marks = tuple(
                {**mark.model_dump(mode="json"), **({} if mark.image is None else {"image": index})}
                for mark in event.marks
            )
            image = JobImage(image=index, edit_id=edit, arm=arm, picture=picture, trace=trace, marks=marks)
            await self._append(job, "image", {"image": index, "edit": edit, "arm": arm}, picture, image)
            return image
        elif isinstance(event, Progress):
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
        event = JobEvent(job=job.id, number=0, kind=kind, data=data, picture=picture, created=unix_time())
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
    """Text of an error for the log: an unexpected error may quote a request, so only its class is logged."""
    return str(error) if isinstance(error, CareEditError) else type(error).__name__


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
