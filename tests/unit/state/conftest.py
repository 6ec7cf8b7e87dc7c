"""A store in a folder, and a clock that is turned by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

import stores
from careedit_deployments.config import StateConfig
from state_records import Clock


@pytest.fixture
def state(tmp_path: Path) -> StateConfig:
    """A database with its tables, and a folder for pictures."""
    config = StateConfig(database=f"sqlite+aiosqlite:///{tmp_path}/state/careedit.db", blobs=str(tmp_path / "blobs"))
    stores.place_database(config)
    return config


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of tests that are coroutines."""
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def with_store(state: StateConfig, clock: Clock) -> stores.WithStore:
    return stores.with_store(state, clock)
