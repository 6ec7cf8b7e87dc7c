"""The migrations make the tables that the code expects, once, however many servers start."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from careedit_deployments.state.database import Database, _set_up_sqlite
from careedit_deployments.state.migrations import config_for, migrate
from careedit_deployments.state.tables import metadata
from older_rows import check_upgrade


def differences(connection: Connection) -> list[object]:
    """What a new revision would have to change; also used by the PostgreSQL test."""
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))


def test_the_models_equal_the_migrations(tmp_path: Path) -> None:
    async def main() -> list[object]:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/careedit.db")
        await migrate(database)
        async with database.read() as connection:
            found = await connection.run_sync(differences)
        await database.close()
        return found

    assert asyncio.run(main()) == []


def test_an_older_database_keeps_every_row(tmp_path: Path) -> None:
    asyncio.run(check_upgrade(f"sqlite+aiosqlite:///{tmp_path}/careedit.db"))


def test_servers_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    async def main(path: Path) -> list[str]:
        databases = [Database(f"sqlite+aiosqlite:///{path}/careedit.db") for _ in range(8)]
        await asyncio.gather(*(migrate(database) for database in databases))
        async with databases[0].read() as connection:
            tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        for database in databases:
            await database.close()
        return tables

    for attempt in range(5):  # the change of a new file to WAL used to fail in one of a hundred
        assert {"jobs", "sessions", "alembic_version"} <= set(asyncio.run(main(tmp_path / str(attempt))))


def test_the_way_back_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> list[str]:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/careedit.db")
        await migrate(database)
        async with database.write() as connection:
            await connection.run_sync(lambda sync: command.downgrade(config_for(sync), "base"))
            tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        await database.close()
        return tables

    assert asyncio.run(main()) == ["alembic_version"]


class LockedCursor:
    """A cursor whose first statements fail."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.done = list(failures), []

    def cursor(self) -> LockedCursor:
        return self

    def execute(self, statement: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.done.append(statement)

    def close(self) -> None:
        self.done.append("closed")


def test_a_new_connection_waits_for_a_lock_and_for_nothing_else() -> None:
    locked = sqlite3.OperationalError("database is locked")
    cursor = LockedCursor(locked, locked)
    _set_up_sqlite(cursor, None)
    assert (cursor.done[0], cursor.done[-1], len(cursor.done)) == ("PRAGMA journal_mode=WAL", "closed", 5)

    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        _set_up_sqlite(LockedCursor(sqlite3.OperationalError("disk I/O error")), None)
