"""`/v1/jobs` over a real server: made, followed, replayed, cancelled, deleted."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.stored import SENT, StoredOrder, loaded_order, resolved_sha256
from careedit_deployments.errors import OverloadedError, UnavailableError
from fake_backend import FakeBackend, picture_file
from served import Served, a_key, serve
from stores import pictures_in

FILES = {"image": ("a.png", picture_file())}
ENDS = {"job.completed", "job.failed", "job.cancelled"}


@pytest.fixture
def painter() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def served(tmp_path: Path, painter: FakeBackend) -> Iterator[Served]:
    with serve(tmp_path, painter) as server:
        yield server


def post(url: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    return httpx2.post(url + "/v1/jobs", files=FILES, data={"prompt": "remove it", **fields}, headers=headers)


def follow(url: str, job: str, after: int | None = None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, name and data of a job's events."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with httpx2.stream("GET", f"{url}/v1/jobs/{job}/events", headers=headers, timeout=30) as stream:
        told: dict[str, str] = {}
        for line in stream.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                told[name] = value
            elif "data" in told:
                yield int(told["id"]), told["event"], json.loads(told["data"])
                told = {}


def ended(url: str, job: str) -> dict[str, Any]:
    (*_, _last) = follow(url, job)
    return httpx2.get(f"{url}/v1/jobs/{job}").json()


def test_a_job_answers_what_the_edit_would_have(served: Served) -> None:
    accepted = post(served.url, n="2", seed="7", output_format="webp", size="24x16")
    assert accepted.status_code == 202, accepted.text
    assert accepted.headers["location"] == f"/v1/jobs/{accepted.json()['id']}"
    job = ended(served.url, accepted.json()["id"])
    assert (job["status"], job["images"], job["n"], job["error"], job["attempt"]) == ("completed", 2, 2, None, 1)
    fields = {"prompt": "remove it", "n": "2", "seed": "7", "output_format": "webp", "size": "24x16"}
    edit = httpx2.post(served.url + "/v1/images/edits", files=FILES, data=fields).json()
    assert job["result"]["data"] == edit["data"]
    assert job["result"]["usage"] == edit["usage"]
    assert [trace["seed"] for trace in job["result"]["careedit"]["traces"]] == [7, 8]
    picture = Image.open(io.BytesIO(base64.b64decode(job["result"]["data"][0]["b64_json"])))
    assert (picture.format, picture.size) == ("WEBP", (24, 16))


def test_a_full_queue_is_said_at_once_and_leaves_nothing_behind(tmp_path: Path, painter: FakeBackend) -> None:
    painter.pause = 30.0
    with serve(tmp_path, painter, jobs={"workers": 1, "max_queued": 2}) as served:
        begun = post(served.url).json()["id"]
        while httpx2.get(f"{served.url}/v1/jobs/{begun}").json()["status"] == "queued":
            time.sleep(0.02)
        accepted = [post(served.url, {"Idempotency-Key": f"k{i}"}) for i in range(2)]
        refused = post(served.url), post(served.url, {"Idempotency-Key": "k3"})
        for answer in refused:
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
            assert answer.json()["error"]["code"] == "server_overloaded"
        replayed = post(served.url, {"Idempotency-Key": "k1"})
        assert (replayed.status_code, replayed.json()["id"]) == (202, accepted[1].json()["id"])
        jobs = httpx2.get(served.url + "/v1/jobs").json()["data"]
        assert len(list((tmp_path / "blobs/jobs").iterdir())) == len(jobs) == 3
        assert served.recording.total("careedit_refusals", reason="queue") >= 2
        assert served.recording.values["careedit_jobs_waiting"][()], "somebody looks how many wait"
        painter.pause = 0.0
        assert httpx2.delete(f"{served.url}/v1/jobs/{begun}").status_code == 200
        assert {ended(served.url, job.json()["id"])["status"] for job in accepted} == {"completed"}


def test_json_bodies_make_jobs_too(served: Served) -> None:
    url = "data:image/png;base64," + base64.b64encode(picture_file()).decode()
    body = {"prompt": "remove it", "images": [{"image_url": url}], "partial_images": 2, "steps": 3}
    accepted = httpx2.post(served.url + "/v1/jobs", json=body)
    assert accepted.status_code == 202, accepted.text
    partials = [data for _, name, data in follow(served.url, accepted.json()["id"]) if name == "job.partial_image"]
    assert [partial["index"] for partial in partials] == [0, 1]
    assert Image.open(io.BytesIO(base64.b64decode(partials[0]["b64_json"]))).size == (48, 32)


def test_events_are_replayed_from_any_number_on_and_then_end(served: Served) -> None:
    job = post(served.url, n="2").json()["id"]
    live = list(follow(served.url, job))
    assert [name for _, name, _ in live][:2] == ["job.queued", "job.started"]
    assert [name for _, name, _ in live if name in ("job.image", *ENDS)] == ["job.image", "job.image", "job.completed"]
    assert [number for number, _, _ in live] == list(range(1, len(live) + 1))
    assert list(follow(served.url, job)) == live
    assert list(follow(served.url, job, after=4)) == live[4:]
    over = httpx2.get(f"{served.url}/v1/jobs/{job}/events", headers={"Last-Event-ID": str(len(live))})
    assert over.status_code == 204
    bad = httpx2.get(f"{served.url}/v1/jobs/{job}/events", headers={"Last-Event-ID": "x"})
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_an_idempotency_key_repeats_the_job_and_refuses_another_body(served: Served, painter: FakeBackend) -> None:
    key = {"Idempotency-Key": "order-17"}
    first = post(served.url, key)
    again = post(served.url, key)
    assert again.json()["id"] == first.json()["id"]
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert "idempotency-replayed" not in first.headers
    other = post(served.url, key, seed="1")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")
    ended(served.url, first.json()["id"])
    assert len(painter.calls) == 1
    (scope,) = served.run(lambda: served.services.blobs.scopes("jobs"))
    assert scope == f"jobs/{first.json()['id']}"
    assert post(served.url, {"Idempotency-Key": "a b"}).json()["error"]["param"] == "Idempotency-Key"


def as_json(**fields: Any) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(picture_file()).decode()
    return {"prompt": "remove it", "images": [{"image_url": url}], **fields}


def test_an_idempotency_key_outlives_another_configuration(tmp_path: Path) -> None:
    key = {"Idempotency-Key": "order-17"}
    with serve(tmp_path, FakeBackend(), quality={"low": {"steps": 2}}) as served:
        first = post(served.url, key, quality="low", partial_images="1").json()["id"]
        ended(served.url, first)
    changed = {
        "quality": {"low": {"steps": 3}},
        "limits": {"steps": 1, "pixels": 10},
        "http": {"compatibility": "strict"},
    }
    with serve(tmp_path, FakeBackend("other"), arms={"other": {"expert_set": "tiny"}}, **changed) as served:
        again = post(served.url, key, quality="low", partial_images="1")
        assert (again.status_code, again.headers.get("idempotency-replayed")) == (202, "true"), again.text
        assert again.json()["id"] == first
        body = as_json(quality="low", partial_images=1, n=1, stream=False)
        in_json = httpx2.post(served.url + "/v1/jobs", json=body, headers=key)
        assert in_json.json()["id"] == first, "a form and JSON are one request"
        for other in ({"quality": "high"}, {"quality": "low", "n": "2"}, {"quality": "low", "prompt": "remove  it"}):
            refused = post(served.url, key, **{"partial_images": "1", **other})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict"), other
        assert httpx2.get(f"{served.url}/v1/jobs/{first}").json()["status"] == "completed"


def test_a_job_from_before_hashes_of_what_was_sent_keeps_its_key(tmp_path: Path) -> None:
    key = {"Idempotency-Key": "order-17"}
    with serve(tmp_path, FakeBackend(), quality={"low": {"steps": 2}}) as served:
        jobs, blobs = served.services.store.jobs, served.services.blobs
        made = post(served.url, None, quality="low", user="anna").json()["id"]
        ended(served.url, made)
        job = served.run(lambda: jobs.get(made))
        stored = StoredOrder(**{**job.order, "user": "anna", "request": {**job.order["request"], "seed": None}})

        async def resolve() -> str:
            async with loaded_order(stored, blobs, Codecs(), owner=job.owner, request_id=made) as order:
                return resolved_sha256(order, stored.output, None)

        old = served.run(resolve)
        assert len(old) == len(job.body_sha256) == 64
        assert not old.startswith(SENT)
        served.run(lambda: jobs.delete(made))
        kept = job.model_copy(update={"body_sha256": old, "idempotency_key": "order-17"})
        served.run(lambda: jobs.add(kept))
    with serve(tmp_path, FakeBackend(), quality={"low": {"steps": 3}}) as served:
        again = post(served.url, key, quality="low", user="anna")
        assert (again.status_code, again.json().get("id")) == (202, made), again.text
        for other in ({"user": "berta"}, {"steps": "3"}, {"output_format": "webp"}, {"size": "24x16"}):
            assert post(served.url, key, **{"quality": "low", "user": "anna", **other}).status_code == 409, other


def test_a_running_job_is_cancelled_within_a_step(served: Served, painter: FakeBackend) -> None:
    painter.pause = 0.05
    job = post(served.url, steps="100").json()["id"]
    events = follow(served.url, job)
    assert next(name for _, name, _ in events if name == "job.progress")
    assert httpx2.delete(f"{served.url}/v1/jobs/{job}").json()["status"] in ("running", "cancelled")
    seen = painter.steps
    assert [name for _, name, _ in events][-1] == "job.cancelled"
    assert painter.steps <= seen + 1
    assert painter.closed == 1
    assert httpx2.get(f"{served.url}/v1/jobs/{job}").json()["status"] == "cancelled"


def test_deleting_an_ended_job_leaves_no_byte(served: Served, tmp_path: Path) -> None:
    words = "remove the xylophone"
    job = post(served.url, prompt=words, user="somebody-in-particular").json()["id"]
    ended(served.url, job)
    assert pictures_in(tmp_path)
    assert httpx2.delete(f"{served.url}/v1/jobs/{job}").json() == {"id": job, "object": "job.deleted", "deleted": True}
    assert httpx2.get(f"{served.url}/v1/jobs/{job}").status_code == 404
    assert pictures_in(tmp_path) == []
    for path in tmp_path.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert b"xylophone" not in data, path
        assert b"somebody-in-particular" not in data, path


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"webhook": "https://example.org/hook"}, "webhook"),
        ({"session": "session_1"}, "session"),
        ({"steps": "500"}, "steps"),
        ({"expert": "nobody"}, "expert"),
        ({"size": "large"}, "size"),
        ({"nonsense": "1"}, "nonsense"),
    ],
)
def test_what_could_never_be_edited_is_refused_at_once(served: Served, fields: dict[str, str], param: str) -> None:
    refused = post(served.url, **fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert httpx2.get(served.url + "/v1/jobs").json()["data"] == []
    assert served.run(lambda: served.services.blobs.scopes("jobs")) == []


def test_a_job_that_fails_says_why(served: Served, painter: FakeBackend) -> None:
    painter.fails = RuntimeError("a secret of the inside")
    job = ended(served.url, post(served.url).json()["id"])
    assert (job["status"], job["error"]["code"], job["result"]) == ("failed", "internal_error", None)
    assert "secret" not in job["error"]["message"]


@pytest.mark.parametrize("error", [UnavailableError("No replica."), OverloadedError("Full.", retry_after=0.01)])
def test_a_job_outlives_a_platform_that_is_full_or_lost_a_replica(
    served: Served, painter: FakeBackend, error: Exception
) -> None:
    painter.fails, painter.fails_after = error, 2
    job = post(served.url, steps="4", seed="5").json()["id"]
    events = follow(served.url, job)
    while not painter.closed:
        next(events)
    painter.fails = None
    told = [name for _, name, _ in events]
    assert told[-1] == "job.completed"
    assert {call.request.seed for call in painter.calls} == {5}
    assert len(painter.calls) >= 2


def test_jobs_are_listed_in_pages_and_only_to_their_owner(tmp_path: Path, painter: FakeBackend) -> None:
    (mine, record), (other, second) = a_key("me"), a_key("you")
    with serve(tmp_path, painter, keys=(record, second), auth={"required": True}) as served:
        headers = {"Authorization": f"Bearer {mine}"}
        ids = [post(served.url, headers).json()["id"] for _ in range(3)]
        page = httpx2.get(served.url + "/v1/jobs?limit=2", headers=headers).json()
        rest = httpx2.get(f"{served.url}/v1/jobs?after={page['last_id']}", headers=headers).json()
        assert [job["id"] for job in page["data"] + rest["data"]] == ids[::-1]
        assert (page["has_more"], rest["has_more"]) == (True, False)
        theirs = {"Authorization": f"Bearer {other}"}
        assert httpx2.get(served.url + "/v1/jobs", headers=theirs).json()["data"] == []
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            answer = httpx2.request(method, f"{served.url}/v1/jobs/{ids[0]}{path}", headers=theirs)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert httpx2.get(served.url + "/v1/jobs").status_code == 401


def test_queued_jobs_run_after_a_restart(tmp_path: Path, painter: FakeBackend) -> None:
    painter.pause = 0.05
    with serve(tmp_path, painter, jobs={"workers": 1}) as served:
        ids = [post(served.url, steps="40").json()["id"] for _ in range(3)]
        next(follow(served.url, ids[0], after=1))
        statuses = [httpx2.get(f"{served.url}/v1/jobs/{job}").json() for job in ids]
        assert [job["status"] for job in statuses] == ["running", "queued", "queued"]
        assert [job["ahead"] for job in statuses] == [None, 0, 1]
    painter.pause = 0.0
    with serve(tmp_path, painter, jobs={"workers": 1}) as served:
        assert [ended(served.url, job)["status"] for job in ids] == ["completed"] * 3


def test_twenty_followers_of_one_job_see_the_same(served: Served, painter: FakeBackend) -> None:
    painter.pause = 0.02
    job = post(served.url, steps="10").json()["id"]
    seen: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: seen.append([name for _, name, _ in follow(served.url, job)]))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 20
    assert all(told == seen[0] for told in seen)
    assert seen[0][-1] == "job.completed"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"not an image")])
def test_a_job_whose_image_is_lost_says_so_and_its_events_end(damage: Any, served: Served, tmp_path: Path) -> None:
    job = post(served.url, output_format="webp").json()["id"]
    ended(served.url, job)
    for file in (tmp_path / f"blobs/jobs/{job}").glob("*.webp"):
        damage(file)
    *_, image, last = list(follow(served.url, job))
    assert image[2]["error"]["code"] == "image_lost" and last[1] == "job.completed"
    answer = httpx2.get(f"{served.url}/v1/jobs/{job}")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("completed", "image_lost")
