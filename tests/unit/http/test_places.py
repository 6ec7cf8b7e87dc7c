"""One caller does not hold the server: requests and streams at once are counted per key, and bodies have a deadline."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from contextlib import AsyncExitStack, ExitStack
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.requests import ClientDisconnect

from careedit.errors import InputError
from careedit_deployments.client import Client
from careedit_deployments.errors import ConcurrencyError, OverloadedError, SlowBodyError
from careedit_deployments.http import job_events
from careedit_deployments.http.admission import LimitedBody
from careedit_deployments.http.auth import Caller
from careedit_deployments.http.limits import Limiter
from careedit_deployments.http.sse import EventStreamResponse
from careedit_deployments.listening import Limits
from fake_backend import FakeBackend, picture_file
from served import a_key, serve
from slots import BOUNDARY, follows, half_a_body, held, rest, status

FORM = f"multipart/form-data; boundary={BOUNDARY}"
FILES = {"image": ("a.png", picture_file())}
LIMITS = {"requests_in_progress": 4, "event_streams": 2}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server with few places, and two keys."""
    (one, first), (two, second) = a_key("one"), a_key("two")
    painter = FakeBackend()
    with serve(
        tmp_path_factory.mktemp("small"),
        painter,
        keys=(first, second),
        auth={"required": True},
        limits=LIMITS,
        ingress={"max_ongoing_requests": 12},
    ) as server:
        yield server, painter, one, two


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server that waits for no body."""
    limits = {"body_grace_s": 0.3, "body_s": 1.5, "body_rate": 100_000}
    with serve(tmp_path_factory.mktemp("hasty"), FakeBackend(), limits=limits) as server:
        yield server


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def edit(server, key, **options):
    return httpx2.post(
        server.url + "/v1/images/edits", files=FILES, data={"prompt": "x"}, headers=bearer(key), **options
    )


@pytest.fixture
def long_job(small):
    """A job of the first key that runs for as long as the test does."""
    server, painter, one, _ = small
    painter.pause = 0.1
    made = httpx2.post(server.url + "/v1/jobs", files=FILES, data={"prompt": "x", "steps": "50"}, headers=bearer(one))
    yield made.json()["id"]
    painter.pause = 0.0
    httpx2.delete(f"{server.url}/v1/jobs/{made.json()['id']}", headers=bearer(one))


def answered(connections, count):
    """The first `count` connections on which something comes."""
    found = []
    while len(found) < count:
        ready, _, _ = select.select([one for one in connections if one not in found], [], [], 10)
        assert ready
        found += ready
    return found


def free(server):
    """Wait until nothing is in progress: a client that left is noticed a moment later."""
    end = time.monotonic() + 10
    while server.app.state.limiter.in_progress:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_callers_share_the_places_and_those_who_hold_few_find_one_whatever_the_others_do():
    limiter = Limiter(Limits(), places=256)
    with ExitStack() as stack:

        def fill(name, most=256):
            for count in range(most):
                with ExitStack() as request:
                    try:
                        request.enter_context(limiter.place())
                        request.enter_context(limiter.request(Caller(id=name)))
                    except ConcurrencyError as refused:
                        assert refused.retry_after > 0
                        return count
                    stack.push(request.pop_all())
            return most

        assert fill("greedy-0") == 128, "half of all, alone"
        assert fill("greedy-1") >= 32
        for i in range(2, 8):
            fill(f"greedy-{i}")
        assert [fill(f"modest-{i}", most=2) for i in range(20)] == [2] * 20
    assert limiter.in_progress == 0


def test_a_server_without_a_place_says_so():
    limiter = Limiter(Limits(), places=1)
    with limiter.place(), pytest.raises(OverloadedError, match="1 requests in progress"), limiter.place():
        pass
    with limiter.place():
        assert limiter.in_progress == 1


def test_fetches_without_a_key_take_half_of_the_places():
    limiter = Limiter(Limits(), places=8)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(limiter.fetch())
        with pytest.raises(OverloadedError, match=r"sends as many images at once as it can"):
            stack.enter_context(limiter.fetch())
        assert limiter.in_progress == 4
        stack.enter_context(limiter.place())
    assert limiter.in_progress == 0
    with limiter.fetch():
        assert limiter.in_progress == 1


def test_open_streams_of_a_key_have_a_limit_of_their_own_and_leave_room_for_its_edits(small, long_job):
    server, _, one, two = small
    with held(server.url, [follows(f"/v1/jobs/{long_job}/events", one)] * 2) as streams:
        assert [status(stream) for stream in streams] == [200, 200]
        refused = httpx2.get(f"{server.url}/v1/jobs/{long_job}/events", headers=bearer(one))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "concurrency_limit_exceeded"
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx2.get(server.url + "/v1/jobs", headers=bearer(one)).status_code == 200
        assert edit(server, two).status_code == 200
    free(server)


def test_half_sent_bodies_of_a_key_fill_its_places_and_no_others(small):
    server, _, one, two = small
    paths = ["/v1/images/edits", "/v1/jobs", "/v1/sessions", "/v1/routes", "/v1/images/edits", "/v1/scores"]
    with held(server.url, [half_a_body(path, one) for path in paths]) as bodies:
        assert [status(body) for body in answered(bodies, 2)] == [429, 429]
        assert httpx2.get(server.url + "/v1/jobs", headers=bearer(one)).status_code == 429, "looking counts, too"
        assert edit(server, two).status_code == 200
        assert httpx2.get(server.url + "/healthz").status_code == 200
        assert server.app.state.limiter.in_progress == 4
    free(server)
    assert edit(server, one).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((path, FORM) for path in ("/v1/images/edits", "/v1/jobs", "/v1/sessions", "/v1/routes")),
        *((path, "application/json") for path in ("/v1/images/edits", "/v1/scores", "/v1/feedback")),
    ],
)
def test_a_body_that_does_not_come_is_refused_in_the_same_words_whatever_reads_it(hasty, path, kind):
    before = hasty.recording.total("careedit_refusals", reason="slow")
    with held(hasty.url, [half_a_body(path, kind=kind)]) as (body,):
        head, _, told = rest(body).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408") and b"connection: close" in head.lower()
    assert json.loads(told)["error"]["code"] == "request_timeout"
    assert hasty.recording.total("careedit_refusals", reason="slow") == before + 1
    free(hasty)


def test_a_body_that_drips_is_cut_off(hasty):
    address = urlsplit(hasty.url)
    form = httpx2.Request("POST", hasty.url, files=FILES, data={"prompt": "x" * 2000})
    content = form.read()
    head = "POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {form.headers['content-type']}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head.encode())
        for byte in content[:200]:
            connection.sendall(bytes([byte]))
            if select.select([connection], [], [], 0.02)[0]:  # it is cut off
                break
        assert status(connection) == 408


def test_a_body_may_be_slow_at_first_must_then_keep_its_pace_and_ends_in_time():
    now, pace = [0.0], [0]

    async def receive():
        return {"type": "http.request", "body": b"x" * pace[0], "more_body": True}

    async def after(*paces):
        """Whether a body that brings so much in each of some periods of 10 seconds is still taken."""
        now[0] = 0.0
        body = LimitedBody(receive, Limits(body_grace_s=20, body_rate=1000, body_s=60), clock=lambda: now[0])
        for pace[0] in paces:
            now[0] += 10
            try:
                await body.receive()
                await asyncio.sleep(0)
            except SlowBodyError:
                return False
        return body.seconds_left > 0

    async def check():
        assert await after(0)
        assert not await after(0, 0)
        assert await after(5_000, 5_000)
        assert not await after(5_000, 5_000, 0, 0)
        assert await after(20_000, 0, 20_000, 0)
        assert not await after(*[50_000] * 6)

    asyncio.run(check())


def test_a_stream_of_a_job_ends_after_its_time_and_the_client_goes_on_without_losing_an_event(tmp_path, monkeypatch):
    painter = FakeBackend()
    painter.pause = 0.15
    with serve(tmp_path, painter, limits={"event_stream_s": 0.4}) as server, httpx2.Client(base_url=server.url) as http:
        job = http.post("/v1/jobs", files=FILES, data={"prompt": "x", "steps": "16"}).json()["id"]
        first = http.get(f"/v1/jobs/{job}/events").text
        assert "job.completed" not in first
        assert first.endswith("retry: 1000\n\n"), "an EventSource comes again by itself"
        with Client(server.url) as client:
            monkeypatch.setattr("careedit_deployments.client.time.sleep", lambda _: None)
            events = list(client.follow(job))
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            assert [event.name for event in events][-2:] == ["job.image", "job.completed"]
            assert sum(event.name == "job.progress" for event in events) == 16
            assert [event.number for event in client.follow(job, after=len(events) - 1)] == [len(events)]
            assert list(client.follow(job, after=len(events))) == []
            with pytest.raises(InputError, match="The job 'job_none' does not exist"):
                list(client.follow("job_none"))


def test_a_stream_ends_after_some_megabytes_because_what_is_not_read_waits_in_memory(small, monkeypatch):
    server, _, one, _ = small
    monkeypatch.setattr(job_events, "STREAM_BYTES", 10)
    with httpx2.Client(base_url=server.url, headers=bearer(one)) as http:
        job = http.post("/v1/jobs", files=FILES, data={"prompt": "x", "steps": "2"}).json()["id"]
        with Client(server.url, key=one) as client:
            monkeypatch.setattr("careedit_deployments.client.time.sleep", lambda _: None)
            names = [event.name for event in client.follow(job)]
        assert names[0] == "job.queued" and names[-1] == "job.completed"
        assert http.get(f"/v1/jobs/{job}/events").text.count("\nevent:") < len(names)


def test_a_stream_whose_client_does_not_read_gives_its_place_back_after_its_time():
    given_back = []

    async def chunks():
        while True:
            yield b": x\n\n"

    async def never(*_):
        await asyncio.Event().wait()

    async def follow():
        resources = AsyncExitStack()
        resources.callback(given_back.append, True)
        await EventStreamResponse(chunks(), resources=resources, limit_s=0.05)({"type": "http"}, never, never)

    with pytest.raises(ClientDisconnect):
        asyncio.run(follow())
    assert given_back == [True]


def test_a_server_that_stops_refuses_what_is_new_ends_its_streams_and_finishes_the_rest(tmp_path):
    painter = FakeBackend()
    painter.pause = 0.3
    with serve(tmp_path, painter) as server, httpx2.Client(base_url=server.url) as http:
        stopping = server.services.stopping
        job = http.post("/v1/jobs", files=FILES, data={"prompt": "x", "steps": "50"}).json()["id"]
        with held(server.url, [follows(f"/v1/jobs/{job}/events")]) as (stream,):
            assert status(stream) == 200
            server.loop.call_soon_threadsafe(stopping.begin)
            while b"retry: 1000" not in stream.recv(65536):
                pass
        refused = http.post("/v1/images/edits", files=FILES, data={"prompt": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").json()["reasons"]["server"] == "The server is stopping."
        end = time.monotonic() + 20
        while stopping.left:
            assert time.monotonic() < end
            time.sleep(0.02)
        kept = server.run(lambda: server.services.store.jobs.get(job))
        assert (kept.status, kept.attempt) == ("queued", 0), "it was given back, and the attempt does not count"
