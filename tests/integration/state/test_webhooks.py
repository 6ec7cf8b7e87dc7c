"""Webhooks against a receiver that misbehaves in every way it is told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook

from careedit_deployments.config import JobsConfig, StateConfig
from careedit_deployments.jobs.webhooks import WebhookSender
from careedit_deployments.state.records import WebhookRecord
from careedit_deployments.state.store import Store, open_store
from careedit_deployments.telemetry.metrics import Metrics, Recording
from fake_backend import FakeBackend, picture_file
from served import a_key, serve
from state_records import NOON, Clock, a_job

KEY = b"0123456789abcdef0123456789abcdef"
Script = Callable[["Handler"], None]


class Receiver(ThreadingHTTPServer):
    """Answers each message by the next line of its script, then by 204, and keeps what came."""

    daemon_threads = True

    def __init__(self, *script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.came = threading.Event()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that hung up is what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        (self.server.script.pop(0) if self.server.script else answers(204))(self)
        self.server.came.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def answers(status: int, **headers: str) -> Script:
    def do(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return do


def says_nothing(handler: Handler) -> None:
    handler.server.over.wait(30)


def hangs_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def babbles(handler: Handler) -> None:
    handler.wfile.write(b"this is no HTTP at all\r\n\r\n")
    hangs_up(handler)


def never_ends(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.over.is_set():
        handler.wfile.write(b" " * 65536)


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    servers: list[Receiver] = []

    def begin(*script: Script) -> Receiver:
        server = Receiver(*script)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield begin
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


def send_all(
    tmp_path: Path, url: str, *, times: int, recording: Recording | None = None, **config: Any
) -> tuple[list[WebhookRecord], Clock]:
    """Cancel a job whose webhook goes to `url`, and send what is due, hours passing in between; its states in between."""
    clock = Clock()
    settings = JobsConfig(**{"webhook_hosts": ("127.0.0.1",), "webhook_attempts": 3, **config})
    metrics = Metrics(recording or Recording())

    async def main() -> list[WebhookRecord]:
        store: Store = await open_store(StateConfig(database=f"sqlite+aiosqlite:///{tmp_path}/s.db"), clock=clock)
        sender = WebhookSender(store.webhooks, KEY, settings, metrics, clock=clock, timeout_s=1.0)
        job = await store.jobs.add(a_job(webhook=url))
        await store.jobs.cancel(job.id)
        states = []
        try:
            for _ in range(times):
                claimed = await sender.claim()
                assert claimed is not None
                await sender.send(claimed)
                states += await store.webhooks.of(job.id)
                clock.now += 24 * 3600
            assert (states[-1].status == "pending") is (await sender.claim() is not None)
        finally:
            await sender.close()
            await store.close()
        return states

    return asyncio.run(main()), clock


def test_a_message_is_signed_and_tells_the_end(receive: Any, tmp_path: Path) -> None:
    server = receive()
    (state,), _ = send_all(tmp_path, server.url + "?a=b", times=1)
    ((path, headers, body),) = server.got
    assert (state.status, state.attempt, state.error, path) == ("delivered", 1, None, "/hook?a=b")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (state.id, str(int(NOON)))
    told = json.loads(body)
    assert (told["type"], told["data"]["id"], told["data"]["status"]) == ("job.cancelled", state.job, "cancelled")
    assert told["timestamp"] == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize(
    ("misbehaves", "said"),
    [
        (answers(500), "answered 500"),
        (answers(404), "answered 404"),
        (answers(302, location="http://127.0.0.1:9/elsewhere"), "answered 302"),
        (says_nothing, "took longer than 1 s"),
        (hangs_up, "cannot be reached"),
        (babbles, "cannot be reached"),
    ],
)
def test_a_message_that_was_not_taken_is_sent_again_and_is_the_same_one(
    receive: Any, tmp_path: Path, misbehaves: Script, said: str
) -> None:
    server = receive(misbehaves)
    (first, second), _ = send_all(tmp_path, server.url, times=2)
    assert (first.status, first.attempt) == ("pending", 1)
    assert said in str(first.error)
    assert NOON + 3 < first.next_at <= NOON + 5
    assert (second.status, second.attempt) == ("delivered", 2)
    ids = [headers["webhook-id"] for _, headers, _ in server.got]
    times = [int(headers["webhook-timestamp"]) for _, headers, _ in server.got]
    assert ids == [first.id, first.id]
    assert times == [NOON, NOON + 24 * 3600], "every attempt is signed with its own time"


def test_a_message_is_given_up_after_its_attempts(receive: Any, tmp_path: Path) -> None:
    server = receive(answers(500), answers(503), answers(500))
    recording = Recording()
    states, _ = send_all(tmp_path, server.url, times=3, recording=recording)
    assert [state.status for state in states] == ["pending", "pending", "given_up"]
    assert len(server.got) == 3
    counted = {dict(key)["outcome"]: sum(values) for key, values in recording.values["careedit_webhooks"].items()}
    assert counted == {"retry": 2, "given_up": 1}


def test_a_receiver_that_is_gone_gets_no_more(receive: Any, tmp_path: Path) -> None:
    (state,), _ = send_all(tmp_path, receive(answers(410)).url, times=1)
    assert (state.status, state.error) == ("given_up", "The receiver answered 410.")


def test_an_answer_without_end_is_not_read(receive: Any, tmp_path: Path) -> None:
    (state,), _ = send_all(tmp_path, receive(never_ends).url, times=1)
    assert state.status == "delivered"


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (state,), _ = send_all(tmp_path, f"http://127.0.0.1:{port}/", times=1)
    assert "cannot be reached" in str(state.error)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1"])
def test_a_public_name_that_points_inside_is_refused_when_it_is_sent_to(
    receive: Any, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = receive()

    async def points_inside(loop: Any, host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("93.184.216.34", address)]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", points_inside)
    (state,), _ = send_all(tmp_path, f"http://example.org:{server.server_address[1]}/", times=1, webhook_hosts=())
    assert (state.status, server.got) == ("given_up", [])
    assert "not on the public internet" in str(state.error)


def test_a_served_jobs_end_is_told(receive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", KEY.decode())
    server = receive()
    jobs = {"webhook_secret_env": "HOOK_SECRET", "webhook_hosts": ("127.0.0.1",)}
    with serve(tmp_path, FakeBackend(), jobs=jobs) as served:
        files = {"image": ("a.png", picture_file())}
        inside = httpx2.post(served.url + "/v1/jobs", files=files, data={"prompt": "x", "webhook": "http://10.0.0.1/"})
        assert (inside.status_code, inside.json()["error"]["param"]) == (400, "webhook")
        job = httpx2.post(served.url + "/v1/jobs", files=files, data={"prompt": "x", "webhook": server.url}).json()
        assert server.came.wait(20)
    assert served.recording.total("careedit_webhooks", outcome="delivered") == 1
    told = json.loads(server.got[0][2])
    assert (told["type"], told["data"]["id"], told["data"]["images"]) == ("job.completed", job["id"], 1)


def test_an_endpoint_gets_every_job_of_its_tenant_with_two_signatures_during_a_rotation(
    receive: Any, tmp_path: Path
) -> None:
    (mine, access), (theirs, other) = a_key("me"), a_key("you")
    server = receive(answers(410))
    with (
        serve(
            tmp_path,
            FakeBackend(),
            keys=(access, other),
            auth={"required": True},
            jobs={"webhook_hosts": ("127.0.0.1",), "webhook_endpoints": 1},
        ) as served,
        httpx2.Client(base_url=served.url, headers={"authorization": f"Bearer {mine}"}, timeout=30) as me,
        httpx2.Client(base_url=served.url, headers={"authorization": f"Bearer {theirs}"}, timeout=30) as you,
    ):
        refused = me.post("/v1/webhooks", json={"url": "http://10.0.0.1/"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "url")
        made = me.post("/v1/webhooks", json={"url": server.url})
        assert made.status_code == 201
        endpoint, first = made.json()["id"], made.json()["secret"]
        assert me.post("/v1/webhooks", json={"url": server.url + "/2"}).status_code == 409
        assert [one["secret"] for one in me.get("/v1/webhooks").json()["data"]] == [None]
        rotated = me.post(f"/v1/webhooks/{endpoint}/rotate", json={"overlap_s": 600}).json()
        assert rotated["old_secret_until"] > 0
        for method, path in (("POST", f"/v1/webhooks/{endpoint}/rotate"), ("DELETE", f"/v1/webhooks/{endpoint}")):
            body = {"json": {}} if method == "POST" else {}
            assert you.request(method, path, **body).status_code == 404
        files = {"image": ("a.png", picture_file())}
        assert you.post("/v1/jobs", files=files, data={"prompt": "x", "webhook": server.url}).status_code == 400
        job = me.post("/v1/jobs", files=files, data={"prompt": "x", "webhook": server.url}).json()["id"]
        assert server.came.wait(20)
        deliveries = f"/v1/jobs/{job}/deliveries"
        while (state := me.get(deliveries).json()["data"][0])["status"] != "given_up":
            pass
        assert (state["attempts"], state["last_error"]) == (1, "The receiver answered 410.")
        assert (state["url"], state["endpoint"], state["next_attempt_at"]) == (server.url, endpoint, None)
        assert you.get(deliveries).status_code == you.post(f"{deliveries}/resend").status_code == 404
        server.came.clear()
        assert me.post(f"{deliveries}/resend").json()["data"][0]["status"] == "pending"
        assert server.came.wait(20)
        while (state := me.get(deliveries).json()["data"][0])["status"] != "delivered":
            pass
        assert (state["attempts"], state["last_error"]) == (2, None)
        assert me.delete(f"/v1/webhooks/{endpoint}").json()["deleted"] is True
        plain = me.post("/v1/jobs", files=files, data={"prompt": "x"}).json()["id"]
        while me.get(f"/v1/jobs/{plain}").json()["status"] != "completed":
            pass
        assert me.post(f"/v1/jobs/{plain}/deliveries/resend").status_code == 409
    assert len(server.got) == 2
    assert len({headers["webhook-id"] for _, headers, _ in server.got}) == 1
    for _, headers, body in server.got:
        assert json.loads(body)["data"]["tenant"] == access[0].id
        for secret in (first, rotated["secret"]):  # a receiver with either secret accepts the message
            assert Webhook(secret).verify(body, headers)


def test_receivers_that_never_answer_delay_no_message_of_another_tenant(receive: Any, tmp_path: Path) -> None:
    (mine, access), (theirs, other) = a_key("me"), a_key("you")
    tar_pit, server = receive(*[says_nothing] * 24), receive()
    with (
        serve(
            tmp_path,
            FakeBackend(),
            keys=(access, other),
            auth={"required": True},
            jobs={"webhook_hosts": ("127.0.0.1",)},
        ) as served,
        httpx2.Client(base_url=served.url, headers={"authorization": f"Bearer {mine}"}, timeout=30) as me,
        httpx2.Client(base_url=served.url, headers={"authorization": f"Bearer {theirs}"}, timeout=30) as you,
    ):
        files = {"image": ("a.png", picture_file())}
        for client, goal in ((me, tar_pit), (you, server)):
            assert client.post("/v1/webhooks", json={"url": goal.url}).status_code == 201
        jobs = [me.post("/v1/jobs", files=files, data={"prompt": "x"}).json()["id"] for _ in range(12)]
        while any(me.get(f"/v1/jobs/{job}").json()["status"] != "completed" for job in jobs):
            pass
        while len(tar_pit.got) < 4:
            pass
        you.post("/v1/jobs", files=files, data={"prompt": "x"})
        assert server.came.wait(10), "a time limit of a tar pit is 15 s"
        assert len(tar_pit.got) == 4
        tar_pit.over.set()
