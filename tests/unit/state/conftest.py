"""A store in a folder, and a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from careedit_deployments.config import StateConfig
from careedit_deployments.state.store import Store, open_store
from state_records import Clock


@pytest.fixture
def state(tmp_path: Path) -> StateConfig:
    return StateConfig(database=f"sqlite+aiosqlite:///{tmp_path}/state/careedit.db", blobs=str(tmp_path / "blobs"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def with_store(state: StateConfig, clock: Clock) -> Callable[[Callable[[Store], Awaitable[Any]]], Any]:
    """`with_store(work)`: what `work(store)` returns, in an event loop of its own; the store's folder stays."""

    def run(work: Callable[[Store], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            store = await open_store(state, clock=clock)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(main())

    return run
