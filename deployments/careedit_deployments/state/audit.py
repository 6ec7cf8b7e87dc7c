"""The audit log: each entry has the hash of the entry before it, so a change or a deletion in the middle does not fit.

A user who may write to the database can delete entries at the end, or hash the whole log again. Both are found with the head of
an earlier time: the server logs the head with every entry, and logs leave the machine.

Old entries are deleted at the beginning. An entry says where the chain begins since, so what is left can still be checked.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from careedit.errors import CareEditError, InputError
from careedit.files import json_digest
from careedit.record import Record
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import AuditRecord, new_id
from careedit_deployments.state.tables import audit, newest, values_of

logger = logging.getLogger(__name__)

TURN = 0x6175646974
"""Number of the lock under which PostgreSQL's transactions add entries one after the other ("audit")."""
FIRST = "0" * 64
"""The hash before the first entry."""
PRUNED = "audit.pruned"
"""Action of the entry that says that entries were deleted because of their age."""
PRUNE_S = 24 * 3600.0
"""Seconds for which the oldest entry waits before it is deleted with all others that are due."""
PAGE = 1000
"""Number of entries that are checked at once."""
_HASHED = ("number", "id", "actor", "action", "subject", "detail", "created")


class AuditError(CareEditError):
    """The audit log was changed."""


class AuditHead(Record):
    """The last entry of the audit log at some time."""

    number: int
    """Number of the entry; 0 for an empty log."""
    sha256: str
    """Hash of the entry, which depends on all entries before it."""

    def __str__(self) -> str:
        return f"{self.number}:{self.sha256}"


def entry_sha256(previous: str, entry: Mapping[str, Any]) -> str:
    """The hash of an entry, given as its row, after the hash `previous`."""
    return json_digest({"previous": previous, **{name: entry[name] for name in _HASHED}}, ensure_ascii=True)


class AuditLog:
    """Actions that an operator may have to explain later."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, actor: str, action: str, subject: str, **detail: Any) -> None:
        """Store an entry with the current time at the end of the chain, and log the new head."""
        async with self._database.write() as connection:
            await self._database.take_turns(connection, TURN)
            head = await self._append(connection, actor, action, subject, detail)
        _log(action, head)

    async def due(self, before: float) -> int:
        """Number of entries from before a time; 0 until the oldest one is due for `PRUNE_S` seconds."""
        found = await self._database.column(select(audit.c.created).order_by(audit.c.number).limit(1))
        if not found or found[0] >= before - PRUNE_S:
            return 0
        query = select(func.count()).select_from(audit).where(audit.c.created < before)
        return int((await self._database.column(query))[0])

    async def prune(self, before: float) -> int:
        """Delete the entries at the beginning that are from before a time; returns their number.

        An entry of its own (`PRUNED`) has number and hash of the last deleted one, after which the chain goes on. Call it if
        `due` is not 0: the entries of one day are deleted together, so that there are few entries of this kind.
        """
        async with self._database.write() as connection:
            await self._database.take_turns(connection, TURN)
            query = select(func.min(audit.c.number)).where(audit.c.created >= before)
            stays = (await connection.execute(query)).scalar_one()
            due = true() if stays is None else audit.c.number < stays
            query = select(audit.c.number, audit.c.sha256).where(due).order_by(audit.c.number.desc()).limit(1)
            last = (await connection.execute(query)).one_or_none()
            if last is None:  # another replica was faster
                return 0
            head = await self._append(connection, "sweeper", PRUNED, "", {"number": last.number, "sha256": last.sha256})
            count = (await connection.execute(delete(audit).where(audit.c.number <= last.number))).rowcount
        _log(PRUNED, head)
        return count

    async def start(self) -> AuditHead:
        """The last entry that was deleted because of its age; number 0 if none was. The chain begins after it."""
        query = select(audit).where(audit.c.action == PRUNED).order_by(audit.c.number.desc()).limit(1)
        entry = await self._database.row(AuditRecord, query)
        if entry is None:
            return AuditHead(number=0, sha256=FIRST)
        return AuditHead(number=int(entry.detail["number"]), sha256=str(entry.detail["sha256"]))

    async def _append(
        self, connection: AsyncConnection, actor: str, action: str, subject: str, detail: Mapping[str, Any]
    ) -> AuditHead:
        """Store an entry at the end of the chain, in a transaction that has its turn; returns the new head."""
        query = select(audit.c.number, audit.c.sha256).order_by(audit.c.number.desc()).limit(1)
        last = (await connection.execute(query)).one_or_none()
        number, previous = (1, FIRST) if last is None else (last.number + 1, last.sha256)
        entry = AuditRecord(
            id=new_id("audit"),
            number=number,
            actor=actor,
            action=action,
            subject=subject,
            detail=detail,
            created=self._clock(),
            sha256="",
        )
        values = values_of(entry)
        head = AuditHead(number=number, sha256=entry_sha256(previous, values))
        await connection.execute(audit.insert().values(**{**values, "sha256": head.sha256}))
        return head

    async def latest(self, *, limit: int = 100) -> list[AuditRecord]:
        """Entries, newest first."""
        return await self._database.rows(AuditRecord, newest(select(audit), audit, limit))

    async def verify(self, heads: Collection[AuditHead] = ()) -> AuditHead:
        """Check every entry and return the head. `heads` are heads of earlier times, which must be part of the chain.

        Raises `AuditError`, which names the first entry that does not fit, and `InputError` for a head whose entry was deleted
        because of its age.
        """
        wanted = {head.number: head.sha256 for head in heads}
        start = head = await self.start()
        early = [number for number in wanted if number < head.number]
        if early:
            raise InputError(
                f"The entries up to {head.number} were deleted because of their age, so the head {min(early)} cannot be checked; "
                "give a later one."
            )
        if wanted.get(head.number, head.sha256) != head.sha256:
            raise AuditError(f"The audit log was rewritten: entry {head.number} had another hash before.")
        while True:
            query = select(audit).where(audit.c.number > head.number).order_by(audit.c.number).limit(PAGE)
            page = await self._database.rows(AuditRecord, query)
            for entry in page:
                if entry.number != head.number + 1:
                    if await self.start() != start:  # the cleanup deleted old entries meanwhile
                        return await self.verify(heads)
                    missing = f"{head.number + 1} to {entry.number - 1}"
                    raise AuditError(f"The audit log was changed: the entries {missing} are missing.")
                if entry_sha256(head.sha256, values_of(entry)) != entry.sha256:
                    raise AuditError(f"The audit log was changed: the hash of entry {entry.number} does not fit.")
                head = AuditHead(number=entry.number, sha256=entry.sha256)
                if wanted.get(head.number, head.sha256) != head.sha256:
                    raise AuditError(f"The audit log was rewritten: entry {head.number} had another hash before.")
            if not page:
                break
        if wanted and max(wanted) > head.number:
            raise AuditError(
                f"The audit log was cut: it ends with entry {head.number}, but there was an entry {max(wanted)} before."
            )
        return head


def _log(action: str, head: AuditHead) -> None:
    logger.info("The audit log has a new entry (%s); its head is %s.", action, head)
