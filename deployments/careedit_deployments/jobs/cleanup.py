"""Deletes expired jobs, sessions and edits, and pictures that no row refers to.

The order is rows, then pictures, then the audit entry. A process that dies in between leaves pictures without rows, which
`orphans` finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import PurePosixPath

from careedit.errors import CareEditError
from careedit_deployments.edits.stored import delete_job, delete_session
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import id_time
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

ORPHAN_S = 3600.0
"""Age in seconds from which pictures without a row count as orphans. The row of younger ones may still be written."""

BLOCK = 1000
"""Number of ids that one query looks up."""


class Cleanup:
    """Deletes what has expired, every `every_s` seconds. Several replicas may do so at the same time."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        metrics: Metrics,
        *,
        edit_ttl_s: float,
        file_ttl_s: float = 3600.0,
        every_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._blobs, self._metrics = store, blobs, metrics
        self._edit_ttl_s, self._file_ttl_s = edit_ttl_s, file_ttl_s
        self._every_s, self._clock = every_s, clock
        self._looked = 0.0

    async def run(self) -> None:
        """Repeat `run_once` until cancelled."""
        while True:
            try:
                await self.run_once()
            except CareEditError as error:
                logger.warning("The cleanup failed: %s", error)
            except Exception:
                logger.exception("The cleanup failed because of an unexpected error.")
            await asyncio.sleep(self._every_s)

    async def run_once(self) -> int:
        """Delete what has expired; returns the number of deleted jobs, sessions, picture scopes and logged edits."""
        jobs, sessions = await self._store.jobs.expired(), await self._store.sessions.expired()
        for job_id in jobs:
            await delete_job(self._store, self._blobs, job_id)
        for session_id in sessions:
            if await delete_session(self._store, self._blobs, session_id):  # and no other cleanup was faster
                self._metrics.session("expired")
        orphans = []
        if self._clock() - self._looked >= ORPHAN_S:  # listing a bucket is slow
            orphans, self._looked = [*await self.orphans(), *await self.expired_files()], self._clock()
        for scope in orphans:
            await self._blobs.delete_scope(scope)
        edits = await self._store.edits.prune(self._clock() - self._edit_ttl_s)
        count = len(jobs) + len(sessions) + len(orphans) + edits
        if count:
            await self._store.scrub()
            await self._store.audit.add(
                "sweeper", "state.swept", "", jobs=len(jobs), sessions=len(sessions), orphans=len(orphans), edits=edits
            )
        return count

    async def expired_files(self) -> list[str]:
        """Scopes of results whose URL has expired. They have no row; their names contain their age."""
        before = self._clock() - self._file_ttl_s
        return [scope for scope in await self._blobs.scopes("files") if id_time(PurePosixPath(scope).name) < before]

    async def orphans(self) -> list[str]:
        """Scopes with pictures whose job or session no longer exists."""
        found: list[str] = []
        for kind, table in (("jobs", self._store.jobs), ("sessions", self._store.sessions)):
            scopes = {PurePosixPath(scope).name: scope for scope in await self._blobs.scopes(kind)}
            old = [name for name in scopes if self._clock() - id_time(name) > ORPHAN_S]
            for start in range(0, len(old), BLOCK):
                block = old[start : start + BLOCK]
                known = await table.existing(block)
                found += [scopes[name] for name in block if name not in known]
        return found
