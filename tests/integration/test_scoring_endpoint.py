"""A chat endpoint as a judge, over real HTTP, against a server that misbehaves in every way that endpoints do."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import threading
from typing import Any

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.scoring.openai import EndpointAsker
from careedit.scoring.openai_http import MAX_BYTES, EndpointConfig
from careedit.scoring.scorer import Question
from faulty_endpoint import (
    GOOD,
    KEY,
    WRITTEN,
    Behaviour,
    Clock,
    Handler,
    Server,
    ask,
    asker,
    completion,
    drips,
    endless,
    fails,
    hangs_up,
    questions,
    says,
    slow,
    truncated,
)


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running: list[tuple[Server, threading.Thread]] = []

    def start(*script: Behaviour) -> Server:
        server = Server(*script)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_probability_of_yes_comes_from_the_yes_and_no_tokens(serve):
    assert ask(serve(says(completion(tokens={"Yes": 0.5, " yes": 0.1, "No": 0.2, "Maybe": 0.2})))).yes == pytest.approx(
        0.75
    )


def test_a_question_is_sent_as_lead_pictures_in_order_and_text(serve):
    server = serve(GOOD)
    pictures = tuple(Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (10, 200))
    asker(server).ask([Question(lead="Look at the light.", images=pictures, text="Is it brighter?")])
    (body,) = server.bodies
    lead, *sent, text = body["messages"][0]["content"]
    assert lead == {"type": "text", "text": "Look at the light."}
    assert text == {"type": "text", "text": "Is it brighter?"}
    for part, picture in zip(sent, pictures, strict=True):
        kind, data = part["image_url"]["url"].split(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture.tobytes()
    assert {name: body[name] for name in ("model", "max_tokens", "logprobs", "top_logprobs", "temperature")} == {
        "model": "judge",
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
        "temperature": 0,
    }


@pytest.mark.parametrize("text", ["Is it a café? ☃ 😀", "half a pair \ud800"])
def test_any_text_that_python_holds_is_sent(serve, text):
    server = serve(GOOD)
    (answer,) = asker(server).ask([Question(images=(Image.new("RGB", (8, 8)),), text=text)])
    assert answer.error is None
    assert server.bodies[0]["messages"][0]["content"][-1]["text"] == text


def test_extra_fields_go_over_those_of_the_request(serve):
    server = serve(GOOD)
    ask(server, extra={"max_tokens": None, "max_completion_tokens": 1, "top_logprobs": 5})
    assert "max_tokens" not in server.bodies[0]
    assert (server.bodies[0]["max_completion_tokens"], server.bodies[0]["top_logprobs"]) == (1, 5)


@pytest.mark.parametrize(("written", "yes"), [("yes", 0.75), ("no", 0.25)])
def test_strict_json_is_read_where_it_is_asked_for(serve, written, yes):
    server = serve(says(completion(json.dumps({"answer": written, "confidence": 0.75}))))
    assert ask(server, answers="json").yes == yes
    assert server.bodies[0]["response_format"]["json_schema"]["strict"] is True
    assert "logprobs" not in server.bodies[0]


@pytest.mark.parametrize(
    ("first", "way"),
    [
        (GOOD, "logprobs"),
        (says(completion("Yes")), "json"),
        (says({"error": {"message": "logprobs are not supported"}}, 400), "json"),
    ],
)
def test_the_way_of_answering_is_settled_once_by_what_is_offered(serve, first, way):
    server = serve(first, GOOD if way == "logprobs" else WRITTEN)
    judge = asker(server, answers="auto", revision="r1")
    assert judge.revision == "r1/auto"
    answers = judge.ask(questions(2)) + judge.ask(questions(1))
    assert [answer.yes for answer in answers] == pytest.approx([0.75 if way == "logprobs" else 0.25] * 3)
    assert judge.revision == f"r1/{way}"
    assert len(server.bodies) == 4


def test_an_endpoint_that_answers_nothing_is_asked_to_settle_only_once_per_call(serve):
    server = serve(fails(404))
    answers = asker(server, answers="auto").ask(questions(5))
    assert all("does not know the model" in str(answer.error) for answer in answers)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("trouble", [fails(429), fails(500), fails(503), truncated, hangs_up])
def test_what_may_pass_is_tried_again(serve, trouble):
    clock = Clock()
    server = serve(trouble, trouble, GOOD)
    assert ask(server, clock).yes == pytest.approx(0.75)
    assert (len(server.bodies), len(clock.waits)) == (3, 2)


@pytest.mark.parametrize("trouble", [slow, drips])
def test_a_reply_that_takes_too_long_is_an_error(serve, trouble):
    server = serve(trouble)
    answer = ask(server, timeout=0.2, attempts=2)
    assert answer.yes is None
    assert "no whole reply within 0.2 s (all 2 attempts failed)" in answer.error
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (fails(400), "status 400 (no luck today)"),
        (fails(401), "needs a key, and none is configured"),
        (fails(403), "does not accept the key"),
        (fails(404), "does not know the model 'judge'"),
        (says(b"", 307, location="http://elsewhere/v1"), "redirects to http://elsewhere/v1"),
        (says(b"<html>Welcome</html>"), "is not a chat completion"),
        (says(b"\x00\xff\xfe"), "is not a chat completion"),
        (says(b"[" * 100_000), "is not a chat completion"),
        (says({"choices": []}), "is not a chat completion"),
        (says([]), "is not a chat completion"),
        (endless, f"longer than {MAX_BYTES:,} bytes"),
        (says(completion("Yes")), "gave no logprobs"),
        (says(completion(tokens={"The": 0.97, "yes": 0.02})), "about to answer 'The'"),
        (says(completion(message={"refusal": "I cannot help with that."})), "refused to answer: 'I cannot help"),
        (says(completion(tokens={"yes": 0.9}, finish_reason="content_filter")), "refused to answer"),
    ],
)
def test_what_will_not_pass_is_an_error_at_once(serve, trouble, sentence):
    server = serve(trouble)
    answer = ask(server)
    assert answer.yes is None
    assert sentence in answer.error
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "content",
    [
        "Yes, it was done.",
        '```json\n{"answer": "yes", "confidence": 1}\n```',
        '{"answer": "yes"}',
        '{"answer": "Yes", "confidence": 1}',
        '{"answer": "yes", "confidence": 1.5}',
        '{"answer": "yes", "confidence": "0.5"}',
        '{"answer": "yes", "confidence": true}',
        '{"answer": "yes", "confidence": NaN}',
        '{"answer": "yes", "confidence": 0.5, "reason": "so"}',
        "",
    ],
)
def test_json_of_another_form_is_an_error_and_never_a_number(serve, content):
    answer = ask(serve(says(completion(content))), answers="json")
    assert answer.yes is None
    assert "not the JSON that it was asked for" in answer.error


def test_json_that_was_cut_off_is_an_error(serve):
    answer = ask(serve(says(completion('{"answer": "yes", "conf', finish_reason="length"))), answers="json")
    assert "cut off" in answer.error


def test_nobody_there_is_an_error(serve):
    server = serve(GOOD)
    server.shutdown()
    server.server_close()
    clock = Clock()
    assert "cannot be reached" in ask(server, clock, attempts=3).error
    assert len(clock.waits) == 2


def test_waits_double_up_to_their_limit_and_are_the_same_for_the_same_seed(serve):
    clocks = [Clock(), Clock(), Clock()]
    for clock, seed in zip(clocks, (0, 0, 1), strict=True):
        answer = ask(serve(fails(500)), clock, attempts=6, backoff=1.0, max_backoff=5.0, seed=seed)
        assert "(all 6 attempts failed)" in answer.error
    for wait, full in zip(clocks[0].waits, (1, 2, 4, 5, 5), strict=True):
        assert full / 2 <= wait <= full
    assert clocks[0].waits == clocks[1].waits != clocks[2].waits


@pytest.mark.parametrize("after", ["7", "Sun, 01 Mar 2026 12:00:07 GMT"])
def test_retry_after_is_waited_for(serve, after):
    clock = Clock()
    assert ask(serve(fails(429, retry_after=after), GOOD), clock).yes == pytest.approx(0.75)
    assert clock.waits == [7.0]


@pytest.mark.parametrize("after", ["soon", "-3", "Sun, 01 Mar 2026 11:00:00 GMT", "1e999", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(serve, after):
    clock = Clock()
    assert ask(serve(fails(503, retry_after=after), GOOD), clock).yes == pytest.approx(0.75)
    assert 0 < clock.waits[0] <= 0.5


def test_an_endpoint_that_wants_too_long_a_wait_is_given_up(serve):
    clock = Clock()
    server = serve(fails(429, retry_after="86400"))
    assert "asks to wait 86400 s where max_backoff is 30 s" in ask(server, clock).error
    assert (len(server.bodies), clock.waits) == (1, [])


def test_answers_keep_the_order_of_their_questions_and_no_more_are_under_way_than_allowed(serve):
    def by_number(handler: Handler) -> None:
        server, text = handler.server, handler.body["messages"][0]["content"][-1]["text"]
        with server.changed:  # held until one too many has come, or has had its time to come
            server.changed.wait_for(lambda: server.active > 3, timeout=0.1)
        share = (int(text.split()[2]) + 1) / 10
        handler.reply(completion(tokens={"yes": share, "no": 1 - share}))

    server = serve(by_number)
    answers = asker(server, concurrency=3).ask(questions(9))
    assert [answer.yes for answer in answers] == pytest.approx([(i + 1) / 10 for i in range(9)])
    assert server.peak == 3


def test_one_bad_question_leaves_the_others_their_answers(serve):
    server = serve(GOOD, fails(400), GOOD)
    answers = asker(server, concurrency=1).ask(questions(3))
    assert [answer.error is None for answer in answers] == [True, False, True]


def test_a_key_is_taken_from_the_environment_and_shows_nowhere(serve, monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.INFO)
    told = {"error": {"message": f"The key {KEY} is not allowed."}}
    for trouble in (
        says(told, 401),
        says(told, 500),
        says(f"{KEY} {KEY}".encode()),
        says(b"", 302, location=f"http://elsewhere/{KEY}"),
        says(completion(KEY)),
    ):
        server = serve(trouble)
        judge = asker(server, api_key_env="JUDGE_KEY", answers="json", attempts=2)
        (answer,) = judge.ask(questions())
        assert server.keys[0] == f"Bearer {KEY}"
        assert answer.error
        assert KEY not in f"{answer!r} {judge!r} {judge.config!r} {vars(judge)!r}"
    assert KEY not in caplog.text


def test_nothing_of_the_users_openai_account_reaches_another_endpoint(serve, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"x-mine: {KEY}\nauthorization: Bearer {KEY}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    monkeypatch.setenv("JUDGE_KEY", "mine")
    server = serve(GOOD)
    for variable in (None, "JUDGE_KEY"):
        assert ask(server, api_key_env=variable).yes == pytest.approx(0.75)
    usual = {"host", "accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent"}
    assert server.headers == [usual, usual | {"authorization"}]
    assert server.keys == [None, "Bearer mine"]


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_to_be_there_and_is_not_is_one_sentence(monkeypatch, value):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(InputError, match=r"JUDGE_KEY.* set it") as caught:
        EndpointAsker(EndpointConfig(base_url="http://localhost:1/v1", model="judge", api_key_env="JUDGE_KEY"))
    assert not value or not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "localhost:8000"},
        {"base_url": "ftp://localhost/v1"},
        {"base_url": "http://"},
        {"base_url": "http://localhost:99999/v1"},
        {"base_url": f"http://user:{KEY}@localhost/v1"},
        {"base_url": f"http://localhost/v1?key={KEY}"},
        {"model": ""},
        {"attempts": 0},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"concurrency": 0},
        {"answers": "guess"},
        {"extra": {"x": object()}},
        {"key": KEY},
    ],
)
def test_settings_that_cannot_be_are_refused_without_repeating_a_key(settings):
    with pytest.raises(InputError) as caught:
        EndpointConfig(**{"base_url": "http://localhost:8000/v1", "model": "judge", **settings})
    assert KEY not in str(caught.value)


def test_it_can_be_asked_where_an_event_loop_already_runs(serve):
    judge = asker(serve(GOOD))

    async def inside() -> Any:
        return judge.ask(questions())

    assert asyncio.run(inside())[0].yes == pytest.approx(0.75)


def test_no_questions_ask_nobody(serve):
    server = serve(GOOD)
    assert asker(server).ask([]) == []
    assert server.bodies == []
