"""`careedit serve` is stopped while it works and started again on the same state: nothing is lost. It ends with its cluster."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from careedit.records import EditRequest
from crowd import TALLY, Crowd, body_of
from webhooks import receiving

JOBS = 24
LONG = {"steps": 100, "n": 2}
"""An edit that outlasts every pause between the attempts of a job that meets a router which is gone."""
CONFIG = """version: 1
arms: {main: {expert_set: tiny, device: cpu, long_tail: [identity, reference, erase, style, compose]}}
ingress: {num_cpus: 0.1, max_ongoing_requests: 256}
router: {num_cpus: 0.1, max_ongoing_requests: 64}
shared: {num_cpus: 0.2, threads: 1, max_ongoing_requests: 16, max_queued_requests: 64, graceful_shutdown_s: 60}
limits: {deadline_s: 240}
scorer: {backend: none}
jobs: {webhook_secret_env: CAREEDIT_TEST_WEBHOOK_KEY, webhook_hosts: ["127.0.0.1"]}
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it says."""
    command = [Path(sys.executable).with_name("careedit"), "serve", "serve.yaml", "--port", "0"]
    with (
        (folder / "stderr.txt").open("a") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            said = re.search(r"http://\S+", process.stdout.readline())
            assert said is not None, (folder / "stderr.txt").read_text()
            yield process, said[0]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(120)


def test_a_signal_fails_no_job_and_the_next_server_makes_them_all(
    tmp_path: Path, draw_picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAREEDIT_TEST_WEBHOOK_KEY", os.urandom(32).hex())
    (tmp_path / "serve.yaml").write_text(CONFIG, encoding="utf-8")

    def request(seed: int, **fields: int) -> EditRequest:
        return EditRequest(image=draw_picture((64, 64), seed=seed), instruction="remove it", seed=seed, **fields)

    async def stopped(url: str, hook: str, process: subprocess.Popen[str]):
        """The jobs, how many had not ended when the signal came, and the answer to the edit."""
        async with Crowd(url) as crowd:
            jobs = []
            for seed in range(JOBS):
                body = body_of(request(seed, steps=8))
                answer = await crowd.http.post("/v1/jobs", files=body["files"], data={**body["data"], "webhook": hook})
                jobs.append(answer.json()["id"])
                TALLY.requests += 1
            edit = asyncio.create_task(crowd.edit(request(99, **LONG)))
            while not (listed := await statuses(crowd)).count("completed"):  # the edit is among its company by then
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            return jobs, sum(one in ("queued", "running") for one in listed), await edit

    async def statuses(crowd: Crowd) -> list[str]:
        return [job["status"] for job in (await crowd.http.get("/v1/jobs?limit=100")).json()["data"]]

    async def collect(url: str, jobs: list[str]):
        async with Crowd(url) as crowd:
            return [await crowd.job(job) for job in jobs], [await crowd.events(job) for job in jobs]

    with receiving() as receiver:
        with serving(tmp_path) as (process, url):
            jobs, left, edit = asyncio.run(stopped(url, receiver.url, process))
            assert edit.status == 200, edit.document
            assert left > JOBS // 2
            assert process.wait(120) == 0, (tmp_path / "stderr.txt").read_text()
        with serving(tmp_path) as (process, url):
            ended, events = asyncio.run(collect(url, jobs))
            ours = psutil.Process(process.pid).children(recursive=True)
            next(one for one in ours if one.name() == "raylet").kill()
            assert process.wait(60) == 1
            assert "Ray's raylet has ended" in (tmp_path / "stderr.txt").read_text()
            assert psutil.wait_procs(ours, timeout=60)[1] == [], "nothing of the cluster is left"
    assert [job["status"] for job in ended] == ["completed"] * JOBS, [job["error"] for job in ended]
    assert all(told.count("job.completed") == 1 for told in events)
    assert {body["type"] for body in receiver.received.values()} == {"job.completed"}
    assert sorted(body["data"]["id"] for body in receiver.received.values()) == sorted(jobs)
