"""`Store`: everything the platform stores except pictures. Tested with SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import Table, func, select, text

from careedit_deployments.config import StateConfig
from careedit_deployments.state.audit import AuditLog
from careedit_deployments.state.batch_table import BatchTable, FileTable
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.database import Database
from careedit_deployments.state.deliveries import EndpointTable, WebhookTable
from careedit_deployments.state.logs import (
    ArmLog,
    Clock,
    EditLog,
    FeedbackLog,
)
from careedit_deployments.state.migrations import migrate
from careedit_deployments.state.persons import PersonTable
from careedit_deployments.state.queue import JobTable
from careedit_deployments.state.retention import RetentionTable
from careedit_deployments.state.session_table import SessionTable
from careedit_deployments.state.storage import StorageTable
from careedit_deployments.state.tenants import Keys, Tenants


class Store:
    """All tables of one database. Every method may raise `UnavailableError`. Use `open_store`, which migrates the tables."""

    def __init__(self, database: Database, config: StateConfig, *, clock: Clock = unix_time) -> None:
        self._database = database
        self.config = config
        """Where the store is, and how long what it has is kept."""
        self.tenants = Tenants(database, clock)
        """Tenants, which own everything that is made with their keys, and what their edits have cost today."""
        self.clock = clock
        """The time that leases and lifetimes are compared with."""
        self.keys = Keys(database, clock)
        """API keys, found by their hash."""
        self.edits = EditLog(database)
        """Edits, their outcomes and their scores."""
        self.arms = ArmLog(database)
        """Assignments of users, and events of arms."""
        self.feedback = FeedbackLog(database)
        """What people think of edits."""
        self.audit = AuditLog(database, clock)
        """Actions that an operator may have to explain, as a chain of hashes."""
        self.jobs = JobTable(database, clock, config.job_ttl_s)
        """Background edits, and their queue."""
        self.batches = BatchTable(database, clock)
        """Many edits of one input file, each of which becomes a job."""
        self.files = FileTable(database, clock)
        """Inputs of batches, and lists of their results."""
        self.webhooks = WebhookTable(database, clock)
        """Messages about ended jobs that are to be sent."""
        self.endpoints = EndpointTable(database, clock)
        """Addresses that tenants register for messages about their jobs."""
        self.sessions = SessionTable(database, clock, config.tenant_sessions)
        """Series of edits, turn by turn."""
        self.retention = RetentionTable(database, clock, config)
        """How long data are kept, and what of the logs is due."""
        self.persons = PersonTable(database)
        """What is stored of one user, or of all users of a tenant."""
        self.storage = StorageTable(database, config.tenant_bytes)
        """Bytes of the stored pictures of each tenant, and their quotas."""

    async def ping(self) -> None:
        """Raise `UnavailableError` unless the database answers."""
        async with self._database.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def count(self, table: Table) -> int:
        """Number of rows of a table."""
        return int((await self._database.column(select(func.count()).select_from(table)))[0])

    async def follow_clock(self) -> None:
        """Compare `unix_time` with the clock of the database, if it is a server. Call it every minute or so."""
        if not self._database.is_sqlite:
            (now,) = await self._database.column(select(func.extract("epoch", func.clock_timestamp())))
            unix_time.follow(float(now))

    async def scrub(self, *, rewrite: bool = False) -> bool:
        """Remove deleted rows from the disk, as far as the database supports it, as `Database.scrub` does."""
        return await self._database.scrub(rewrite=rewrite)

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()


async def open_store(config: StateConfig, *, clock: Clock = unix_time) -> Store:
    """Connect, migrate the tables to this version, take the database's time, and return the store.

    Call it in the event loop that will use the store. Raises `InputError` for an unusable address, `UnavailableError` for a
    database that does not answer or is newer than this code.
    """
    database = Database(config.database)
    try:
        await migrate(database)
        store = Store(database, config, clock=clock)
        await store.follow_clock()
    except BaseException:
        await database.close()
        raise
    return store
