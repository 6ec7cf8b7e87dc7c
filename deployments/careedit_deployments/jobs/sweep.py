"""Deleting: jobs, sessions and edits whose time has come, whole ones on request, and pictures that belong to nobody.

The order is: rows, then pictures, then the log of what was deleted. A process that dies in between leaves pictures without
rows, and those are what `orphans` finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import PurePosixPath

from careedit.errors import CareEditError
from careedit_deployments.edits.deletion import delete_job, delete_session
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import id_time
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

ORPHAN_S = 3600.0
"""Age in seconds from which pictures without a row are orphans; younger ones may be about to get it."""

BLOCK = 1000
"""Ids that are looked up in one query."""


class Sweeper:
    """Deletes by itself, every so often; several may run at once."""

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
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except CareEditError as error:
                logger.warning("Nothing was swept: %s", error)
            except Exception:
                logger.exception("Sweeping failed in a way that was not foreseen.")
            await asyncio.sleep(self._every_s)

    async def sweep(self) -> int:
        """One round; returns how many jobs, sessions, scopes of expired or orphaned pictures and edits of the log went."""
        jobs, sessions = await self._store.jobs.expired(), await self._store.sessions.expired()
        for job_id in jobs:
            await delete_job(self._store, self._blobs, job_id)
        for session_id in sessions:
            if await delete_session(self._store, self._blobs, session_id):  # and no other sweeper was faster
                self._metrics.session("expired")
        orphans = []
        if self._clock() - self._looked >= ORPHAN_S:  # a bucket is slow to list
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
        """Scopes of results whose address is no longer good; no row leads to them, their names hold their age."""
        before = self._clock() - self._file_ttl_s
        return [scope for scope in await self._blobs.scopes("files") if id_time(PurePosixPath(scope).name) < before]

    async def orphans(self) -> list[str]:
        """Scopes with pictures whose job or session is gone."""
        found: list[str] = []
        for kind, table in (("jobs", self._store.jobs), ("sessions", self._store.sessions)):
            scopes = {PurePosixPath(scope).name: scope for scope in await self._blobs.scopes(kind)}
            old = [name for name in scopes if self._clock() - id_time(name) > ORPHAN_S]
            for start in range(0, len(old), BLOCK):
                block = old[start : start + BLOCK]
                known = await table.known(block)
                found += [scopes[name] for name in block if name not in known]
        return found
