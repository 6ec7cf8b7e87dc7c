"""The store in a real PostgreSQL: the same cases as SQLite's, and what only a server can do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

import retention_cases
import store_cases
import tenant_cases
from careedit.errors import InputError
from careedit_deployments.config import StateConfig
from careedit_deployments.errors import UnavailableError
from careedit_deployments.state import store as store_module
from careedit_deployments.state.clock import SteadyClock
from careedit_deployments.state.database import Database
from careedit_deployments.state.migrations import migrate
from careedit_deployments.state.store import open_store
from careedit_deployments.state.tables import metadata
from older_rows import check_upgrade
from state_records import Clock, a_job


@pytest.mark.parametrize(
    "case", [*store_cases.CASES, *tenant_cases.CASES, *retention_cases.CASES], ids=lambda case: case.__name__
)
def test_postgres(case: Any, database: str) -> None:
    clock = Clock()

    async def main() -> None:
        store = await open_store(StateConfig(database=database), clock=clock)
        try:
            await case(store, clock)
        finally:
            await store.close()

    asyncio.run(main())


def test_the_models_equal_the_migrations_and_servers_that_start_at_once_migrate_once(database: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    async def main() -> None:
        databases = [Database(database) for _ in range(4)]
        await asyncio.gather(*(migrate(one) for one in databases))
        async with databases[0].read() as connection:
            assert await connection.run_sync(differences) == []
            versions = await connection.execute(text("SELECT version_num FROM alembic_version"))
            assert len(versions.all()) == 1
        for one in databases:
            await one.close()

    asyncio.run(main())


def test_an_older_database_keeps_every_row(database: str) -> None:
    asyncio.run(check_upgrade(database))


def test_a_cut_connection_costs_one_answer_at_most(database: str, postgres: str) -> None:
    async def main() -> None:
        store = await open_store(StateConfig(database=database))
        await store.jobs.add(a_job())
        operator = await asyncpg.connect(postgres)
        await operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database.rpartition("/")[2]
        )
        await operator.close()
        assert len(await store.jobs.page("anonymous")) == 1
        await store.close()

    asyncio.run(main())


def test_an_id_that_the_database_cannot_hold_is_the_callers_mistake(database: str) -> None:
    async def main() -> None:
        store = await open_store(StateConfig(database=database))
        for ask in (store.jobs.get("job_\0"), store.sessions.get("\0"), store.jobs.page("anonymous", before="\0")):
            with pytest.raises(InputError, match="cannot be stored"):
                await ask
        await store.close()

    asyncio.run(main())


def test_a_server_that_is_not_there_is_said_in_a_sentence() -> None:
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        asyncio.run(open_store(StateConfig(database="postgresql+asyncpg://me:secret@127.0.0.1:1/x")))
    assert "secret" not in str(caught.value)


def test_a_host_whose_clock_is_wrong_uses_the_servers_time(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = SteadyClock(lambda: time.time() + 8 * 24 * 3600)
    monkeypatch.setattr(store_module, "unix_time", ahead)

    async def main() -> None:
        right = await open_store(StateConfig(database=database))
        job = await right.jobs.add(a_job(created=time.time()))
        claimed = await right.jobs.claim("right", lease_s=60, attempts=3)
        wrong = await open_store(StateConfig(database=database), clock=ahead)
        assert await wrong.jobs.claim("wrong", lease_s=60, attempts=3) is None, "the lease has not ended"
        assert (await right.jobs.finish(claimed, "completed")).status == "completed"
        assert await wrong.jobs.expired() == []
        assert abs((await wrong.jobs.get(job.id)).expires - time.time() - 7 * 24 * 3600) < 60
        await asyncio.gather(right.close(), wrong.close())

    asyncio.run(main())
