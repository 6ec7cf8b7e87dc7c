"""What runs beside the routes of an ingress replica: workers, webhooks, the cleanup."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from careedit.errors import CareEditError
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.service import Edits
from careedit_deployments.jobs.cleanup import Cleanup
from careedit_deployments.jobs.pool import Pool
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.jobs.webhooks import WebhookSender, key_from
from careedit_deployments.jobs.worker import JobWorker
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.queue import JobTable
from careedit_deployments.state.records import JobRecord
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks at how many jobs wait."""
WEBHOOKS_AT_ONCE = 8
"""Webhooks that one replica sends at a time."""


@asynccontextmanager
async def background(
    config: ServeConfig,
    edits: Edits,
    store: Store,
    blobs: BlobStore,
    metrics: Metrics,
    *,
    stopping: Stopping | None = None,
    poll_s: float = 1.0,
    grace_s: float = 5.0,
) -> AsyncIterator[None]:
    """Work on jobs, send webhooks, sweep and count while the block lasts.

    At its end, or as soon as `stopping` begins, no more jobs are claimed, and those in progress have `grace_s` seconds;
    what is not done by then goes back into the queue, and other replicas take it at once. Raises `InputError` where the
    webhook secret is missing or weak.
    """
    key = key_from(config.jobs)
    worker = JobWorker(worker_name(), edits, store, blobs, config.jobs)
    jobs = Pool(
        worker.claim,
        worker.work,
        partial(store.jobs.subscribe, "queued"),
        places=config.jobs.workers,
        poll_s=poll_s,
    )
    store.jobs.watch(partial(count_job, metrics))
    state = config.state
    cleanup = Cleanup(store, blobs, metrics, edit_ttl_s=state.edit_ttl_s, file_ttl_s=state.file_ttl_s)
    stopping = stopping or Stopping()
    stopping.watch(lambda: jobs.in_progress)
    beside = (_work(jobs, stopping, grace_s), cleanup.run(), count_waiting(store.jobs, metrics))
    tasks = [asyncio.create_task(work) for work in beside]
    sender, hooks = None, None
    if key is not None:
        sender = WebhookSender(store.webhooks, key, config.jobs, metrics)
        listen = partial(store.jobs.subscribe, "webhook")
        hooks = Pool(sender.claim, sender.send, listen, places=WEBHOOKS_AT_ONCE, poll_s=poll_s)
        tasks.append(asyncio.create_task(hooks.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await jobs.drain(grace_s)
        if hooks is not None and sender is not None:
            await hooks.drain(grace_s)
            await sender.close()


async def _work(jobs: Pool[JobRecord], stopping: Stopping, grace_s: float) -> None:
    """Claim jobs until the replica stops or this is cancelled."""
    claiming, stopped = asyncio.create_task(jobs.run()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({claiming, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (claiming, stopped):
            task.cancel()
        await asyncio.gather(claiming, stopped, return_exceptions=True)
    await jobs.drain(grace_s)


def background_hook(
    config: ServeConfig, edits: Edits, store: Store, blobs: BlobStore, metrics: Metrics, stopping: Stopping
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """`background`, as `Services.hooks` takes it."""
    return partial(background, config, edits, store, blobs, metrics, stopping=stopping)


def worker_name() -> str:
    """A name that no other worker has, and that tells an operator which process it is."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"


def count_job(metrics: Metrics, job: JobRecord) -> None:
    """Count what a `JobTable` tells its watchers."""
    seconds = (job.finished or job.created) - job.created
    if job.status == "queued":
        metrics.job("queued")
    elif job.status == "running":
        metrics.job("begun" if job.attempt == 1 else "retaken")
    elif job.status == "completed":
        metrics.job_ended("finished", seconds)
    else:
        metrics.job_ended(job.status, seconds)


async def count_waiting(jobs: JobTable, metrics: Metrics) -> None:
    """Look how many jobs wait, until cancelled."""
    while True:
        try:
            metrics.jobs_waiting(await jobs.waiting())
        except CareEditError as error:  # the gauge stays as it was
            logger.warning("Nobody knows how many jobs wait: %s", error)
        await asyncio.sleep(LOOK_S)
