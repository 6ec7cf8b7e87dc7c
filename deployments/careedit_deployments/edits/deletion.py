"""Deleting a job or a session with everything that belongs to it.

The order is: rows, then pictures. A process that dies in between leaves pictures without rows, which the cleanup finds.
"""

from __future__ import annotations

from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.store import Store


async def delete_job(store: Store, blobs: BlobStore, job_id: str) -> None:
    """Delete a job with every byte: row, events, webhooks, words in the log of edits, pictures."""
    await store.edits.redact(job_id)
    await store.jobs.delete(job_id)
    await blobs.delete_scope(f"jobs/{job_id}")


async def delete_session(store: Store, blobs: BlobStore, session_id: str) -> bool:
    """Delete a session with every byte: row, turns, words in the log of edits, pictures. False: its row was gone already."""
    await store.edits.redact(session_id)
    was_there = await store.sessions.delete(session_id)
    await blobs.delete_scope(f"sessions/{session_id}")
    return was_there
