"""The backup of docs/kubernetes.md: pg_dump and a copy of the bucket, restored beside the original, is the original."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import fsspec

from careedit_deployments.config import StateConfig
from careedit_deployments.state.blobs import open_blobs
from careedit_deployments.state.store import open_store
from careedit_deployments.state.tenants import KeyOfTenant
from served import a_key
from servers import pg_program
from state_records import a_job


def test_a_restored_backup_holds_keys_jobs_and_pictures(
    database: str, postgres: str, bucket: dict[str, Any], spare_bucket: str, tmp_path: Path
) -> None:
    _, (tenant, key) = a_key("me")
    job = a_job()

    async def fill() -> tuple[Any, str]:
        store = await open_store(StateConfig(database=database))
        await store.tenants.add(tenant)
        await store.keys.add(key)
        await store.jobs.add(job)
        kept = await store.jobs.get(job.id)
        await store.close()
        blobs = open_blobs(StateConfig(database=database, **bucket))
        picture = await blobs.put(f"jobs/{job.id}", b"picture", suffix=".png")
        return kept, picture

    kept, picture = asyncio.run(fill())
    plain = database.replace("+asyncpg", "")
    restored = postgres.replace("/postgres", "/restored")
    dump = tmp_path / "careedit.dump"
    pg_program("pg_dump", "--format", "custom", "--file", str(dump), plain)
    files = fsspec.filesystem("s3", **bucket["blob_options"])
    files.copy("careedit/pictures/", f"{spare_bucket}/pictures/", recursive=True)

    async def look() -> tuple[Any, Any, bytes]:
        state = StateConfig(
            database=restored.replace("postgresql://", "postgresql+asyncpg://"),
            blobs=f"s3://{spare_bucket}/pictures",
            blob_options=bucket["blob_options"],
        )
        store = await open_store(state)
        try:
            return await store.keys.all(), await store.jobs.get(job.id), await open_blobs(state).get(picture)
        finally:
            await store.close()

    pg_program("createdb", "--maintenance-db", postgres, "restored")
    try:
        pg_program("pg_restore", "--exit-on-error", "--dbname", restored, str(dump))
        keys, found, data = asyncio.run(look())
    finally:
        pg_program("dropdb", "--maintenance-db", postgres, "--force", "restored")
    assert (keys, found, data) == ([KeyOfTenant(key=key, tenant=tenant)], kept, b"picture")
