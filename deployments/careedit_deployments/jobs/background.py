"""The background tasks of an ingress replica: job workers, webhooks, cleanup and job metrics."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from careedit.errors import CareEditError
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.jobs.cleanup import Cleanup
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.jobs.webhooks import AT_ONCE, WebhookSender, key_from
from careedit_deployments.jobs.worker import JobWorker
from careedit_deployments.jobs.workers import Pool
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.queue import JobTable
from careedit_deployments.state.records import JobRecord
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

COUNT_EVERY_S = 5.0
"""Seconds between two counts of the waiting jobs."""


@asynccontextmanager
async def background(
    config: ServeConfig,
    edits: EditService,
    store: Store,
    blobs: BlobStore,
    metrics: Metrics,
    *,
    codecs: Codecs,
    stopping: Stopping | None = None,
    warnings: dict[str, str] | None = None,
    poll_s: float = 1.0,
    grace_s: float = 5.0,
) -> AsyncIterator[None]:
    """Run jobs, send webhooks, delete what has expired and count jobs while the block lasts.

    At its end, or as soon as `stopping` begins, no more jobs are claimed, and jobs in progress get `grace_s` seconds. Jobs
    that are not done by then go back into the queue, where other replicas claim them. `warnings` gets what an operator should
    look at. Raises `InputError` if the webhook
    secret is missing or weak.
    """
    key = key_from(config.jobs)
    worker = JobWorker(worker_name(), edits, store, blobs, codecs, config.jobs)
    queued = partial(store.jobs.subscribe, "queued")
    jobs = Pool(worker.claim, worker.work, queued, places=config.jobs.workers, poll_s=poll_s)
    store.jobs.watch(partial(count_job, metrics))
    cleanup = Cleanup(store, blobs, metrics, warnings=warnings)
    stopping = stopping or Stopping()
    stopping.watch(lambda: jobs.in_progress)
    sender = WebhookSender(store.webhooks, key, config.jobs, metrics, wake=partial(store.jobs.notify, "webhook"))
    due = partial(store.jobs.subscribe, "webhook")
    hooks = Pool(sender.claim, sender.send, due, places=AT_ONCE, poll_s=poll_s)
    work = (_work(jobs, stopping, grace_s), hooks.run(), cleanup.run(), count_waiting(store.jobs, metrics))
    tasks = [asyncio.create_task(task) for task in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await jobs.drain(grace_s)
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


def worker_name() -> str:
    """A unique name, from which an operator can see host and process."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"


def count_job(metrics: Metrics, job: JobRecord) -> None:
    """Count a change of a job; for `JobTable.watch`."""
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
    """Record the number of waiting jobs every few seconds, until cancelled."""
    while True:
        try:
            metrics.jobs_waiting(await jobs.waiting())
        except CareEditError as error:  # the gauge stays as it was
            logger.warning("The waiting jobs could not be counted: %s", error)
        await asyncio.sleep(COUNT_EVERY_S)
