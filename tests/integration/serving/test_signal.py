"""`careedit serve` is stopped while it works and started again on the same state: nothing is lost. It ends with its cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

import command_server
from careedit.records import EditRequest
from command_server import collect, lose, serving, statuses
from crowd import Crowd
from webhooks import receiving

JOBS = 24
LONG = {"steps": 100, "n": 2}
"""An edit that outlasts every pause between the attempts of a job that meets a router which is gone."""
CONFIG = {
    **command_server.CONFIG,
    "jobs": {"webhook_secret_env": "CAREEDIT_TEST_WEBHOOK_KEY", "webhook_hosts": ["127.0.0.1"]},
}


@pytest.mark.faults
@pytest.mark.timeout(600)  # a cluster starts twice
def test_a_signal_fails_no_job_and_the_next_server_makes_them_all(
    tmp_path: Path, draw_picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAREEDIT_TEST_WEBHOOK_KEY", os.urandom(32).hex())

    def request(seed: int, **fields: int) -> EditRequest:
        return EditRequest(image=draw_picture((64, 64), seed=seed), instruction="remove it", seed=seed, **fields)

    async def stopped(url: str, hook: str, process: subprocess.Popen[str]):
        """The jobs, how many had not ended when the signal came, and the answer to the edit."""
        async with Crowd(url) as crowd:
            jobs = [await crowd.queue(request(seed, steps=8), webhook=hook) for seed in range(JOBS)]
            edit = asyncio.create_task(crowd.edit(request(99, **LONG)))
            while not (listed := await statuses(crowd)).count("completed"):  # the edit is among its company by then
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            return jobs, sum(one in ("queued", "running") for one in listed), await edit

    with receiving() as receiver:
        with serving(tmp_path, CONFIG) as (process, url):
            jobs, left, edit = asyncio.run(stopped(url, receiver.url, process))
            assert edit.status == 200, edit.document
            assert left > JOBS // 2
            assert process.wait(120) == 0, (tmp_path / "stderr.txt").read_text()
        state = [tmp_path / "careedit-state", *(tmp_path / "careedit-state").rglob("*")]
        assert [path for path in state if path.stat().st_mode & 0o077] == [], "other users of this machine read nothing"
        with serving(tmp_path, CONFIG) as (process, url):
            ended, events = asyncio.run(collect(url, jobs))
            lose(process, "raylet")
            assert "Ray's raylet has ended" in (tmp_path / "stderr.txt").read_text()
    assert [job["status"] for job in ended] == ["completed"] * JOBS, [job["error"] for job in ended]
    assert all(told.count("job.completed") == 1 for told in events)
    assert {body["type"] for body in receiver.received.values()} == {"job.completed"}
    assert sorted(body["data"]["id"] for body in receiver.received.values()) == sorted(jobs)
