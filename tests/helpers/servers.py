"""PostgreSQL and Redis of this machine's own, each for as long as a block runs."""

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

PATIENCE_S = 60.0
"""Seconds that a server may take to answer."""


def free_port() -> int:
    """A port of the loopback address on which nothing listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def programs() -> Path:
    """The folder of initdb and postgres; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.fail("PostgreSQL's programs are not on this machine; run apt-get install postgresql.", pytrace=False)


def pg_program(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's client programs: pg_dump, createdb, ..."""
    found = shutil.which(name) or programs() / name
    answer = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@contextmanager
def running_postgres() -> Iterator[str]:
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
    port = free_port()
    settings = ["listen_addresses=127.0.0.1", "fsync=off", f"unix_socket_directories={folder}", "max_connections=60"]
    start = [bin_folder / "postgres", "-D", data, "-p", str(port), *(part for one in settings for part in ("-c", one))]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(start, stdout=log, stderr=log, **options)
    address = f"postgresql://careedit@127.0.0.1:{port}/postgres"
    try:
        asyncio.run(_until_postgres_answers(address, server, folder / "log"))
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # "fast": open connections are cut
        server.wait(30)
        shutil.rmtree(folder)


async def _until_postgres_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
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


@contextmanager
def running_redis(*arguments: str) -> Iterator[str]:
    """Address (host:port) of a server with these options, in a folder of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("Redis is not on this machine; run apt-get install redis-server.", pytrace=False)
    folder, port = Path(tempfile.mkdtemp(prefix="careedit-redis-")), free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), *arguments]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder)
