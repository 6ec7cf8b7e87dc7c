"""The committed `serveConfigV2` on Ray's own processes: deployed, changed in place, and robbed of its workers and its head.

The tests share one cluster and are run in their order; each leaves it whole.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections import Counter
from copy import deepcopy
from pathlib import Path

import httpx2
import psutil
import pytest

from careedit.experts import add_expert, load_expert_set, make_manifest
from careedit.experts.set import locate
from careedit.images import decode_image
from careedit.records import EditRequest
from careedit_tiny.world.samples import draw_sample, request_for
from crowd import is_edit

pytestmark = pytest.mark.timeout(1800)  # nodes and seven replicas start several times, on as few as two cores

CLIENTS = 4
"""Clients that keep editing while the service changes."""
SCENES = 6
"""Different requests of theirs."""
JOB_STEPS = 150
"""Steps of a job: enough that it is in hand when something is killed."""
FRONT = "front"
"""The overlay's only worker group."""


def request(seed: int, steps: int = 4) -> EditRequest:
    """An edit by the expert that the changed set changes."""
    made = request_for(draw_sample("remove", seed, "test"), seed=seed, expert="erase")
    return made.model_copy(update={"steps": steps})


@pytest.fixture(scope="module")
def other_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged set with the adapter of `style` in the place of that of `erase`: whoever uses it is told apart."""
    packaged = locate("tiny").local
    assert packaged is not None
    folder = shutil.copytree(packaged, tmp_path_factory.mktemp("sets") / "other")
    known = load_expert_set(folder)
    old = known.manifest("erase")
    (adapter,) = (folder / "experts/style").glob("*.safetensors")
    fields = {"name": "erase", "competence": old.competence, "description": old.description, "handles": old.handles}
    manifest = make_manifest(
        adapter, known.shapes, **fields, base_name=old.base.name, licence=old.licence, provenance="Swapped for a test."
    )
    add_expert(folder, manifest, shutil.copy(adapter, tmp_path_factory.mktemp("adapter") / manifest.file), replace=True)
    return folder


def right(platform, answer) -> str:
    """The set that made an answer, whose picture is checked."""
    assert answer.status == 200, answer.document
    sha256 = answer.trace["expert_set_sha256"]
    assert is_edit(answer.picture, platform.alone(answer.request, sha256))
    return sha256


def test_the_committed_configuration_is_deployed_and_answers(platform):
    platform.wait(platform.stands, "the service")
    status = platform.status()
    (application,) = platform.config["applications"]
    assert set(status["deployments"]) >= {"ingress", "scorer", "router-main", "expert-main-erase", "shared-main"}
    head = platform.nodes.head
    assert not any(head.runs(pid) for pid in platform.pids(status)), "a replica is on the head"
    assert httpx2.post(f"{platform.url}/v1/images/edits").status_code == 401, "the service is open to all"
    sha256 = right(platform, platform.edit(request(0)))
    assert sha256 == load_expert_set(application["args"]["arms"]["main"]["expert_set"]).sha256


def test_another_expert_set_comes_in_place_and_no_request_is_lost_or_wrong(platform, other_set):
    before, after = platform.know("tiny"), platform.know(str(other_set))
    config = deepcopy(platform.config)
    config["applications"][0]["args"]["arms"]["main"]["expert_set"] = str(other_set)

    async def through_the_change():
        over, begun = asyncio.Event(), asyncio.Event()

        async def client(crowd, number):
            answers = []
            while not over.is_set():
                answers.append(await crowd.edit(request((number + CLIENTS * len(answers)) % SCENES, steps=12)))
                begun.set()
            return answers

        async with platform.crowd() as crowd:
            clients = [asyncio.ensure_future(client(crowd, number)) for number in range(CLIENTS)]
            await asyncio.wait([*clients, asyncio.ensure_future(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
            try:
                await asyncio.to_thread(platform.deploy, config)
                await asyncio.to_thread(platform.wait, platform.stands, "the changed service")
                last = await crowd.edit(request(1))
            finally:
                over.set()
                answers = await asyncio.gather(*clients)
        return last, [answer for own in answers for answer in own]

    head = platform.nodes.head
    controllers = [one.pid for one in head.processes if "ServeController" in " ".join(one.cmdline())]
    last, answers = asyncio.run(through_the_change())
    assert Counter(answer.status for answer in answers) == {200: len(answers)}, [
        answer.document for answer in answers if answer.status != 200
    ]
    made_by = Counter(right(platform, answer) for answer in answers)
    assert right(platform, last) == after and set(made_by) <= {before, after} and made_by[before]
    assert controllers and all(head.runs(pid) for pid in controllers), "it was no change in place"


def test_without_any_worker_the_service_waits_and_with_another_one_it_goes_on(platform):
    expected = right(platform, platform.edit(request(2)))

    async def queue():
        async with platform.crowd() as crowd:
            return [await crowd.queue(request(seed, steps=JOB_STEPS)) for seed in range(3)]

    jobs = asyncio.run(queue())
    lost = list(platform.nodes.workers)
    for node in lost:
        node.kill()
        platform.nodes.workers.remove(node)
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{platform.url}/healthz", timeout=5)
    for _ in lost:
        platform.nodes.start_worker(FRONT)
    assert right(platform, platform.edit(request(2))) == expected
    assert any(job["attempt"] > 1 for job in assert_made(platform, jobs, expected)), "no job was in hand"
    platform.wait(platform.stands, "the whole service")


def test_the_head_comes_back_with_its_state_while_edits_and_jobs_go_on(platform):
    expected = right(platform, platform.edit(request(3)))
    replicas = set(platform.pids(platform.status()))

    async def queue():
        async with platform.crowd() as crowd:
            return [await crowd.queue(request(seed, steps=JOB_STEPS)) for seed in range(4)]

    jobs = asyncio.run(queue())
    assert any("gcs_server" in one.name() for one in platform.nodes.head.processes)
    platform.nodes.head.kill()
    assert right(platform, platform.edit(request(4))) == expected, "edits do not go on without the head"
    jobs += asyncio.run(queue())
    platform.nodes.start_head()
    platform.wait(platform.stands, "the service under its new head")
    assert set(platform.pids(platform.status())) == replicas, "replicas were started anew"
    assert right(platform, platform.edit(request(5))) == expected
    assert_made(platform, jobs, expected)
    # It is in charge again: what dies now is replaced.
    (victim,) = platform.pids(platform.status(), "expert-main-erase")
    psutil.Process(victim).kill()
    platform.wait(lambda: victim not in platform.pids(platform.status(), "expert-main-erase"), "the loss")
    platform.wait(platform.stands, "the repaired service")
    assert right(platform, platform.edit(request(0))) == expected


def assert_made(platform, jobs, expected):
    """Every job ends in its picture, once; returns them."""

    async def collect():
        async with platform.crowd() as crowd:
            return [await crowd.job(job) for job in jobs], [await crowd.events(job) for job in jobs]

    ended, told = asyncio.run(collect())
    for job, events in zip(ended, told, strict=True):
        assert job["status"] == "completed", job
        assert events.count("job.completed") == events.count("job.image") == 1
        result = job["result"]
        picture = decode_image(base64.b64decode(result["data"][0]["b64_json"]))
        trace = result["careedit"]["traces"][0]
        assert trace["expert_set_sha256"] == expected
        assert is_edit(picture, platform.alone(request(trace["seed"], steps=JOB_STEPS), expected))
    return ended
