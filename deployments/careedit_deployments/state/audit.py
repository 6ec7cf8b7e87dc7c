"""The audit log: each entry has the hash of the entry before it, so a change or a deletion in the middle does not fit.

A user who may write to the database can delete entries at the end, or hash the whole log again. Both are found with the head of
an earlier time: the server logs the head with every entry, and logs leave the machine.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select

from careedit.errors import CareEditError
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
        logger.info("The audit log has a new entry (%s); its head is %s.", action, head)

    async def latest(self, *, limit: int = 100) -> list[AuditRecord]:
        """Entries, newest first."""
        return await self._database.rows(AuditRecord, newest(select(audit), audit, limit))

    async def verify(self, heads: Collection[AuditHead] = ()) -> AuditHead:
        """Check every entry and return the head. `heads` are heads of earlier times, which must be part of the chain.

        Raises `AuditError`, which names the first entry that does not fit.
        """
        wanted = {head.number: head.sha256 for head in heads}
        head = AuditHead(number=0, sha256=FIRST)
        while True:
            query = select(audit).where(audit.c.number > head.number).order_by(audit.c.number).limit(PAGE)
            page = await self._database.rows(AuditRecord, query)
            for entry in page:
                if entry.number != head.number + 1:
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
