"""The head of the cluster is lost while `careedit serve` works: the command ends, and the next server makes what was accepted."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path

import httpx2
import pytest

from careedit import load_editor
from careedit.images import decode_image
from careedit.records import EditRequest
from command_server import collect, lose, serving, statuses
from crowd import Crowd, is_edit

JOBS = 12


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_lost_head_process_costs_no_job_and_the_edits_in_progress_end_at_once(
    part: str, tmp_path: Path, draw_picture
) -> None:
    def request(seed: int, **fields: int) -> EditRequest:
        return EditRequest(image=draw_picture((64, 64), seed=seed), instruction="remove it", seed=seed, **fields)

    async def work_until_lost(url: str, process: subprocess.Popen[str]) -> list[str]:
        async with Crowd(url) as crowd:
            jobs = [await crowd.queue(request(seed, steps=8)) for seed in range(JOBS)]
            edits = [asyncio.create_task(crowd.edit(request(90 + i, steps=200))) for i in range(2)]
            while not (listed := await statuses(crowd)).count("completed"):
                await asyncio.sleep(0.05)
            assert listed.count("running") and listed.count("queued"), listed
            await asyncio.to_thread(lose, process, part)
            for end in await asyncio.gather(*edits, return_exceptions=True):
                assert isinstance(end, httpx2.TransportError) or end.status in (200, 503), end
            return jobs

    with serving(tmp_path) as (process, url):
        jobs = asyncio.run(work_until_lost(url, process))
    assert f"Ray's {part} has ended, so the cluster is lost" in (tmp_path / "stderr.txt").read_text()
    with serving(tmp_path) as (_, url):
        ended, events = asyncio.run(collect(url, jobs))
    assert [job["status"] for job in ended] == ["completed"] * JOBS, [job["error"] for job in ended]
    assert all(told.count("job.completed") == told.count("job.image") == 1 for told in events)
    editor = load_editor("tiny", device="cpu")
    for seed in (0, JOBS - 1):
        picture = decode_image(base64.b64decode(ended[seed]["result"]["data"][0]["b64_json"]))
        assert is_edit(picture, editor.edit(request(seed, steps=8)).image)
