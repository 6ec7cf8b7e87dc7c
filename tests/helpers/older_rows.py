"""Rows of a database of the first version, and what they become; SQLite and PostgreSQL run the same check."""

from __future__ import annotations

from alembic import command
from sqlalchemy import Connection, text

from careedit_deployments.config import StateConfig
from careedit_deployments.state.database import Database
from careedit_deployments.state.migrations import config_for
from careedit_deployments.state.store import open_store

NOON = 1_800_000_000.0


def _fill(connection: Connection) -> None:
    """Make the tables of the first version, with two keys that own things and one job without a key."""
    command.upgrade(config_for(connection), "0001")
    for key, digest, limit, revoked in (("key_1", "c", 9, None), ("key_2", "d", None, NOON)):
        connection.execute(
            text("INSERT INTO keys VALUES (:id, :sha256, :name, :limit, NULL, :created, :revoked)"),
            {"id": key, "sha256": digest * 64, "name": key, "limit": limit, "created": NOON, "revoked": revoked},
        )
    for entry, detail in (("audit_b", '{"jobs": 3, "share": 0.1}'), ("audit_a", "{}")):
        connection.execute(
            text("INSERT INTO audit VALUES (:id, 'me', 'key.added', '', :detail, :created)"),
            {"id": entry, "detail": detail, "created": NOON},
        )
    for job, owner in (("job_1", "key_1"), ("job_2", "anonymous")):
        connection.execute(
            text(
                "INSERT INTO jobs VALUES (:id, :owner, NULL, '', :empty, NULL, 'queued', NULL, '[]', :created, NULL, NULL, "
                "NULL, 0, NULL, 0, false, 1)"
            ),
            {"id": job, "owner": owner, "empty": "{}", "created": NOON},
        )
        connection.execute(
            text("INSERT INTO job_events VALUES (:job, 1, 'queued', '{}', NULL, :created)"),
            {"job": job, "created": NOON},
        )


async def check_upgrade(database: str) -> None:
    """An older database keeps every row, and each of its keys has become a tenant with one key."""
    old = Database(database)
    async with old.write() as connection:
        await connection.run_sync(_fill)
    await old.close()
    store = await open_store(StateConfig(database=database))
    try:
        found = await store.keys.find("c" * 64)
        assert found is not None
        assert (found.key.scopes, found.tenant.name, found.tenant.requests_per_minute) == (
            ("edit", "read", "admin"),
            "key_1",
            9,
        )
        assert await store.keys.find("d" * 64) is None, "a revoked key is still revoked"
        assert len(await store.tenants.all()) == 2
        (mine,) = await store.jobs.page(found.tenant.id)
        assert (mine.id, mine.key) == ("job_1", "key_1")
        (other,) = await store.jobs.page("anonymous")
        assert (other.id, other.key) == ("job_2", None)
        assert [len(await store.jobs.events(job.id)) for job in (mine, other)] == [1, 1]
        assert (await store.audit.verify()).number == 2
        assert [entry.number for entry in await store.audit.latest()] == [2, 1]
    finally:
        await store.close()
