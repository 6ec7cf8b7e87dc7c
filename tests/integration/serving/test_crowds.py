"""Many clients at once: nobody gets another's edit, a full queue says so quickly, and those who leave leave nothing behind."""

from __future__ import annotations

import asyncio
from functools import lru_cache

import pytest

from careedit.records import EditRequest
from crowd import Crowd, is_edit

EXPERTS = ("erase", "compose", "identity", "reference")
OWNERS = ("expert-main-erase", "shared-main")
"""The deployments that edit with them; the second one's batches hold three experts at once."""
QUICKLY = 0.1
"""Seconds within which the best of several refusals has come, where the machine answers anything that quickly."""


@pytest.fixture
def wish(draw_picture):
    """`wish(index, **fields)`: a request of one of four experts; every twentieth is the same."""

    def make(index, **fields):
        seed = index // 4 % 5
        return EditRequest(
            image=draw_picture((96, 64), seed=seed),
            instruction="remove the red circle",
            seed=seed,
            expert=EXPERTS[index % 4],
            **{"steps": 2, **fields},
        )

    return make


def crowd_of(url, requests):
    async def send():
        async with Crowd(url) as crowd:
            return await asyncio.gather(*(crowd.edit(request) for request in requests))

    return asyncio.run(send())


def test_dozens_of_edits_by_four_experts_at_once_never_mix(served, serve_cluster, wish, open_editor):
    requests = [wish(index) for index in range(48)]  # 36 for the 16 places of the shared pool
    answers = crowd_of(serve_cluster.url, requests)
    assert [answer.document for answer in answers if answer.status != 200] == []

    @lru_cache
    def alone(seed, expert):
        return open_editor("merged").edit(wish(4 * seed + EXPERTS.index(expert))).image

    for answer in answers:
        request = answer.request
        assert answer.trace["routing"]["weights"] == {request.expert: 1.0}
        assert is_edit(answer.picture, alone(request.seed, request.expert))


def test_a_hundred_who_leave_stop_their_edits_within_a_step_and_the_next_one_is_served(
    served, serve_cluster, wish, ask, until
):
    before = {name: ask(name) for name in OWNERS}

    async def leave():
        async with Crowd(serve_cluster.url) as crowd:
            long = [asyncio.create_task(crowd.edit(wish(index, steps=200, n=4))) for index in range(100)]
            await asyncio.to_thread(until, lambda: all(ask(name)["edits"] > 8 for name in OWNERS))
            for task in long:
                task.cancel()
            return await asyncio.gather(*long, return_exceptions=True)

    assert all(isinstance(left, asyncio.CancelledError) for left in asyncio.run(leave()))
    until(lambda: all(ask(name)["edits"] == 0 for name in OWNERS), 20)
    first, second = ({name: ask(name) for name in OWNERS} for _ in range(2))
    for name in OWNERS:
        assert before[name]["steps"] < first[name]["steps"] == second[name]["steps"]
        assert first[name]["steps_after_cancel"] == 0
        assert (first[name]["pid"], first[name]["failures"]) == (before[name]["pid"], before[name]["failures"])
    (answer,) = crowd_of(serve_cluster.url, [wish(0)])
    assert answer.status == 200


def test_a_full_queue_is_told_quickly_and_says_when_to_come_back(served, serve_cluster, wish, ask, until):
    async def fill():
        async with Crowd(serve_cluster.url) as crowd:
            long = [asyncio.create_task(crowd.edit(wish(0, steps=200, n=4))) for _ in range(20)]
            await asyncio.to_thread(until, lambda: ask("expert-main-erase")["edits"] == 16)
            long += [asyncio.create_task(crowd.edit(wish(0, steps=200, n=4))) for _ in range(40)]
            done, _ = await asyncio.wait(long, return_when=asyncio.FIRST_COMPLETED)
            refused = [*(task.result() for task in done), *[await crowd.edit(wish(0)) for _ in range(10)]]
            trips = [(await crowd.http.get("/healthz")).elapsed.total_seconds() for _ in range(10)]
            for task in long:
                task.cancel()
            await asyncio.gather(*long, return_exceptions=True)
            return refused, min(trips)

    refused, trip = asyncio.run(fill())
    assert {answer.status for answer in refused} == {429}
    assert all(answer.document["error"]["code"] == "server_overloaded" for answer in refused)
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert min(answer.seconds for answer in refused) < max(QUICKLY, 5 * trip)
    until(lambda: ask("expert-main-erase")["edits"] == 0, 20)
