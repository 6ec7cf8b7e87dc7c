"""Erases what is stored of an end user of a tenant, or of all its users, and gives a receipt.

Jobs that have not ended are cancelled first. If one does not end in time, nothing is erased.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress

from careedit.files import json_digest
from careedit.record import Record
from careedit_deployments.edits.stored import delete_files, delete_job, delete_session, delete_upload
from careedit_deployments.errors import ConflictError, NotFoundError
from careedit_deployments.state.batch_records import BATCH_ENDS
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.persons import PersonData
from careedit_deployments.state.records import JOB_ENDS, JobRecord, new_id
from careedit_deployments.state.store import Store
from careedit_deployments.state.tables import jobs

POLL_S = 0.1
"""Seconds between two looks at a job that is to end."""


class Erased(Record):
    """What was erased of one kind."""

    count: int
    """Number of erased items; 0 if nothing was stored."""
    sha256: str
    """SHA-256 of the sorted ids as JSON, so that a copy of the ids can be compared later."""


class Receipt(Record):
    """Proof of an erasure. It has no names and no ids of what was erased."""

    version: int = 1
    """Version of this format; always 1."""
    id: str
    """Id of the receipt, as the audit log has it."""
    tenant: str
    """Id of the tenant whose data were erased."""
    whole: bool
    """Whether the data of all users were erased, not those of one user."""
    erased_at: float
    """Time of the erasure, in Unix seconds."""
    overwritten: bool = True
    """Whether SQLite's file was rewritten without the deleted rows. False: others used it all the time, so erase again."""
    kinds: dict[str, Erased]
    """What was erased, by kind: jobs, batches, uploads, sessions, files, edits, feedback, assignments."""


async def erase(
    store: Store, blobs: BlobStore, tenant: str, names: Collection[str] | None, *, actor: str, wait_s: float = 30.0
) -> Receipt:
    """Erase what is stored of the user with these stored names (None: of all users of the tenant).

    An edit that is answered at this moment is written to the log at its end: erase again after `limits.deadline_s`. Raises
    `ConflictError` if a job still runs after `wait_s` seconds; nothing is erased then.
    """
    data = await store.persons.find(tenant, names)
    await _end_batches(store, data, wait_s)  # they make jobs
    data = await store.persons.find(tenant, names)
    await _end_jobs(store, data, wait_s)
    data = await store.persons.find(tenant, names)  # an ended job has logged its edit
    for job_id in data.jobs:
        await delete_job(store, blobs, job_id)
    for upload_id in data.uploads:
        await delete_upload(store, blobs, upload_id)
    if names is not None:
        await store.batches.forget_users(tenant, names)
    for batch_id in data.batches if names is None else ():
        await store.batches.delete(batch_id)
    for session_id in data.sessions:
        await delete_session(store, blobs, session_id)
    for scope in data.files:
        await delete_files(store, blobs, scope)
    await store.persons.delete(data)
    overwritten = await store.scrub(rewrite=True)
    kinds = {
        kind: Erased(count=len(ids), sha256=json_digest(ids)) for kind, ids in data.model_dump(mode="json").items()
    }
    receipt = Receipt(
        id=new_id("erasure"),
        tenant=tenant,
        whole=names is None,
        erased_at=unix_time(),
        overwritten=overwritten,
        kinds=kinds,
    )
    counts = {kind: erased.count for kind, erased in kinds.items()}
    digest = json_digest(receipt.model_dump(mode="json"))
    await store.audit.add(actor, "privacy.erased", tenant, receipt=receipt.id, sha256=digest, **counts)
    return receipt


async def _end_batches(store: Store, data: PersonData, wait_s: float) -> None:
    """Cancel the batches that have not ended, and wait until no worker makes jobs of their lines."""
    until = time.monotonic() + wait_s
    for batch_id in data.batches:
        with suppress(ConflictError):  # it has ended
            await store.batches.cancel(batch_id)
    store.jobs.notify("event")
    for batch_id in data.batches:
        while True:
            batch = await store.batches.get(batch_id)
            if batch.status in BATCH_ENDS or batch.lease_until < store.clock():
                break
            if time.monotonic() > until:
                raise ConflictError(
                    "A batch with lines of this user still runs, so nothing was erased; it is being cancelled, so try again soon."
                )
            await asyncio.sleep(POLL_S)


async def _end_jobs(store: Store, data: PersonData, wait_s: float) -> None:
    """Cancel the jobs and wait until they have ended, or until their worker is silent: its writes no longer count then."""
    until, waiting = time.monotonic() + wait_s, set(data.jobs)
    for job_id in data.jobs:
        with suppress(NotFoundError):  # its client, or the cleanup, deleted it meanwhile
            await store.jobs.cancel(job_id)
    while waiting:
        stored = await store.persons.rows(JobRecord, jobs.c.id, waiting)
        waiting = {job.id for job in stored if not _has_ended(job, store.clock())}
        if waiting and time.monotonic() > until:
            raise ConflictError(
                f"{len(waiting)} jobs of this user still run, so nothing was erased; they are being cancelled, so try again soon."
            )
        if waiting:
            await asyncio.sleep(POLL_S)


def _has_ended(job: JobRecord, now: float) -> bool:
    return job.status in JOB_ENDS or (job.status == "running" and job.lease_until < now)
