"""The disk is full, or another process locks the database: what was accepted is made, and the rest is told to come again."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from careedit_deployments.edits import edit_service
from careedit_deployments.state.database import BUSY_S
from fake_backend import FakeBackend, picture_file
from served import Served, serve
from tally import TALLY

FILES = {"image": ("a.png", picture_file())}
EDIT = {"files": FILES, "data": {"prompt": "remove it"}}
JOBS = 5


@pytest.fixture
def painter() -> FakeBackend:
    return FakeBackend()


@contextmanager
def full_disk(served: Served) -> Iterator[None]:
    """SQLite's file may not grow, and no picture can be written."""
    services = served.services
    assert services is not None
    files, engine = services.blobs._files, services.store._database.engine.sync_engine

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def limit(pages: int) -> Any:
        def checkout(connection: Any, *_: Any) -> None:
            connection.cursor().execute(f"PRAGMA max_page_count={pages}")

        return checkout

    write, full, roomy = files.pipe_file, limit(1), limit(2**30)  # a limit below the present size stops all growth
    files.pipe_file = no_space
    event.listen(engine, "checkout", full)
    try:
        yield
    finally:
        files.pipe_file = write
        event.remove(engine, "checkout", full)
        event.listen(engine, "checkout", roomy)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process' write to the database lasts until the block ends."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def post(http: httpx2.Client, path: str, **options: Any) -> httpx2.Response:
    """The counted answer to a request; a job that is accepted is counted when it ends."""
    TALLY.requests += 1
    answer = http.post(path, **options)
    if answer.status_code != 202:
        TALLY.answered(answer.status_code)
    return answer


def says_come_again(answer: httpx2.Response) -> bool:
    error = answer.json()["error"]
    return answer.status_code == 503 and "try again" in error["message"] and int(answer.headers["retry-after"]) > 0


def queue(http: httpx2.Client, painter: FakeBackend) -> list[str]:
    """Jobs of which as many as possible are being made, and wait for the gate."""
    painter.gate.clear()
    return [post(http, "/v1/jobs", **EDIT).json()["id"] for _ in range(JOBS)]


def check(http: httpx2.Client, jobs: list[str]) -> None:
    """Every job was made once."""
    for job in jobs:
        events = http.get(f"/v1/jobs/{job}/events", timeout=90).text  # ends with the job
        TALLY.ended(http.get(f"/v1/jobs/{job}").json())
        assert events.count("event: job.completed") == events.count("event: job.image") == 1, events


def test_a_full_disk_costs_no_job_and_new_ones_are_told_to_come_again(tmp_path: Path, painter: FakeBackend) -> None:
    with serve(tmp_path, painter) as served, httpx2.Client(base_url=served.url, timeout=60) as http:
        jobs = queue(http, painter)
        with full_disk(served):
            served.run(_opens(painter))
            assert post(http, "/v1/images/edits", **EDIT).status_code == 200, "an edit needs no disk"
            assert says_come_again(post(http, "/v1/jobs", **EDIT))
            assert says_come_again(post(http, "/v1/sessions", files=FILES))
        check(http, jobs)
        check(http, [post(http, "/v1/jobs", **EDIT).json()["id"]])


def test_a_locked_database_costs_no_job_and_does_not_hold_up_an_edit(
    tmp_path: Path, painter: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit_service, "RECORD_S", 0.2)
    with serve(tmp_path, painter) as served, httpx2.Client(base_url=served.url, timeout=60) as http:
        jobs = queue(http, painter)
        with locked(tmp_path / "state.db"):
            served.run(_opens(painter))
            edit = post(http, "/v1/images/edits", **EDIT, timeout=0.8 * BUSY_S)
            assert edit.status_code == 200, "it does not wait until its record is stored"
        check(http, jobs)
        rating = {"edit": edit.headers["x-careedit-edit"], "rating": 5}
        while (stored := http.post("/v1/feedback", json=rating)).status_code == 404:
            time.sleep(0.05)
        assert stored.status_code == 201, "the record came when the database was free"


def _opens(painter: FakeBackend) -> Any:
    async def opens() -> None:
        painter.gate.set()

    return opens
