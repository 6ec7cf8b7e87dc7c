"""The Python client: a method for every public route, and errors that are sentences."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zipfile import ZipFile

import httpx2
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.records import EditRequest
from careedit.scoring import ScoreRequest
from careedit_deployments.client import Client, result_of
from careedit_deployments.errors import OverloadedError, ServingError
from fake_backend import FakeBackend
from served import Served, serve
from webhooks import receiving

PICTURE = Image.new("RGB", (48, 32), (200, 40, 90))
REQUEST = EditRequest(image=PICTURE, instruction="remove it", seed=7, steps=2)
WITHOUT_METHOD = {
    "POST /v1/files": "OpenAI's client has it",
    "GET /v1/files": "OpenAI's client has it",
    "GET /v1/files/{file_id}": "OpenAI's client has it",
    "GET /v1/files/{file_id}/content": "OpenAI's client has it",
    "DELETE /v1/files/{file_id}": "OpenAI's client has it",
    "POST /v1/batches": "OpenAI's client has it",
    "GET /v1/batches": "OpenAI's client has it",
    "GET /v1/batches/{batch_id}": "OpenAI's client has it",
    "POST /v1/batches/{batch_id}/cancel": "OpenAI's client has it",
    "GET /healthz": "a probe of whoever runs the server, which looks at the status only",
    "GET /readyz": "another one",
    "GET /v1/images/files/{file_id}/{name}": "an answer has the whole address, which needs no key",
}
"""Routes that a user of the client does not call, and why."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    jobs = {"webhook_hosts": ["127.0.0.1"]}
    with serve(tmp_path, FakeBackend(), jobs=jobs) as server:
        yield server


def edits_and_feedback(client: Client) -> None:
    edited = client.edit(REQUEST)
    (first, second) = (client.answer(REQUEST, model="tiny") for _ in range(2))
    assert result_of(first) == edited == result_of(second)
    assert edited.trace.seed == 7 and edited.image.getpixel((3, 3)) == (55, 215, 165)
    assert client.route(REQUEST).routing.weights == {"erase": 1.0}
    pair = ScoreRequest(source=PICTURE, edited=edited.image, instruction="remove it")
    assert [score.overall for score in client.score([pair] * 2)] == [1.0] * 2
    assert client.rate(first.careedit.id, 5, comment="Good.").id.startswith("feedback_")
    assert client.compare((first.careedit.id, second.careedit.id), "tie").id.startswith("feedback_")


def jobs_and_webhooks(client: Client) -> None:
    with receiving() as receiver:
        endpoint = client.add_endpoint(receiver.url)
        assert endpoint.secret is not None and client.endpoints() == [endpoint.model_copy(update={"secret": None})]
        job = client.queue(REQUEST, idempotency_key="one")
        assert client.queue(REQUEST, idempotency_key="one").id == job.id
        assert [event.name for event in client.follow(job.id)][-1] == "job.completed"
        ended = client.job(job.id)
        assert ended.result is not None and result_of(ended.result).trace.seed == 7
        (delivery,) = client.deliveries(job.id)
        while client.deliveries(job.id)[0].status == "pending":
            pass
        (again,) = client.resend(job.id)
        assert (again.id, again.endpoint) == (delivery.id, endpoint.id)
    renewed = client.rotate_secret(endpoint.id, overlap_s=60)
    assert renewed.secret not in (None, endpoint.secret) and renewed.old_secret_until is not None
    client.delete_endpoint(endpoint.id)
    assert client.endpoints() == []
    assert client.jobs(limit=1).data[0].id == job.id
    client.delete_job(job.id)
    assert client.jobs().data == []


def sessions(client: Client) -> None:
    session = client.start_session(PICTURE, user="a user")
    assert [one.id for one in client.sessions().data] == [session.id]
    once = client.edit_in_session(session.id, REQUEST)
    twice = client.edit_in_session(session.id, REQUEST)
    assert (once.image.getpixel((3, 3)), twice.image) == ((55, 215, 165), PICTURE)
    first, last = client.turns(session.id).data
    assert client.undo(session.id).head == first.id == last.parent
    other = client.edit_in_session(session.id, REQUEST, turn=last.id)
    assert other.image == once.image and client.session(session.id).turns == 3
    assert client.turn(session.id, first.id).b64_json is not None
    client.delete_session(session.id)
    assert client.sessions().data == []


def users(client: Client) -> None:
    client.start_session(PICTURE, user="a user?")
    assert "manifest.json" in ZipFile(io.BytesIO(client.export_user("a user?"))).namelist()
    assert client.erase_user("a user?").kinds["sessions"].count == 1
    assert client.sessions().data == []


def models(client: Client) -> None:
    assert client.models() == [client.model("tiny")]
    assert [expert.name for expert in client.experts()] == ["erase", "style"]
    assert [arm.arm for arm in client.arms(hours=1, limit=3).data] == ["tiny"]


def test_every_public_route_has_a_method_that_works_or_a_reason_to_have_none(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.app is not None
    routes = {
        f"{method.upper()} {path}": re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        for path, operations in server.app.openapi()["paths"].items()
        for method in operations
    }
    called = set()
    send = httpx2.Client.send

    def seen(client: httpx2.Client, request: httpx2.Request, **options: object) -> httpx2.Response:
        path = request.url.path
        called.update(
            name for name, route in routes.items() if name.startswith(f"{request.method} ") and route.fullmatch(path)
        )
        return send(client, request, **options)

    monkeypatch.setattr(httpx2.Client, "send", seen)
    with Client(server.url, timeout=20) as client:
        for use in (edits_and_feedback, jobs_and_webhooks, sessions, users, models):
            use(client)
    assert called == routes.keys() - WITHOUT_METHOD.keys()
    assert WITHOUT_METHOD.keys() <= routes.keys()


def test_what_the_server_refuses_is_its_sentence(server: Served) -> None:
    with Client(server.url) as client:
        for refused, words in (
            (lambda: client.model("a?b#"), r"The model 'a\?b#' does not exist; GET /v1/models lists them\."),
            (lambda: client.rotate_secret("endpoint_none"), r"The webhook endpoint 'endpoint_none' does not exist"),
            (lambda: client.add_endpoint("http://10.0.0.1/"), r"10\.0\.0\.1"),
            (lambda: client.resend("job_none"), r"The job 'job_none' does not exist"),
            (lambda: client.edit(REQUEST, model="other"), r"'other' does not exist"),
        ):
            with pytest.raises(InputError, match=words):
                refused()


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """The address of a server that answers everything in the same way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (502, b"<html>Bad gateway</html>", ServingError, r"The server answered 502; see its log\."),
        (404, b"[]", InputError, r"The server answered 404; see its log\."),
        (429, b'{"error": {"message": "Full; try again."}}', OverloadedError, r"Full; try again\."),
        (
            200,
            b"<html>Log in</html>",
            ServingError,
            r"The answer to GET /v1/models is not one of careedit; check the address",
        ),
        (
            200,
            b'{"data": [{"id": 1}]}',
            ServingError,
            r"The answer to GET /v1/models is not one of careedit; check the address",
        ),
    ],
)
def test_what_is_between_client_and_server_is_told_in_a_sentence(status, body, kind, words) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    with (
        answering(status, body, **{"retry-after": date}) as url,
        Client(url) as client,
        pytest.raises(kind, match=words),
    ):
        client.models()


def test_a_server_that_does_not_run_is_told_in_a_sentence() -> None:
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(ServingError, match=r"does not answer .*whether it runs"),
    ):
        client.models()
