"""What a client gets from the proxy where the replica that worked on its request is gone."""

import asyncio
import json

import pytest

from careedit_deployments.cluster.lifecycle import SERVING
from careedit_deployments.cluster.proxy import ResponseEndMiddleware, middlewares

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
SCOPE = {"type": "http", "method": "POST", "path": "/v1/images/edits", "headers": []}


def start(headers=()):
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


def body(data=b"", more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.fixture
def pass_through():
    """`pass_through(*messages, left=False)`: what comes out where the app sends these and then ends."""

    def run(*messages, left=False):
        sent = []

        async def app(scope, receive, send):
            assert (await receive())["type"] == ("http.disconnect" if left else "http.request")
            for message in messages:
                await send(message)

        async def receive():
            return {"type": "http.disconnect"} if left else {"type": "http.request", "body": b""}

        async def send(message):
            sent.append(message)

        asyncio.run(ResponseEndMiddleware(app)(dict(SCOPE), receive, send))
        return sent

    return run


@pytest.mark.parametrize("messages", [(start(), body(b"x")), (start(EVENTS), body(b"x", more=True), body())])
def test_what_is_whole_passes_as_it_is(messages, pass_through):
    assert pass_through(*messages) == list(messages)


def test_no_answer_becomes_one_that_says_to_try_again(pass_through):
    head, told = pass_through()
    assert head["status"] == 503 and (b"retry-after", b"5") in head["headers"]
    error = json.loads(told["body"])["error"]
    assert error["code"] == "unavailable" and "send the request again" in error["message"]


def test_a_stream_that_breaks_off_ends_with_an_error_event(pass_through):
    *_, last = pass_through(start(EVENTS), body(b"event: a\ndata: {}\n\n", more=True))
    assert last["body"].startswith(b"event: error\n") and not last["more_body"]


def test_half_an_answer_of_another_kind_stays_half(pass_through):
    messages = (start([(b"content-type", b"application/json")]), body(b'{"a":', more=True))
    assert pass_through(*messages) == list(messages)


def test_nobody_is_told_anything_who_has_left(pass_through):
    assert pass_through(left=True) == []


def test_serve_finds_the_middleware_by_its_name():
    from ray._common.utils import import_attr

    assert import_attr(SERVING["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]) is middlewares
    assert [one.cls for one in middlewares()] == [ResponseEndMiddleware]


TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, b"Path '/v1/jobs/job_1' not found. Ping http://.../-/routes for available routes."),
        (503, b"Request dropped due to backpressure (num_queued_requests=32, max_queued_requests=32)."),
        (503, b"Deployment(name='ingress', app='careedit') is unavailable because it failed to deploy."),
    ],
)
def test_what_serve_says_by_itself_becomes_an_error_of_the_api_that_says_to_try_again(status, words, pass_through):
    head, told = pass_through({**start(TEXT), "status": status}, body(words))
    assert (head["status"], json.loads(told["body"])["error"]["code"]) == (503, "unavailable")
    assert (b"retry-after", b"5") in head["headers"]


def test_plain_words_of_another_application_pass_as_they_are(pass_through):
    said = ({**start(TEXT), "status": 404}, body(b"no such thing"))
    assert pass_through(*said) == list(said)


def test_a_client_that_reads_nothing_counts_as_gone_and_its_answer_waits_for_nobody():
    async def app(scope, receive, send):
        await receive()
        await send(start(EVENTS))
        for _ in range(3):
            await send(body(b"event: a\ndata: {}\n\n", more=True))
        assert (await receive())["type"] == "http.disconnect", "Serve stops the replica's work"

    asked = []

    async def receive():
        if asked:
            await asyncio.Event().wait()
        asked.append(True)
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    sent = []
    asyncio.run(asyncio.wait_for(ResponseEndMiddleware(app, stalled_s=0.01)(dict(SCOPE), receive, send), 10))
    assert sent == ["http.response.start", "http.response.body"]
