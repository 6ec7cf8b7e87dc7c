"""The application ends with work in progress and is started on the same state: the edit is made, and so is every job."""

from __future__ import annotations

import asyncio
import base64

import pytest

from careedit.images import decode_image
from careedit.records import EditRequest
from crowd import Crowd, is_edit
from replica_process import status
from slots import half_a_body, held
from webhooks import receiving

JOBS = 12
BUSY_S = 4.0
"""Seconds for which the ingress goes on while what it stands on goes away."""


@pytest.fixture
def small_config(served_config, tmp_path):
    """One pool for every expert."""
    arm = {**served_config["arms"]["main"], "experts": {}}
    arm["long_tail"] = ["erase", "style", *arm["long_tail"]]
    return {
        **served_config,
        "name": "restarted",
        "arms": {"main": arm},
        "scorer": {"backend": "none"},
        "limits": {"body_grace_s": 2 * BUSY_S},
        "jobs": {
            "lease_s": 2,
            "webhook_secret_env": "CAREEDIT_TEST_WEBHOOK_KEY",
            "webhook_hosts": ["127.0.0.1"],
        },
        "state": {"database": f"sqlite+aiosqlite:///{tmp_path}/careedit.db", "blobs": str(tmp_path / "blobs")},
    }


@pytest.mark.faults
@pytest.mark.timeout(600)  # the application starts twice
def test_edits_and_jobs_in_progress_outlive_the_end_of_the_application(
    serve_cluster, small_config, draw_picture, open_editor, until
):
    """Serve ends it all at once, as a deleted RayService does; `test_signal.py` has the order of `careedit serve`."""
    from ray import serve

    def request(seed, steps, expert):
        image = draw_picture((96, 64), seed=seed)
        return EditRequest(image=image, instruction="remove it", seed=seed, expert=expert, steps=steps)

    # Short ones come first: while the edit is finished many are claimed, and find no router where all ends at once.
    queued = [request(seed, 4 if seed < JOBS // 2 else 10, ("auto", "style")[seed % 2]) for seed in range(JOBS)]
    url = f"{serve_cluster.url}/restarted"

    async def through_the_end(hook):
        """The ids of the jobs, and the answer to an edit that is made while the application ends.

        A request that is still arriving keeps the ingress there for `BUSY_S` seconds longer than the router.
        """
        async with Crowd(url) as crowd:
            with held(url, [half_a_body("/restarted/v1/routes")]):
                edit = asyncio.create_task(crowd.edit(request(99, 90, "erase")))
                await asyncio.to_thread(
                    until, lambda: serve_cluster.inside("restarted", "shared-main", status)[0]["edits"]
                )
                jobs = [await crowd.queue(one, webhook=hook) for one in queued]
                while not (listed := await statuses(crowd)).count("running"):
                    await asyncio.sleep(0.05)
                ending = asyncio.create_task(asyncio.to_thread(serve.delete, "restarted"))
                await asyncio.sleep(BUSY_S)
            await ending
            assert sum(one in ("queued", "running") for one in listed) > 4, "more jobs than are made at once"
            return jobs, await edit

    async def statuses(crowd):
        return [job["status"] for job in (await crowd.http.get("/v1/jobs?limit=100")).json()["data"]]

    async def collect(jobs):
        async with Crowd(url) as crowd:
            return [await crowd.job(job) for job in jobs], [await crowd.events(job) for job in jobs]

    with receiving() as receiver:
        try:
            serve_cluster.run(small_config, route_prefix="/restarted")
            jobs, edit = asyncio.run(through_the_end(receiver.url))
            assert edit.status == 200, edit.document
            serve_cluster.run(small_config, route_prefix="/restarted")
            ended, events = asyncio.run(collect(jobs))
        finally:
            serve.delete("restarted")
    for job, told in zip(ended, events, strict=True):
        assert job["status"] == "completed", job
        assert told.count("job.completed") == told.count("job.image") == 1
    for one, job in list(zip(queued, ended, strict=True))[::5]:
        picture = decode_image(base64.b64decode(job["result"]["data"][0]["b64_json"]))
        assert is_edit(picture, open_editor("merged").edit(one).image)
    assert {body["type"] for body in receiver.received.values()} == {"job.completed"}
    told = [body["data"]["id"] for body in receiver.received.values()]
    assert len(told) == len(set(told)), "one message for each job"
