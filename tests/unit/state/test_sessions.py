"""Sessions by themselves: what a turn leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from careedit.records import EditRequest, EditTrace
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.edits.sessions import Sessions
from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics, Recording
from fake_backend import FakeBackend

PICTURE = Image.new("RGB", (16, 16), (9, 9, 9))


def make_sessions(store: Store, folder: Path, recording: Recording | None = None, max_s: float = 1e9) -> Sessions:
    config = ServeConfig(arms={"tiny": {"expert_set": "tiny"}})
    metrics = Metrics(recording or Recording())
    edits = EditService(config, FakeBackend(), metrics, store.edits)
    return Sessions(edits, store, BlobStore(str(folder / "blobs")), metrics, Codecs(), ttl_s=1e9, max_s=max_s)


async def take_turn(sessions: Sessions, session_id: str, **request: Any) -> None:
    base = await sessions.base(session_id, "me")
    wanted = EditRequest(**{"image": PICTURE, "instruction": "invert it", "seed": 5, "steps": 2, **request})
    turn = await sessions.start(base, EditOrder(request=wanted, owner="me"))
    assert [event async for event in turn.events()][-1].kind == "made"


def test_the_trace_that_is_kept_of_a_turn_is_a_whole_one(with_store: Any, tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        sessions = make_sessions(store, tmp_path)
        session = await sessions.create(PICTURE, owner="me")
        await take_turn(sessions, session.id)
        (turn,) = await sessions.history(session.id, "me")
        assert turn.trace["guidance"] is None
        assert EditTrace(**turn.trace).seed == 5

    with_store(work)


def test_a_session_is_counted_at_each_step_of_its_life(with_store: Any, tmp_path: Path) -> None:
    recording = Recording()

    async def work(store: Store) -> None:
        sessions = make_sessions(store, tmp_path, recording)
        session = await sessions.create(PICTURE, owner="me")
        for _ in range(2):
            await take_turn(sessions, session.id)
        await sessions.delete(session.id, "me")
        with pytest.raises(NotFoundError):
            await sessions.delete(session.id, "me")

    with_store(work)
    counted = {dict(key)["event"]: sum(values) for key, values in recording.values["careedit_sessions"].items()}
    assert counted == {"made": 1, "turned": 2, "deleted": 1}


def test_a_session_has_an_absolute_end_that_no_turn_extends(with_store: Any, tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        sessions = make_sessions(store, tmp_path, max_s=1e9 - 1)
        session = await sessions.create(PICTURE, owner="me")
        assert session.expires == session.created + 1e9 - 1
        await take_turn(sessions, session.id)
        assert (await sessions.get(session.id, "me")).expires == session.expires
        idle = await make_sessions(store, tmp_path, max_s=2e9).create(PICTURE, owner="me")
        assert idle.expires == idle.created + 1e9

    with_store(work)
