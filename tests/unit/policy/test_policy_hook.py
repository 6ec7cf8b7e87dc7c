import asyncio
import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit_deployments.checks import PolicyCheck, PolicyConfig
from careedit_deployments.errors import PolicyError, PolicyUnavailableError
from careedit_deployments.policy.contract import PolicyInput, PolicyPicture
from careedit_deployments.policy.hook import PolicyHook, load_check
from careedit_deployments.telemetry.metrics import Metrics, Recording

ABOUT = PolicyInput(
    stage="input",
    level="auto",
    instruction="remove it",
    pictures=(PolicyPicture(role="source", picture=Image.new("RGB", (4, 3), "red"), file_sha256="ab"),),
    edit="edit_1",
    tenant="t",
)


class Receiver(BaseHTTPRequestHandler):
    """Answers with what its server is given, and keeps what it got."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers), json.loads(body)))
        status, answer, headers = self.server.answer
        if status is None:
            self.server.release.wait(10)
            return
        self.send_response(status)
        for name, value in {"content-length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.release, server.url = [], threading.Event(), f"http://127.0.0.1:{server.server_port}/check"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


def ask(url, *, hosts=("127.0.0.1",), **fields):
    """The marks that a service's verdict gives."""
    config = PolicyConfig(checks=(PolicyCheck(name="one", use=url, hosts=hosts, **fields),))

    async def asking():
        hook = PolicyHook(config, Metrics(Recording()))
        async with hook.running():
            return await hook.check(ABOUT, ends=time.monotonic() + 30)

    return asyncio.run(asking())


def test_a_service_gets_words_and_pictures_and_its_verdict_counts(receiver, monkeypatch):
    monkeypatch.setenv("POLICY_KEY", "secret")
    receiver.answer = 200, b'{"verdict": "refuse", "reason": "Not here."}', {}
    with pytest.raises(PolicyError, match="Not here"):
        ask(receiver.url, api_key_env="POLICY_KEY")
    [(headers, body)] = receiver.got
    assert headers["authorization"] == "Bearer secret"
    [shown] = body.pop("pictures")
    assert body == {"stage": "input", "level": "auto", "instruction": "remove it", "edit": "edit_1", "tenant": "t"}
    assert (shown["role"], shown["file_sha256"]) == ("source", "ab")
    assert Image.open(io.BytesIO(base64.b64decode(shown["png_base64"]))).getpixel((0, 0)) == (255, 0, 0)
    receiver.answer = 200, b'{"verdict": "mark"}', {}
    assert [mark.reason for mark in ask(receiver.url)] == ["The policy check one marked this input."]


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"", {}),
        (302, b"", {"location": "http://127.0.0.1/"}),
        (200, b"<html>", {}),
        (200, b"[]", {}),
        (200, b'{"verdict": "perhaps"}', {}),
        (200, b'{"verdict": "allow", "score": 1}', {}),
        (200, b" " * 70_000, {}),
        (None, b"", {}),
    ],
)
def test_anything_but_a_verdict_in_time_is_a_failure(receiver, answer):
    receiver.answer = answer
    with pytest.raises(PolicyUnavailableError, match="'one' did not answer"):
        ask(receiver.url, timeout_s=0.2 if answer[0] is None else 5)
    assert ask(receiver.url, timeout_s=0.2 if answer[0] is None else 5, on_failure="allow") == ()


def test_a_private_host_is_called_only_if_the_check_lists_it(receiver):
    with pytest.raises(InputError, match="not on the public internet; allow it in `hosts`"):
        ask(receiver.url, hosts=())
    assert not receiver.got


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use": "nothing"}, "give package.module:function or an http address"),
        ({"use": "careedit.nothing:here"}, "cannot be imported"),
        ({"use": "careedit.files:nothing"}, "cannot be imported"),
        ({"use": "careedit.files:json_digest"}, "correct its options"),
        ({"use": "careedit_deployments.policy.words:words_list", "options": {"fiel": "x"}}, "correct its options"),
        ({"use": "https://policy.example.org", "options": {"a": 1}}, "gets no options"),
        ({"use": "a.b:c", "hosts": ["x"]}, "belong to a service"),
        ({"use": "https://policy.example.org", "api_key_env": "NOT_SET_HERE"}, "NOT_SET_HERE"),
        ({"use": "https://me:pw@policy.example.org"}, "user name"),
    ],
)
def test_a_check_that_cannot_be_made_is_refused_before_serving(fields, words):
    with pytest.raises(InputError, match=words):
        load_check(PolicyCheck(name="one", **fields))


def test_two_checks_of_one_name_are_refused():
    with pytest.raises(InputError, match="its own name"):
        PolicyConfig(checks=[{"name": "one", "use": "a.b:c"}] * 2)


def test_a_check_that_hangs_keeps_no_more_threads_than_its_concurrency():
    config = PolicyCheck(name="one", use="policies:slow", options={"seconds": 0.3}, timeout_s=0.01, concurrency=2)
    before = threading.active_count()

    async def asking():
        hook = PolicyHook(PolicyConfig(checks=(config,)), Metrics(Recording()))
        async with hook.running():
            calls = [hook.check(ABOUT, ends=time.monotonic() + 30) for _ in range(12)]
            return await asyncio.gather(*calls, return_exceptions=True), threading.active_count()

    failed, threads = asyncio.run(asking())
    assert {type(error) for error in failed} == {PolicyUnavailableError}
    assert threads <= before + 2
