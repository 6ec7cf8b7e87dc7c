import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import stores
from careedit_deployments.config import ServeConfig
from careedit_deployments.state.records import EditRecord, new_id
from careedit_deployments.state.store import Store

ARMS = {
    "a": {"expert_set": "tiny", "weight": 3, "guard": {"min_edits": 5, "window": 10}},
    "b": {"expert_set": "tiny", "weight": 1, "guard": {"min_edits": 5, "window": 10, "min_judge_score": 0.5}},
    "mirror": {"expert_set": "tiny", "shadow": True, "guard": {"min_edits": 5}},
}


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., ServeConfig]:
    """`make_config(**fields)`: two arms and a shadow, state in this test's folder."""

    def make(**fields: Any) -> ServeConfig:
        state = {"database": f"sqlite+aiosqlite:///{tmp_path}/state.db", "blobs": str(tmp_path / "blobs")}
        return ServeConfig(**{"arms": ARMS, "state": state, **fields})

    return make


@pytest.fixture
def with_store(make_config) -> stores.WithStore:
    return stores.with_store(make_config().state)


@pytest.fixture
def add_edits() -> Callable[..., Awaitable[list[str]]]:
    """`await add_edits(store, arm, outcomes, scores, **fields)`: one edit for each outcome; returns their ids."""

    async def add(
        store: Store,
        arm: str,
        outcomes: str,
        score: float | None = None,
        scores: Mapping[str, float] | None = None,
        **fields: Any,
    ) -> list[str]:
        names = {"m": "made", "f": "failed", "c": "cancelled", "r": "refused", "o": "overloaded"}
        ids = []
        for letter in outcomes:
            found = {"overall": score} if score is not None else scores
            edit = EditRecord(
                **{
                    "id": new_id("edit"),
                    "arm": arm,
                    "outcome": names[letter],
                    "seconds": 2.0,
                    "scores": found,
                    "created": time.time(),
                    **fields,
                }
            )
            await store.edits.add(edit)
            ids.append(edit.id)
        return ids

    return add
