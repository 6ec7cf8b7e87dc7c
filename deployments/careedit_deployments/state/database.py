"""One database: connections that many processes may share, and transactions whose errors are sentences."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Executable, Select, Table, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, MissingGreenlet, ProgrammingError, SQLAlchemyError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from careedit.errors import InputError
from careedit.record import Record
from careedit_deployments.errors import UnavailableError
from careedit_deployments.state.tables import AnyRecord, record_of, values_of

logger = logging.getLogger(__name__)

_BAD_DATA = "22"
"""First digits of PostgreSQL's error codes for values that a column cannot hold, such as text with a NUL."""

Item = TypeVar("Item")

BUSY_S = 30.0
"""Seconds that a SQLite writer waits for another writer."""


def portions(values: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The values in lists of at most `size`: databases limit the number of parameters of a query."""
    listed = list(values)
    return (listed[start : start + size] for start in range(0, len(listed), size))


class Database:
    """An engine and its two kinds of transaction. It belongs to the event loop that first uses it."""

    def __init__(self, address: str) -> None:
        self.engine = _engine(address)
        """The engine of SQLAlchemy, for code that needs a connection of its own."""
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        """Whether the database is a SQLite file."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing."""
        async with self._transaction(writes=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end of the block, or rolled back."""
        async with self._transaction(writes=True) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        try:
            async with self.engine.connect() as connection:
                await connection.execution_options(careedit_writes=writes)
                async with connection.begin():
                    yield connection
        except (DBAPIError, TimeoutError, OSError) as error:
            if str(getattr(getattr(error, "orig", None), "sqlstate", "")).startswith(_BAD_DATA):
                raise InputError("The request contains a character that cannot be stored; remove it.") from error
            if isinstance(error, DBAPIError) and not _is_outage(error):
                raise
            logger.warning("The database does not answer: %s", error)
            reason = " ".join(str(getattr(error, "orig", error)).split())[:200]
            raise UnavailableError(f"The database does not answer ({reason}); try again, or check it.") from error

    async def rows(self, kind: type[AnyRecord], query: Select[Any]) -> list[AnyRecord]:
        """The records of the rows that a query finds."""
        async with self.read() as connection:
            return [record_of(kind, row) for row in await connection.execute(query)]

    async def row(self, kind: type[AnyRecord], query: Select[Any]) -> AnyRecord | None:
        """The record of the row that a query finds; None if it finds no row."""
        async with self.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else record_of(kind, row)

    async def column(self, query: Select[Any]) -> list[Any]:
        """The first value of each row that a query finds."""
        async with self.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def change(self, statement: Executable) -> int:
        """Run one statement in a transaction of its own; returns the number of changed rows."""
        async with self.write() as connection:
            return (await connection.execute(statement)).rowcount

    async def add(self, table: Table, record: Record) -> None:
        """Insert a record."""
        await self.change(self.insert(table).values(**values_of(record)))

    def insert(self, table: Table) -> Any:
        """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    async def take_turns(self, connection: AsyncConnection, number: int) -> None:
        """Wait until no other transaction that asked for the same number is open. Writers in SQLite take turns anyway."""
        if not self.is_sqlite:
            await connection.execute(select(func.pg_advisory_xact_lock(number)))

    async def scrub(self, *, rewrite: bool = False) -> bool:
        """SQLite: move the write-ahead log into the database file and empty it, which removes deleted rows from the disk.

        `rewrite` rewrites the file: `secure_delete` overwrites deleted rows, but not the copies that SQLite may leave where
        it moved a row between pages. Other writers wait meanwhile. Returns False if a reader or writer kept it from that.
        """
        if not self.is_sqlite:
            return True
        async with self.engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection  # no transaction may be open
            try:
                if rewrite:
                    await raw.execute("VACUUM")
                busy, *_ = await (await raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")).fetchone()
            except sqlite3.OperationalError as error:
                logger.warning("Deleted rows could not be removed from the disk yet: %s", error)
                return False
        return not busy

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.shield(self.engine.dispose())


def _is_outage(error: DBAPIError) -> bool:
    """Whether the database is unreachable or busy, in contrast to a wrong statement or a violated constraint."""
    return error.connection_invalidated or not isinstance(error, IntegrityError | ProgrammingError)


def _engine(address: str) -> AsyncEngine:
    try:
        url = make_url(address)
        if url.get_backend_name() == "sqlite":
            if url.database in (None, "", ":memory:"):
                raise InputError("A SQLite database in memory is lost with its process; give the path of a file.")
            file = Path(str(url.database))
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(
                OSError
            ):  # it exists, or SQLite says why it cannot be made; its log gets the same permissions
                os.close(os.open(file, os.O_CREAT | os.O_EXCL, 0o600))
            engine = create_async_engine(url, connect_args={"timeout": BUSY_S})
            event.listen(engine.sync_engine, "connect", _set_up_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
            event.listen(engine.sync_engine, "invalidate", _unlock_sqlite)
            return engine
        return create_async_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=8)
    except (SQLAlchemyError, ImportError) as error:
        raise InputError(
            f"The database address {address.split('@')[-1]!r} cannot be used ({str(error).split(chr(10))[0]}); "
            "give one such as sqlite+aiosqlite:///folder/careedit.db or postgresql+asyncpg://user@host/name."
        ) from error


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """WAL: readers do not wait for writers. secure_delete: deleted content is overwritten, not just unlinked."""
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    # SQLite waits for other writers by itself, but not when it changes a new file to WAL.
    again = Retrying(
        retry=retry_if_exception_message(match=".*locked"),
        stop=stop_after_delay(BUSY_S),
        wait=wait_fixed(0.01),
        reraise=True,
    )
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
        again(cursor.execute, f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    """A writer locks at the start: one that first reads and then writes would be refused instead of queued."""
    writes = connection.get_execution_options().get("careedit_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _unlock_sqlite(connection: Any, _record: Any, _error: BaseException | None) -> None:
    """A connection whose task was cancelled inside a statement is closed, but SQLite keeps it, and its lock, until Python
    has collected the statement; so it is rolled back first."""
    with suppress(MissingGreenlet):  # it is being collected
        connection.rollback()
