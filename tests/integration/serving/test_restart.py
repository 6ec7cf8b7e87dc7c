"""The application ends and is started anew on the same state: what was queued, and what was being made, is made."""

from __future__ import annotations

import asyncio
import base64

import pytest

from careedit.images import decode_image
from careedit.records import EditRequest
from crowd import Crowd, is_edit


@pytest.fixture
def small_config(served_config, tmp_path):
    """One pool for every expert, and one worker for the jobs."""
    arm = {**served_config["arms"]["main"], "experts": {}}
    arm["long_tail"] = ["erase", "style", *arm["long_tail"]]
    return {
        **served_config,
        "name": "restarted",
        "arms": {"main": arm},
        "scorer": {"backend": "none"},
        "jobs": {"workers": 1, "lease_s": 2},
        "state": {"database": f"sqlite+aiosqlite:///{tmp_path}/careedit.db", "blobs": str(tmp_path / "blobs")},
    }


def test_jobs_that_are_queued_when_the_service_ends_are_made_by_the_next_one(
    serve_cluster, small_config, draw_picture, open_editor
):
    from ray import serve

    requests = [
        EditRequest(
            image=draw_picture((96, 64), seed=seed), instruction="remove it", seed=seed, expert="style", steps=steps
        )
        for seed, steps in enumerate((150, 4, 4, 4))
    ]
    url = f"{serve_cluster.url}/restarted"

    async def queue():
        async with Crowd(url) as crowd:
            jobs = [await crowd.queue(request) for request in requests]
            return jobs, [(await crowd.http.get(f"/v1/jobs/{job}")).json()["status"] for job in jobs]

    async def collect(jobs):
        async with Crowd(url) as crowd:
            return [await crowd.job(job) for job in jobs], [await crowd.events(job) for job in jobs]

    try:
        serve_cluster.run(small_config, route_prefix="/restarted")
        jobs, before = asyncio.run(queue())
        serve.delete("restarted")
        assert set(before[1:]) == {"queued"} and before[0] in ("queued", "running")
        serve_cluster.run(small_config, route_prefix="/restarted")
        ended, events = asyncio.run(collect(jobs))
    finally:
        serve.delete("restarted")
    for request, job, told in zip(requests, ended, events, strict=True):
        assert job["status"] == "completed", job
        assert told.count("job.completed") == told.count("job.image") == 1
        picture = decode_image(base64.b64decode(job["result"]["data"][0]["b64_json"]))
        direct = open_editor("merged").edit(request).image
        assert is_edit(picture, direct)
