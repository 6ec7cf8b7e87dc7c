"""A PostgreSQL of this machine's own, and a bucket server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from servers import running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a server's `postgres` database."""
    with running_postgres() as address:
        yield address


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """Address of a fresh database, as the configuration takes it."""
    name = f"test_{uuid4().hex}"

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(postgres)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name}"))
    yield postgres.replace("postgresql://", "postgresql+asyncpg://").replace("/postgres", f"/{name}")
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def bucket() -> Iterator[dict[str, Any]]:
    """`blobs` and `blob_options` of a bucket in a server that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "test", "secret": "test", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    fsspec.filesystem("s3", **options).mkdir("careedit")
    yield {"blobs": "s3://careedit/pictures", "blob_options": options}
    server.stop()


@pytest.fixture
def spare_bucket(bucket: dict[str, Any]) -> str:
    """Name of a fresh bucket in `bucket`'s server, which every test of a process shares."""
    name = f"test-{uuid4().hex}"
    fsspec.filesystem("s3", **bucket["blob_options"]).mkdir(name)
    return name
