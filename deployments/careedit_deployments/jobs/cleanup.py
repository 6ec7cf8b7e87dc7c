"""Deletes what is stored for longer than it may be, and pictures that no row refers to. `state/retention.py` says what is due.

The order is rows, then pictures, then the audit entry. A process that dies in between leaves pictures without rows, which
`orphans` finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, TypeVar

from sqlalchemy import Table

from careedit.errors import CareEditError
from careedit_deployments.edits.stored import delete_files, delete_job, delete_session, delete_upload
from careedit_deployments.state import tables
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.database import portions
from careedit_deployments.state.records import id_time
from careedit_deployments.state.retention import LOGS, SWEPT, LogKind
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

ORPHAN_S = 3600.0
"""Age in seconds from which pictures without a row count as orphans. The row of younger ones may still be written."""

BLOCK = 1000
"""Number of ids that one query looks up."""


HOLD_S = 3600.0
"""Seconds for which a deletion waits if it is a large share of all that is stored."""
FEW = 20
"""Number of items that are deleted at once, whatever share they are."""

REWRITE_S = 24 * 3600.0
"""Seconds between two rewrites of SQLite's file, after which it has no copies of deleted rows (`Database.scrub`)."""

Kind = Literal["jobs", "sessions", "batches", "batch files", "pictures", "audit"] | LogKind


class Cleanup:
    """Deletes what has expired, every `every_s` seconds. Several replicas may do so at the same time.

    If more than `share` of a kind has expired at once, a clock or a database may be wrong: such a deletion waits until it was
    due for `HOLD_S` seconds of monotonic time. Until then it is logged, counted, and in `warnings`. Files that clients fetch
    by URL live so short that most of them expire at once; they are deleted without that.
    """

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        metrics: Metrics,
        *,
        warnings: dict[str, str] | None = None,
        every_s: float = 60.0,
        clock: Callable[[], float] = unix_time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._blobs, self._metrics = store, blobs, metrics
        self._warnings = {} if warnings is None else warnings
        self._every_s, self._clock, self._elapsed = every_s, clock, elapsed
        self._looked: float | None = None
        self._rewritten = elapsed()
        self._due_since: dict[Kind, float] = {}
        self._held: dict[Kind, int] = {}

    async def run(self) -> None:
        """Repeat `run_once` until cancelled."""
        while True:
            try:
                await self._store.follow_clock()
                await self.run_once()
            except CareEditError as error:
                logger.warning("The cleanup failed: %s", error)
            except Exception:
                logger.exception("The cleanup failed because of an unexpected error.")
            await asyncio.sleep(self._every_s)

    async def run_once(self) -> int:
        """Delete what has expired, report it, and return the number of deleted jobs, sessions, picture scopes and rows of logs."""
        jobs = await self._allowed("jobs", await self._store.jobs.expired(), tables.jobs)
        sessions = await self._allowed("sessions", await self._store.sessions.expired(), tables.sessions)
        for job_id in jobs:
            await delete_job(self._store, self._blobs, job_id)
        for session_id in sessions:
            if await delete_session(self._store, self._blobs, session_id):  # and no other cleanup was faster
                self._metrics.session("expired")
        batches = await self._allowed("batches", await self._store.batches.expired(), tables.batches)
        for batch_id in batches:
            await self._store.batches.delete(batch_id)
        uploads = await self._allowed("batch files", await self._store.files.expired(), tables.files)
        for upload_id in uploads:
            await delete_upload(self._store, self._blobs, upload_id)
        pictures: list[str] = []
        if self._looked is None or self._elapsed() - self._looked >= ORPHAN_S:  # listing a bucket is slow
            orphans, count = await self.orphans()
            pictures = [*self._checked("pictures", orphans, count), *await self.expired_files()]
            self._looked = self._elapsed()
        for scope in pictures:
            await delete_files(self._store, self._blobs, scope)
        counts = {"jobs": len(jobs), "sessions": len(sessions), "batches": len(batches), "uploads": len(uploads)}
        counts |= {"orphans": len(pictures), "feedback": 0}
        for kind, table in LOGS.items():
            counts[kind] = 0
            if await self._allowed(kind, range(await self._store.retention.due(kind)), table):
                counts |= await self._store.retention.delete(kind)
        audit, before = self._store.audit, self._clock() - self._store.config.audit_ttl_s
        counts["audit"] = 0
        if await self._allowed("audit", range(await audit.due(before)), tables.audit):
            counts["audit"] = await audit.prune(before)
        self._metrics.held_deletions(sum(self._held.values()))
        await self._report(counts)
        return sum(counts.values())

    async def _report(self, counts: Mapping[str, int]) -> None:
        """Write what was deleted to the log, the metrics and the audit log, and remove it from the disk."""
        rewrite = self._elapsed() - self._rewritten >= REWRITE_S
        if rewrite or any(counts.values()):
            self._rewritten = self._elapsed() if rewrite else self._rewritten
            await self._store.scrub(rewrite=rewrite)
        if any(counts.values()):
            logger.info(
                "The cleanup deleted %s.", ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            )
            for kind, count in counts.items():
                self._metrics.swept(kind, count)
            await self._store.audit.add("sweeper", SWEPT, "", **counts)

    async def _allowed(self, kind: Kind, due: Sequence[Item], table: Table) -> Sequence[Item]:
        """What may be deleted now of the rows that are due: all of them, or nothing."""
        return self._checked(kind, due, await self._store.count(table) if len(due) > FEW else FEW)

    def _checked(self, kind: Kind, due: Sequence[Item], total: int) -> Sequence[Item]:
        large = len(due) > max(FEW, self._store.config.cleanup_share * total)
        if large and self._elapsed() - self._due_since.setdefault(kind, self._elapsed()) < HOLD_S:
            self._held[kind] = len(due)
            self._warnings[f"cleanup of {kind}"] = message = (
                f"{len(due)} of {total} {kind} have expired at once; check the clocks and the database. They are deleted after "
                f"{HOLD_S / 60:g} minutes, or at once with state.cleanup_share: 1."
            )
            logger.error("The cleanup waits: %s", message)
            return ()
        self._due_since.pop(kind, None)
        self._held.pop(kind, None)
        self._warnings.pop(f"cleanup of {kind}", None)
        return due

    async def expired_files(self) -> list[str]:
        """Scopes of results whose URL has expired. They have no row; their names contain their age."""
        before = self._clock() - self._store.config.file_ttl_s
        return [scope for scope in await self._scopes("files") if id_time(PurePosixPath(scope).name) < before]

    async def _scopes(self, kind: str) -> list[str]:
        """The scopes of a kind that have pictures, or count towards a quota."""
        return sorted({*await self._blobs.scopes(kind), *await self._store.storage.scopes(kind)})

    async def orphans(self) -> tuple[list[str], int]:
        """Scopes with pictures whose job or session no longer exists, and the number of scopes of jobs and sessions."""
        found: list[str] = []
        count = 0
        existing = {
            "jobs": self._store.jobs.existing,
            "sessions": self._store.sessions.existing,
            "batchfiles": self._store.files.existing,
        }
        for kind, known_of in existing.items():
            scopes = {PurePosixPath(scope).name: scope for scope in await self._scopes(kind)}
            count += len(scopes)
            old = [name for name in scopes if self._clock() - id_time(name) > ORPHAN_S]
            for block in portions(old, BLOCK):
                known = await known_of(block)
                found += [scopes[name] for name in block if name not in known]
        return found, count
