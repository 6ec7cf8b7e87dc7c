"""Jobs and processes: two race for the same jobs, one is killed, and every job ends exactly once all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import worker_process
from careedit.records import EditRequest
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.output import Output
from careedit_deployments.edits.stored import keep_order, scope_of
from careedit_deployments.state.blobs import BlobStore, open_blobs
from careedit_deployments.state.records import JobEvent, JobRecord, new_id
from careedit_deployments.state.store import Store, open_store
from tally import TALLY

JOBS, STEPS = 8, 10


async def queue(store: Store, blobs: BlobStore, seed: int) -> str:
    picture = Image.new("RGB", (32, 32), (seed, 0, 0))
    job_id = new_id("job")
    request = EditRequest(image=picture, instruction="invert it", seed=seed, steps=STEPS, n=2)
    stored = await keep_order(
        EditOrder(request=request), Output(size=picture.size), partial(blobs.put, scope_of(job_id))
    )
    job = JobRecord(id=job_id, body_sha256="a" * 64, order=stored.model_dump(mode="json"), created=time.time())
    return (await store.jobs.add(job)).id


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_jobs_end_exactly_once_though_a_worker_is_killed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = f"sqlite+aiosqlite:///{tmp_path}/careedit.db"
    if kind == "postgres":
        address = request.getfixturevalue("database")
    config = worker_process.config_of(address, str(tmp_path / "blobs"))

    def begin(pause: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, worker_process.__file__, address, config.state.blobs, str(pause)]
        return subprocess.Popen(command)

    async def main() -> tuple[list[JobRecord], dict[str, list[JobEvent]]]:
        store, blobs = await open_store(config.state), open_blobs(config.state)
        jobs = [await queue(store, blobs, seed) for seed in range(JOBS)]
        doomed, other = begin(0.5), begin(0.05)  # the first would take 10 s for a job
        try:
            while True:  # until the slow one is amid its jobs
                told = [event.data.get("done") for job in jobs for event in await store.jobs.events(job)]
                running = [job for job in await store.jobs.page("anonymous") if job.status == "running"]
                if any(f":{doomed.pid}:" in str(job.worker) for job in running) and 2 in told:
                    break
                await asyncio.sleep(0.05)
            doomed.kill()
            while any(job.finished is None for job in await store.jobs.page("anonymous")):
                assert other.poll() is None
                await asyncio.sleep(0.1)
            found = [await store.jobs.get(job) for job in jobs]
            for image in (image for job in found for image in job.images):
                assert await blobs.get(image.picture)
            return found, {job: await store.jobs.events(job) for job in jobs}
        finally:
            for process in (doomed, other):
                process.kill()
                process.wait()
            await store.close()

    TALLY.requests += JOBS
    jobs, events = asyncio.run(main())
    assert Counter(job.status for job in jobs) == {"completed": JOBS}
    taken_up = [job for job in jobs if job.attempt > 1]
    assert taken_up, "the killed worker held a job"
    for job in jobs:
        ends = Counter(event.kind for event in events[job.id] if event.kind in ("completed", "failed", "cancelled"))
        TALLY.served += ends["completed"] > 0
        TALLY.doubled += ends.total() > 1
        assert ends == {"completed": 1}
        assert [event.number for event in events[job.id]] == list(range(1, job.last_event + 1))
        seeds = [image.trace["seed"] for image in job.images]
        assert seeds == [jobs.index(job), jobs.index(job) + 1], (
            "each image of its own noise, however often it was begun"
        )
