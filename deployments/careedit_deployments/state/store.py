"""`Store`: the `Store` in any database that SQLAlchemy reaches asynchronously; tested with SQLite and PostgreSQL."""

from __future__ import annotations

import time

from sqlalchemy import text

from careedit_deployments.config import StateConfig
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import (
    ArmLog,
    AuditLog,
    Clock,
    EditLog,
    FeedbackLog,
    Keys,
)
from careedit_deployments.state.migrations import migrate
from careedit_deployments.state.queue import JobTable, WebhookTable
from careedit_deployments.state.session_table import SessionTable


class Store:
    """`Store` in SQL; its tables must exist, so take `open_store`."""

    def __init__(self, database: Database, *, job_ttl_s: float, clock: Clock = time.time) -> None:
        self._database = database
        self.keys = Keys(database, clock)
        """API keys."""
        self.edits = EditLog(database)
        """Edits."""
        self.arms = ArmLog(database)
        """Assignments and arm events."""
        self.feedback = FeedbackLog(database)
        """Feedback."""
        self.audit = AuditLog(database, clock)
        """Audit."""
        self.jobs = JobTable(database, clock, job_ttl_s)
        """Jobs."""
        self.webhooks = WebhookTable(database, clock)
        """Webhooks."""
        self.sessions = SessionTable(database, clock)
        """Sessions."""

    async def ping(self) -> None:
        """Raise `UnavailableError` unless the database answers."""
        async with self._database.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def scrub(self) -> None:
        """Make deleted rows leave the disk as far as the database can be told to."""
        await self._database.truncate_log()

    async def close(self) -> None:
        """Give the connections back."""
        await self._database.close()


async def open_store(config: StateConfig, *, clock: Clock = time.time) -> Store:
    """Connect, bring the tables to this version, and hand the store out.

    Call it in the event loop that will use the store. Raises `InputError` for an address that is none,
    `UnavailableError` for a database that does not answer or is newer than this code.
    """
    database = Database(config.database)
    try:
        await migrate(database)
    except BaseException:
        await database.close()
        raise
    return Store(database, job_ttl_s=config.job_ttl_s, clock=clock)
