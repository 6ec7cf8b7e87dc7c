"""One key tries to hold the ingress: with open streams, with bodies of which only the beginning comes, with expensive images."""

from __future__ import annotations

import asyncio
import base64
import select
import time

import httpx2
import psutil
import pytest
from PIL import Image

from careedit.records import EditRequest
from careedit_deployments.config import StateConfig
from careedit_deployments.state.store import open_store
from crowd import Crowd, body_of
from memory import growth
from pictures import encoded, with_scans
from served import a_key
from slots import follows, half_a_body, held, status
from tally import TALLY

MANY = 300
QUICKLY = 30.0
"""Seconds that an edit of another key may take; alone it takes one or two here."""


@pytest.fixture(scope="module")
def keys(served, served_config):
    """Two API keys that the running platform knows."""
    (greedy, first), (modest, second) = a_key("greedy"), a_key("modest")

    async def add():
        store = await open_store(StateConfig(**served_config["state"]))
        for tenant, record in (first, second):
            await store.tenants.add(tenant)
            await store.keys.add(record)
        await store.close()

    asyncio.run(add())
    return greedy, modest


@pytest.fixture
def others_are_served(serve_cluster, keys, draw_picture):
    """`others_are_served()`: health is told, and an edit of the other key is made, quickly."""

    def check():
        headers = {"authorization": f"Bearer {keys[1]}"}
        request = EditRequest(image=draw_picture((96, 64)), instruction="remove it", seed=1, steps=2, expert="erase")
        with httpx2.Client(base_url=serve_cluster.url, timeout=QUICKLY) as http:
            begun = time.monotonic()
            assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
            TALLY.requests += 1
            answer = http.post("/v1/images/edits", headers=headers, **body_of(request))
            TALLY.answered(answer.status_code)
            assert answer.status_code == 200, answer.text
            assert time.monotonic() - begun < QUICKLY

    return check


def answered(connections, count, seconds=60.0):
    """The first `count` connections on which something comes."""
    found, end = set(), time.monotonic() + seconds
    while len(found) < count:
        waiting = [one for one in connections if one not in found]
        ready, _, _ = select.select(waiting, [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{len(found)} of {count} were answered"
        found |= set(ready)
    return found


def counted(connections):
    """The statuses of the answers on some connections."""
    statuses = [status(one) for one in connections]
    for one in statuses:
        TALLY.answered(one)
    return statuses


def test_hundreds_of_open_streams_of_one_key_keep_nobody_else_out(serve_cluster, keys, others_are_served, draw_picture):
    greedy = {"authorization": f"Bearer {keys[0]}"}
    long = EditRequest(image=draw_picture((96, 64)), instruction="x", seed=1, steps=200, n=8, expert="style")
    with httpx2.Client(base_url=serve_cluster.url, headers=greedy, timeout=60) as http:
        TALLY.requests += 1 + MANY
        job = http.post("/v1/jobs", **body_of(long)).json()["id"]
        with held(serve_cluster.url, [follows(f"/v1/jobs/{job}/events", keys[0])] * MANY) as streams:
            statuses = counted(answered(streams, MANY))
            assert {one: statuses.count(one) for one in set(statuses)} == {200: 32, 429: MANY - 32}
            others_are_served()
            assert http.get(f"/v1/jobs/{job}").json()["status"] in ("queued", "running"), "the streams are still open"
        TALLY.left += http.delete(f"/v1/jobs/{job}").is_success


def test_hundreds_of_half_sent_bodies_of_one_key_keep_nobody_else_out_and_end(serve_cluster, keys, others_are_served):
    TALLY.requests += MANY
    with held(serve_cluster.url, [half_a_body("/v1/images/edits", keys[0])] * MANY) as bodies:
        refused = answered(bodies, MANY - 128)
        others_are_served()
        assert set(counted(refused)) <= {429, 408}
        waiting = [one for one in bodies if one not in refused]
        assert set(counted(answered(waiting, len(waiting)))) == {408}
    greedy = {"authorization": f"Bearer {keys[0]}"}
    assert httpx2.get(f"{serve_cluster.url}/v1/jobs", headers=greedy, timeout=60).status_code == 200


def test_expensive_images_of_one_key_cost_little_and_keep_nobody_else_out(serve_cluster, keys, others_are_served):
    """Progressive JPEGs of hundreds of scans, and scores of as many pixels as a request may have, and of more."""
    form = {"files": {"image": ("a.jpg", with_scans(4096, 700), "image/jpeg")}, "data": {"prompt": "remove it"}}

    def scores(side):
        picture = base64.b64encode(encoded(Image.new("RGB", (side, side), (200, 10, 30)))).decode()
        ref = {"image_url": picture}
        pair = {"source": ref, "edited": ref, "reference": ref, "instruction": "remove it"}
        return {"json": {"pairs": [pair] * 16}}

    async def send():
        async with Crowd(serve_cluster.url, key=keys[0]) as crowd:
            wanted = [("/v1/images/edits", form)] * 40 + [("/v1/scores", scores(1024)), ("/v1/scores", scores(4096))]
            sent = [asyncio.create_task(crowd.http.post(path, **body)) for path, body in wanted]
            TALLY.requests += len(sent)
            await asyncio.to_thread(others_are_served)
            answers = await asyncio.gather(*sent)
        for one in answers:
            TALLY.answered(one.status_code)
        return answers

    ((pid, _),) = serve_cluster.replicas("edits", "ingress")
    ingress = psutil.Process(pid)
    cpu = sum(ingress.cpu_times()[:2])
    with growth(pid) as grown:
        *jpegs, full, larger = asyncio.run(send())
    assert {(one.status_code, one.json()["error"]["code"]) for one in jpegs} == {(400, "invalid_image")}
    assert full.status_code == 200 and len(full.json()["scores"]) == 16, full.text
    assert (larger.status_code, larger.json()["error"]["code"]) == (400, "too_expensive")
    assert grown() < 500 * 2**20
    assert sum(ingress.cpu_times()[:2]) - cpu < 20, "seconds, of which each JPEG took 10 without a limit"
