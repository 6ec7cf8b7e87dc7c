"""What runs beside the routes of an ingress replica: workers, webhooks, the sweeper."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.jobs.counting import count_job, count_waiting
from careedit_deployments.jobs.pool import Pool
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.jobs.sweep import Sweeper
from careedit_deployments.jobs.webhooks import WebhookSender, key_from
from careedit_deployments.jobs.worker import JobWorker
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import JobRecord
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

WEBHOOKS_AT_ONCE = 8
"""Webhooks that one replica sends at a time."""


@asynccontextmanager
async def background(
    config: ServeConfig,
    edits: EditService,
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
        partial(store.jobs.listen, "queued"),
        places=config.jobs.workers,
        poll_s=poll_s,
    )
    store.jobs.watch(partial(count_job, metrics))
    state = config.state
    sweeper = Sweeper(store, blobs, metrics, edit_ttl_s=state.edit_ttl_s, file_ttl_s=state.file_ttl_s)
    stopping = stopping or Stopping()
    stopping.watch(lambda: jobs.in_progress)
    beside = (_work(jobs, stopping, grace_s), sweeper.run(), count_waiting(store.jobs, metrics))
    tasks = [asyncio.create_task(work) for work in beside]
    sender, hooks = None, None
    if key is not None:
        sender = WebhookSender(store.webhooks, key, config.jobs, metrics)
        listen = partial(store.jobs.listen, "webhook")
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
    config: ServeConfig, edits: EditService, store: Store, blobs: BlobStore, metrics: Metrics, stopping: Stopping
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """`background`, as `Services.hooks` takes it."""
    return partial(background, config, edits, store, blobs, metrics, stopping=stopping)


def worker_name() -> str:
    """A name that no other worker has, and that tells an operator which process it is."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
