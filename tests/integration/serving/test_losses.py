"""Kill -9 or SIGSTOP under load, one part after the other: each accepted request gets a right picture, or a 503."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from itertools import cycle

import httpx2
import pytest

from careedit.images import decode_image
from careedit.records import EarlyFilter, EditRequest, EditTrace
from crowd import Answer, Crowd, is_edit

ERASE = "expert-main-erase"
VICTIMS = {"expert": ERASE, "hung": ERASE, "router": "router-main", "scorer": "scorer", "ingress": "ingress"}
FILTER = EarlyFilter(strategy="continue", candidates=2, preview_steps=1)
WISHES = (
    {"expert": "erase", "steps": 8},
    {"expert": "auto"},
    {"expert": "erase", "early_filter": FILTER},
    {"expert": "compose"},
    {"expert": {"erase": 0.5, "style": 0.5}},
    {"expert": "style", "early_filter": FILTER},
)
"""What the load is made of; the instruction routes to erase."""


@pytest.fixture
def wishes(draw_picture):
    """`wishes(count, first)`: requests, each with its own seed and picture."""

    def make(count, first=0):
        kinds = cycle(WISHES)
        return [
            EditRequest(
                image=draw_picture((96, 64), seed=seed),
                seed=seed,
                **{"instruction": "remove the red circle", "steps": 4, **next(kinds)},
            )
            for seed in range(first, first + count)
        ]

    return make


@pytest.fixture
def check(open_editor):
    """`check(request, picture, trace)`: the picture is the edit that its trace speaks of, made alone in this process."""

    def right(request, picture, trace):
        editor, told = open_editor("merged"), EditTrace.model_validate_json(json.dumps(trace))
        assert told.routing.weights == editor.route(request).weights
        if request.early_filter is None:
            alone = editor.edit(request)
        else:  # which noise was chosen is the judge's affair, if it lived
            assert told.filter is not None and 0 <= told.seed - request.seed < FILTER.candidates
            alone = editor.replay(told, image=request.image)
        assert is_edit(picture, alone.image)

    return right


def says_try_again(answer: Answer) -> bool:
    error = answer.document["error"]
    return answer.status == 503 and "again" in error["message"] and int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "victim",
    [
        "expert",
        *(pytest.param(one, marks=pytest.mark.faults) for one in ("hung", "router", "scorer", "ingress", "node")),
    ],
)
def test_who_dies_under_load_costs_no_picture_and_no_job(victim, serve_cluster, served, ask, until, wishes, check):
    where = serve_cluster.replicas("edits", VICTIMS.get(victim, ERASE))
    ingresses = serve_cluster.replicas("edits", "ingress")
    (pid, node), *_ = where
    first = 1000 * (1 + [*VICTIMS, "node"].index(victim))
    requests, queued = wishes(18, first), wishes(6, first + 100)

    def strike():
        until(lambda: ask(ERASE)["edits"] > 1)
        if victim == "node":
            serve_cluster.lose(node)
        elif victim == "hung":
            os.kill(pid, signal.SIGSTOP)
            until(lambda: "hangs and is being replaced" in httpx2.get(f"{serve_cluster.url}/readyz", timeout=60).text)
        else:
            os.kill(pid, signal.SIGKILL)

    async def load():
        async with Crowd(serve_cluster.url) as crowd:
            jobs = await asyncio.gather(*(crowd.queue(request) for request in queued))
            edits = [asyncio.create_task(crowd.edit(request)) for request in requests]
            await asyncio.to_thread(strike)
            answers = await asyncio.gather(*edits)
            lost = [answer for answer in answers if answer.status != 200]
            again = await asyncio.gather(*(crowd.edit(answer.request) for answer in lost))
            ended = [await crowd.job(job) for job in jobs]
            return answers, again, ended, [await crowd.events(job) for job in jobs]

    answers, again, ended, events = asyncio.run(load())
    lost = [answer for answer in answers if answer.status != 200]
    if victim == "ingress" or any(where == node and victim == "node" for _, where in ingresses):
        assert all(says_try_again(answer) for answer in lost), [answer.document for answer in lost]
    else:
        assert not lost, [answer.document for answer in lost]
    for answer in (*answers, *again):
        if answer.status == 200 or answer in again:
            check(answer.request, answer.picture, answer.trace)
    for request, job, told in zip(queued, ended, events, strict=True):
        assert job["status"] == "completed", job
        assert told.count("job.completed") == told.count("job.image") == 1
        assert victim == "ingress" or victim == "node" or told.count("job.started") == 1, "the job keeps its attempts"
        (image,) = job["result"]["data"]
        (trace,) = job["result"]["careedit"]["traces"]
        check(request, decode_image(base64.b64decode(image["b64_json"])), trace)
    serve_cluster.complete()
    until(lambda: asyncio.run(served.ready()) == {}, 120)
    assert pid not in {alive for alive, _ in serve_cluster.replicas("edits", VICTIMS.get(victim, ERASE))}


@pytest.mark.faults
def test_an_edit_waits_for_the_encoder_in_the_place_of_a_lost_one(serve_cluster, served, call, edit, alone, until):
    ((pid, _),) = serve_cluster.replicas("edits", "encoder-main")
    wanted = call(seed=5, instruction="remove the last star")  # a prompt that no cache has
    os.kill(pid, signal.SIGKILL)
    (events,) = edit(wanted)
    assert alone(events[-1], wanted)
    assert events[-1].trace.degradations == ()
    assert pid not in {alive for alive, _ in serve_cluster.replicas("edits", "encoder-main")}
    until(lambda: asyncio.run(served.ready()) == {}, 120)


def test_a_lost_proxy_is_replaced_and_costs_no_job(serve_cluster, served, until, wishes, check):
    (request,) = wishes(1, 9000)
    request = request.model_copy(update={"steps": 60})

    def answers():
        try:
            return httpx2.get(f"{serve_cluster.url}/healthz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    async def load():
        async with Crowd(serve_cluster.url) as crowd:
            job = await crowd.queue(request)
            (before,) = serve_cluster.proxies()
            os.kill(before, signal.SIGKILL)
            with pytest.raises(httpx2.TransportError):
                await crowd.edit(request)
            await asyncio.to_thread(until, answers)
            assert serve_cluster.proxies() != [before]
            return await crowd.job(job)

    ended = asyncio.run(load())
    assert ended["status"] == "completed", ended
    (image,), (trace,) = ended["result"]["data"], ended["result"]["careedit"]["traces"]
    check(request, decode_image(base64.b64decode(image["b64_json"])), trace)
