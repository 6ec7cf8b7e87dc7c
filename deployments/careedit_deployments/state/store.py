"""`SqlStore`: the `Store` in any database that SQLAlchemy reaches asynchronously; tested with SQLite and PostgreSQL."""

from __future__ import annotations

import time

from sqlalchemy import text

from careedit_deployments.config import StateConfig
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import (
    Clock,
    SqlArmLog,
    SqlAuditLog,
    SqlEditLog,
    SqlFeedbackLog,
    SqlKeys,
)
from careedit_deployments.state.migrations import migrate
from careedit_deployments.state.outbox import SqlWebhookTable
from careedit_deployments.state.queue import SqlJobTable
from careedit_deployments.state.session_table import SqlSessionTable


class SqlStore:
    """`Store` in SQL; its tables must exist, so take `open_store`."""

    def __init__(self, database: Database, *, job_ttl_s: float, clock: Clock = time.time) -> None:
        self._database = database
        self.keys = SqlKeys(database, clock)
        """API keys."""
        self.edits = SqlEditLog(database)
        """Edits."""
        self.arms = SqlArmLog(database)
        """Assignments and arm events."""
        self.feedback = SqlFeedbackLog(database)
        """Feedback."""
        self.audit = SqlAuditLog(database, clock)
        """Audit."""
        self.jobs = SqlJobTable(database, clock, job_ttl_s)
        """Jobs."""
        self.webhooks = SqlWebhookTable(database, clock)
        """Webhooks."""
        self.sessions = SqlSessionTable(database, clock)
        """Sessions."""

    async def ping(self) -> None:
        """See `Store`."""
        async with self._database.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def scrub(self) -> None:
        """See `Store`."""
        await self._database.truncate_log()

    async def close(self) -> None:
        """See `Store`."""
        await self._database.close()


async def open_store(config: StateConfig, *, clock: Clock = time.time) -> SqlStore:
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
    return SqlStore(database, job_ttl_s=config.job_ttl_s, clock=clock)
