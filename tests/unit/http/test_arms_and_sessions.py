import asyncio
from collections import Counter

import httpx2
import pytest

from fake_backend import FakeBackend, arm_info, picture_file
from served import serve

SOURCE = picture_file()
FILES = {"image": ("a.png", SOURCE)}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A server with two arms of one set, and a shadow."""
    painter = FakeBackend("a", "b", "copy")
    painter.arms = {**painter.arms, "copy": arm_info("copy", shadow=True)}
    arms = {
        "a": {"expert_set": "tiny"},
        "b": {"expert_set": "tiny", "weight": 3.0},
        "copy": {"expert_set": "tiny", "shadow": True},
    }
    with serve(tmp_path_factory.mktemp("split"), painter, arms=arms) as server:
        yield server, painter


def edit(url, **fields):
    return httpx2.post(url + "/v1/images/edits", files=FILES, data={"prompt": "remove it", **fields})


def test_users_are_split_by_weight_and_stay_where_they_are(split):
    server, _ = split
    users = [f"user-{i}" for i in range(60)]  # the salt is a new one each time: 12 users may all have one arm
    first = [edit(server.url, user=user).headers["x-careedit-arm"] for user in users]
    again = [edit(server.url, safety_identifier=user).headers["x-careedit-arm"] for user in users]
    assert first == again
    assert set(Counter(first)) == {"a", "b"}
    assigned = server.run(lambda: server.services.store.arms.assigned("careedit"))
    assert assigned == Counter(first)


def test_a_model_names_an_arm_or_a_set_but_no_shadow(split):
    server, _ = split
    assert edit(server.url, model="a").headers["x-careedit-arm"] == "a"
    assert edit(server.url, model="fake").headers["x-careedit-arm"] in {"a", "b"}
    refused = edit(server.url, model="copy")
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")
    assert [model["id"] for model in httpx2.get(server.url + "/v1/models").json()["data"]] == ["a", "b"]


def test_a_shadow_gets_a_copy_and_answers_nobody(split):
    server, painter = split
    answer = edit(server.url, model="a").json()["careedit"]

    async def copies():
        while True:
            latest = await server.services.store.edits.latest(arm="copy", limit=50)
            found = [kept for kept in latest if kept.shadow_of == answer["id"]]
            if found:
                return found
            await asyncio.sleep(0.01)

    (copy,) = server.run(copies)
    assert copy.outcome == "made"
    seeds = {call.request.seed for call in painter.calls if call.id in (copy.id, answer["id"])}
    assert seeds == {answer["traces"][0]["seed"]}


def test_what_people_think_of_edits_is_counted_for_their_arms(split):
    server, _ = split
    first, other, same = (edit(server.url, model=arm).headers["x-careedit-edit"] for arm in ("a", "b", "a"))
    for body in (
        *({"edit": one, "rating": rating} for one, rating in ((first, 5), (same, 3))),
        *({"edit": first, "rating": 1} for _ in range(5)),  # the last verdict of a tenant counts, once
        {"edits": [first, other], "winner": other},
        {"edits": [other, first], "winner": "tie"},
        {"edits": [first, same], "winner": first},  # says nothing of arms
    ):
        assert httpx2.post(server.url + "/v1/feedback", json=body).status_code == 201
    told = {
        tuple(dict(key).values()): sum(values) for key, values in server.recording.values["careedit_feedback"].items()
    }
    assert told == {("a", verdict): 1 for verdict in ("good", "neutral", "lost")} | {("b", "won"): 1}
    kept = server.run(server.services.store.feedback.latest)
    assert [one.rating for one in kept if one.edits == (first,)] == [1]


def test_an_edit_may_be_a_sessions_next_turn(client, opened):
    session = client.post("/v1/sessions", files=FILES).json()["id"]
    for number, colour in ((1, (55, 215, 165)), (2, (200, 40, 90))):
        response = client.post(
            "/v1/images/edits", data={"prompt": "invert it", "session": session}, files={"x": (None, "")}
        )
        assert response.status_code == 200, response.text
        answer = response.json()
        assert opened(answer["data"][0]["b64_json"]).getpixel((0, 0)) == colour
        turns = client.get(f"/v1/sessions/{session}/turns").json()
        assert (turns["head"], turns["data"][-1]["number"]) == (answer["careedit"]["turn"], number)
        assert answer["careedit"]["session"] == session


def test_a_sessions_turn_may_be_streamed_with_a_reference(client, painter):
    session = client.post("/v1/sessions", files=FILES).json()["id"]
    fields = {"prompt": "invert it", "session": session, "stream": "true", "partial_images": "1"}
    response = client.post("/v1/images/edits", data=fields, files={"image": ("b.png", picture_file((8, 8), (1, 2, 3)))})
    assert "event: image_edit.completed" in response.text
    request = painter.calls[-1].request
    assert [picture.getpixel((0, 0)) for picture in (request.image, *request.references)] == [(200, 40, 90), (1, 2, 3)]


@pytest.mark.parametrize(
    ("files", "status", "param"),
    [
        ({"x": (None, "")}, 404, None),
        ([("image[]", ("a.png", SOURCE)), ("image[]", ("b.png", SOURCE))], 400, "image"),
    ],
)
def test_a_session_that_is_not_there_or_a_source_beside_it_is_refused(client, files, status, param):
    response = client.post("/v1/images/edits", data={"prompt": "x", "session": "session_nowhere"}, files=files)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
