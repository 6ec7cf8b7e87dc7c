"""The time of day of the server's processes is set wrongly while it works: nothing ends early, and nothing is deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from careedit.records import EditRequest
from command_server import collect, serving
from crowd import Crowd, body_of
from tally import TALLY
from wrong_clock import WrongClock

HOUR, DAY = 3600, 24 * 3600
MOVES = {HOUR: 4.0, -HOUR: 4.0, 8 * DAY: 70.0}
"""How far the clock is moved, and for how many seconds: the cleanup runs every minute, and deletes jobs after seven days."""
AT_ONCE = 4
"""Edits, and jobs, that are in progress when the clock is moved; as many are sent while it is wrong."""


@pytest.mark.timeout(900)
def test_a_clock_that_is_wrong_for_a_minute_costs_no_edit_no_job_and_no_session(tmp_path: Path, draw_picture) -> None:
    clock, seeds = WrongClock(tmp_path), iter(range(1000))

    def request(steps: int) -> EditRequest:
        seed = next(seeds)
        return EditRequest(image=draw_picture((64, 64), seed=seed), instruction="remove it", seed=seed, steps=steps)

    async def through_the_moves(url: str) -> tuple[list[str], list[int]]:
        """All jobs, and the statuses of all edits and turns."""
        async with Crowd(url) as crowd:
            session = await start_session(crowd)
            finished = [await crowd.queue(request(2)) for _ in range(AT_ONCE)]
            for job in finished:
                await crowd.wait(job)
            jobs, edits = list(finished), []
            for move, seconds in MOVES.items():
                begun = [asyncio.create_task(crowd.edit(request(60))) for _ in range(AT_ONCE)]
                jobs += [await crowd.queue(request(20)) for _ in range(AT_ONCE)]
                await asyncio.sleep(0.5)
                clock.move(move)
                jobs += [await crowd.queue(request(4)) for _ in range(AT_ONCE)]
                begun += [asyncio.create_task(crowd.edit(request(4))) for _ in range(AT_ONCE)]
                await asyncio.sleep(seconds)
                edits += [await turn(crowd, session)]
                clock.move(0)
                edits += [(await one).status for one in begun]
            return jobs, [*edits, await turn(crowd, session)]

    async def start_session(crowd: Crowd) -> str:
        answer = await crowd.http.post("/v1/sessions", files=body_of(request(2))["files"])
        return str(answer.json()["id"])

    async def turn(crowd: Crowd, session: str) -> int:
        TALLY.requests += 1
        answer = await crowd.http.post(f"/v1/sessions/{session}/turns", json={"prompt": "remove it", "steps": 2})
        TALLY.answered(answer.status_code)
        return answer.status_code

    with serving(tmp_path, **clock.environment) as (_, url):
        jobs, edits = asyncio.run(through_the_moves(url))
        ended, events = asyncio.run(collect(url, jobs))
    assert set(edits) == {200}
    assert [job["status"] for job in ended] == ["completed"] * len(jobs), [job["error"] for job in ended]
    assert [job["attempt"] for job in ended] == [1] * len(jobs)
    assert all(told.count("job.completed") == told.count("job.image") == 1 for told in events)
