"""A PostgreSQL of this machine's own, and a bucket server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import fsspec
import pytest
from moto.server import ThreadedMotoServer

MISSING = "PostgreSQL's programs are not on this machine; run apt-get install postgresql."


def programs() -> Path:
    """The folder of initdb and postgres; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.fail(MISSING, pytrace=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a server's `postgres` database; it refuses to run as root, so there it runs as the user postgres."""
    bin_folder = programs()
    folder = Path(tempfile.mkdtemp(prefix="careedit-postgres-"))
    options: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    data = folder / "data"
    init = [bin_folder / "initdb", "-D", data, "-U", "careedit", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
    made = subprocess.run(init, capture_output=True, text=True, check=False, **options)
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ["listen_addresses=127.0.0.1", "fsync=off", f"unix_socket_directories={folder}", "max_connections=60"]
    start = [bin_folder / "postgres", "-D", data, "-p", str(port), *(part for one in settings for part in ("-c", one))]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(start, stdout=log, stderr=log, **options)
    address = f"postgresql://careedit@127.0.0.1:{port}/postgres"
    try:
        asyncio.run(_until_it_answers(address, server, folder / "log"))
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # "fast": open connections are cut
        server.wait(30)
        shutil.rmtree(folder)


async def _until_it_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = await asyncpg.connect(address)
        except (OSError, asyncpg.PostgresError):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.05)
        else:
            await connection.close()
            return


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
