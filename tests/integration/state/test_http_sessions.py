"""`/v1/sessions` and `/v1/feedback` over a real server: turns, branches, undo, deletion, opinions."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from fake_backend import FakeBackend, mask_file, picture_file
from served import Served, a_key, serve
from stores import pictures_in

BEFORE, AFTER = (200, 40, 90), (55, 215, 165)
"""The source's colour, and what the painter makes of it: the opposite."""


@pytest.fixture
def painter() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def served(tmp_path: Path, painter: FakeBackend) -> Iterator[Served]:
    with serve(tmp_path, painter) as server:
        yield server


def begin(url: str, **fields: str) -> dict[str, Any]:
    answer = httpx2.post(url + "/v1/sessions", files={"image": ("a.png", picture_file())}, data=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def turn(url: str, session: str, prompt: str = "invert it", **fields: Any) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/sessions/{session}/turns", json={"prompt": prompt, **fields})


def colour(answer: dict[str, Any]) -> tuple[int, ...]:
    data = answer.get("b64_json") or answer["data"][0]["b64_json"]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((0, 0))


def test_a_turn_edits_the_last_result(served: Served, painter: FakeBackend) -> None:
    session = begin(served.url, user="u", model="tiny")
    first, second = (turn(served.url, session["id"]).json() for _ in range(2))
    assert [colour(first), colour(second)] == [AFTER, BEFORE]
    assert first["careedit"]["session"] == session["id"]
    history = httpx2.get(f"{served.url}/v1/sessions/{session['id']}/turns").json()
    assert [(one["number"], one["parent"]) for one in history["data"]] == [(1, None), (2, history["data"][0]["id"])]
    assert history["head"] == history["data"][1]["id"] == second["careedit"]["turn"]
    assert history["data"][0]["edit"] == first["careedit"]["id"]
    kept = httpx2.get(f"{served.url}/v1/sessions/{session['id']}/turns/{first['careedit']['turn']}").json()
    assert (colour(kept), kept["prompt"]) == (AFTER, "invert it")
    log = served.run(lambda: served.services.store.edits.latest())
    user = served.run(lambda: served.services.users.of("anonymous", "u"))
    assert {edit.user for edit in log} == {user}
    assert all(edit.request_id.startswith(session["id"] + "/req_") for edit in log)


def test_a_turn_may_edit_an_earlier_result_or_the_source(served: Served) -> None:
    session = begin(served.url)["id"]
    first = turn(served.url, session).json()["careedit"]["turn"]
    turn(served.url, session)
    branch = turn(served.url, session, turn=first).json()
    afresh = turn(served.url, session, turn="source").json()
    assert [colour(branch), colour(afresh)] == [BEFORE, AFTER]
    turns = httpx2.get(f"{served.url}/v1/sessions/{session}/turns").json()
    assert [one["parent"] for one in turns["data"]] == [None, first, first, None]
    assert turns["head"] == afresh["careedit"]["turn"]
    missing = turn(served.url, session, turn="turn_nowhere")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_undo_goes_back_to_what_was_edited_and_deletes_nothing(served: Served) -> None:
    session = begin(served.url)["id"]
    first = turn(served.url, session).json()["careedit"]["turn"]
    second = turn(served.url, session).json()["careedit"]["turn"]
    heads = [httpx2.post(f"{served.url}/v1/sessions/{session}/undo").json()["head"] for _ in range(2)]
    assert heads == [first, None]
    over = httpx2.post(f"{served.url}/v1/sessions/{session}/undo")
    assert (over.status_code, over.json()["error"]["code"]) == (409, "conflict")
    assert colour(turn(served.url, session).json()) == AFTER
    assert colour(turn(served.url, session, turn=second).json()) == AFTER, "what was undone can still be named"


def test_turns_take_masks_references_and_forms(served: Served, painter: FakeBackend) -> None:
    session = begin(served.url)["id"]
    url = f"{served.url}/v1/sessions/{session}/turns"
    masked = httpx2.post(url, files={"mask": ("m.png", mask_file())}, data={"prompt": "invert it", "size": "24x16"})
    picture = Image.open(io.BytesIO(base64.b64decode(masked.json()["data"][0]["b64_json"]))).convert("RGB")
    assert (picture.size, picture.getpixel((23, 8))) == ((24, 16), BEFORE)
    reference = httpx2.post(url, files={"image": ("r.png", picture_file((8, 8)))}, data={"prompt": "like this"})
    assert reference.status_code == 200, reference.text
    assert [len(call.request.references) for call in painter.calls] == [0, 1]
    assert painter.calls[-1].request.image.size == (48, 32)


@pytest.mark.parametrize(
    ("fields", "param"), [({"n": 2}, "n"), ({"stream": True}, "stream"), ({"steps": 999}, "steps"), ({"x": 1}, "x")]
)
def test_a_turn_that_is_refused_or_fails_leaves_nothing(served: Served, fields: dict[str, Any], param: str) -> None:
    session = begin(served.url)["id"]
    refused = turn(served.url, session, **fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert httpx2.get(f"{served.url}/v1/sessions/{session}").json()["turns"] == 0


def test_deleting_a_session_leaves_no_byte(served: Served, tmp_path: Path) -> None:
    session, other = begin(served.url, user="somebody-in-particular")["id"], begin(served.url)["id"]
    edit = turn(served.url, session, "remove the xylophone").json()["careedit"]["id"]
    turn(served.url, other)
    comment = {"edit": edit, "rating": 1, "comment": "the xylophone is still there"}
    assert httpx2.post(served.url + "/v1/feedback", json=comment).status_code == 201
    assert httpx2.delete(f"{served.url}/v1/sessions/{session}").json()["deleted"] is True
    for path in tmp_path.rglob("*"):
        assert session not in str(path)
        data = path.read_bytes() if path.is_file() else b""
        assert b"xylophone" not in data, path
        assert b"somebody-in-particular" not in data, path
    assert httpx2.get(f"{served.url}/v1/sessions/{session}").status_code == 404
    assert httpx2.delete(f"{served.url}/v1/sessions/{session}").status_code == 404
    assert [one["id"] for one in httpx2.get(served.url + "/v1/sessions").json()["data"]] == [other]
    audit = served.run(lambda: served.services.store.audit.latest())
    assert (audit[0].action, audit[0].subject) == ("session.deleted", session)


def test_a_session_that_is_deleted_during_a_turn_stays_deleted(
    served: Served, painter: FakeBackend, tmp_path: Path
) -> None:
    painter.pause = 0.1
    session = begin(served.url)["id"]
    answers: list[httpx2.Response] = []
    working = threading.Thread(target=lambda: answers.append(turn(served.url, session, "a secret", steps=8)))
    working.start()
    while not painter.steps:
        pass
    assert httpx2.delete(f"{served.url}/v1/sessions/{session}").status_code == 200
    working.join()
    assert answers[0].status_code == 404
    assert pictures_in(tmp_path) == []
    served.run(served.services.store.scrub)
    assert all(b"a secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_sessions_expire_and_are_swept(tmp_path: Path, painter: FakeBackend) -> None:
    state = {"database": f"sqlite+aiosqlite:///{tmp_path}/s.db", "blobs": str(tmp_path / "b"), "session_ttl_s": 0.01}
    with serve(tmp_path, painter, state=state) as served:
        session = begin(served.url)["id"]
        gone = httpx2.get(f"{served.url}/v1/sessions/{session}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    with serve(tmp_path, painter, state=state) as served:  # sweeps when it starts
        end = time.monotonic() + 60
        while served.run(lambda: served.services.store.sessions.existing([session])) or pictures_in(tmp_path):
            assert time.monotonic() < end, "neither its row nor its picture may stay"


def test_only_the_owner_has_a_session(tmp_path: Path, painter: FakeBackend) -> None:
    (mine, record), (theirs, second) = a_key("me"), a_key("you")
    with serve(tmp_path, painter, keys=(record, second), auth={"required": True}) as served:
        headers = [{"Authorization": f"Bearer {key}"} for key in (mine, theirs)]
        files = {"image": ("a.png", picture_file())}
        session = httpx2.post(served.url + "/v1/sessions", files=files, headers=headers[0]).json()["id"]
        at = f"{served.url}/v1/sessions/{session}"
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/turns"), ("POST", "/undo"), ("POST", "/turns")):
            body = {"json": {"prompt": "x"}} if (method, path) == ("POST", "/turns") else {}
            assert httpx2.request(method, at + path, headers=headers[1], **body).status_code == 404, path
        assert httpx2.get(served.url + "/v1/sessions", headers=headers[1]).json()["data"] == []
        assert httpx2.get(at, headers=headers[0]).json()["id"] == session


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("json", {"model": "tiny"}, "image"),
        ("json", {"image": {"image_url": "data:image/png;base64,AAAA"}}, "image"),
        ("data", {"image": "text"}, "image"),
        ("content", b"x", "content-type"),
    ],
)
def test_a_session_needs_a_picture(served: Served, kind: str, body: Any, param: str) -> None:
    files = {"files": {"x": (None, "")}} if kind == "data" else {}
    refused = httpx2.post(served.url + "/v1/sessions", **{kind: body}, **files)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_opinions_are_kept_with_the_edits_that_they_are_about(served: Served) -> None:
    session = begin(served.url)["id"]
    edits = [turn(served.url, session).json()["careedit"]["id"] for _ in range(2)]
    for body in (
        {"edit": edits[0], "rating": 4, "comment": "fine"},
        {"edits": edits, "winner": edits[1]},
        {"edits": edits, "winner": "tie"},
    ):
        answer = httpx2.post(served.url + "/v1/feedback", json=body)
        assert answer.status_code == 201, answer.text
    kept = served.run(lambda: served.services.store.feedback.latest())
    assert [(one.edits, one.winner, one.rating) for one in kept[::-1]] == [
        ((edits[0],), None, 4),
        (tuple(edits), None, None),  # the second opinion about the two replaces the first
    ]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"edit": "edit_x", "rating": 3}, 404, None),
        ({"edit": "edit_x", "rating": 6}, 400, "rating"),
        ({"edit": "edit_x"}, 400, "edit"),
        ({"edits": ["a", "a"], "winner": "a"}, 400, "edits"),
        ({"edits": ["a", "b"], "winner": "c"}, 400, "winner"),
        ({"edits": ["a", "b"], "winner": "a", "rating": 2}, 400, "winner"),
        ({}, 400, "edit"),
    ],
)
def test_an_opinion_of_nothing_is_refused(served: Served, body: Any, status: int, param: str | None) -> None:
    refused = httpx2.post(served.url + "/v1/feedback", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)
