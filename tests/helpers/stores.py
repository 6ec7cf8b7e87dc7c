"""Stores in SQLite files that are migrated already: a migration takes longer than most tests of a store."""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from careedit_deployments.config import StateConfig
from careedit_deployments.state.store import Store, open_store

WithStore = Callable[[Callable[[Store], Awaitable[Any]]], Any]
"""`with_store(work)` returns what `work(store)` returns, in an event loop of its own; the store's file stays."""


def with_store(state: StateConfig, clock: Callable[[], float] = time.time) -> WithStore:
    """A `WithStore` for the database of `state`."""

    def run(work: Callable[[Store], Awaitable[Any]]) -> Any:
        place_database(state)
        return asyncio.run(_work(state, work, clock))

    return run


def place_database(state: StateConfig) -> None:
    """Make the file of a SQLite database, with its tables. Call it outside an event loop."""
    path = Path(make_url(state.database).database or "")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated())


def pictures_in(folder: Path) -> list[str]:
    """Names of the stored pictures below a folder, from which others may be taking files."""
    return [name for _, _, names in os.walk(folder) for name in names if name.endswith((".png", ".sent"))]


async def _work(state: StateConfig, work: Callable[[Store], Awaitable[Any]], clock: Callable[[], float]) -> Any:
    store = await open_store(state, clock=clock)
    try:
        return await work(store)
    finally:
        await store.close()


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "careedit.db"
        work = _work(StateConfig(database=f"sqlite+aiosqlite:///{path}"), Store.ping, time.time)
        with ThreadPoolExecutor(1) as thread:  # a browser's test has a running loop in this one
            thread.submit(asyncio.run, work).result()
        return path.read_bytes()
