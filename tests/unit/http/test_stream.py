import threading

import httpx2
import pytest

from careedit.errors import AdapterError
from careedit_deployments.errors import OverloadedError, UnavailableError
from careedit_deployments.http import edits
from fake_backend import picture_file
from served import events_of

FILES = {"image": ("a.png", picture_file())}


def stream(client, **fields):
    return client.post("/v1/images/edits", files=FILES, data={"prompt": "remove it", "stream": "true", **fields})


def wait_until(condition, attempts=400):
    """Wait for another thread's work, at most a few seconds."""
    ticker = threading.Event()
    for _ in range(attempts):
        if condition():
            return True
        ticker.wait(0.01)
    return False


@pytest.mark.parametrize("partials", [0, 1, 3])
def test_a_stream_holds_the_partial_images_and_then_the_result(client, opened, partials):
    response = stream(client, partial_images=str(partials), seed="5")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-careedit-arm"] == "tiny"
    events = events_of(response)
    assert [name for name, _ in events] == ["image_edit.partial_image"] * partials + ["image_edit.completed"]
    assert [data["partial_image_index"] for _, data in events[:-1]] == list(range(partials))
    for name, data in events:
        assert data["type"] == name
        assert opened(data["b64_json"]).size == (48, 32)
        assert {field: data[field] for field in ("background", "output_format", "quality", "size")} == {
            "background": "opaque",
            "output_format": "png",
            "quality": "auto",
            "size": "48x32",
        }
    _, last = events[-1]
    assert last["usage"]["total_tokens"] == 34
    assert last["careedit"]["traces"][0]["seed"] == 5


def test_several_images_of_a_stream_say_which_they_are(client):
    events = events_of(stream(client, n="2", partial_images="1"))
    assert [(name.rpartition(".")[2], data["careedit"]["image"]) for name, data in events] == [
        ("partial_image", 0),
        ("completed", 0),
        ("partial_image", 1),
        ("completed", 1),
    ]


def test_an_error_before_the_first_event_has_a_status(client, painter):
    painter.fails = OverloadedError("The queue is full; come back later.", retry_after=2.5)
    response = stream(client)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["code"] == "server_overloaded"


def test_an_error_in_a_stream_is_its_last_event(client, painter):
    painter.fails, painter.fails_after = UnavailableError("The replica is gone; try again."), 2
    events = events_of(stream(client, partial_images="3"))
    name, data = events[-1]
    assert name == data["type"] == "error"
    assert data["error"]["message"] == "The replica is gone; try again."
    assert [name for name, _ in events[:-1]] == ["image_edit.partial_image"] * 2


def test_an_error_that_was_not_foreseen_tells_nothing_of_the_inside(client, painter, caplog):
    for error in (ZeroDivisionError("secret"), AdapterError("The file /secret/adapter is damaged; replace it.")):
        painter.fails = error
        response = client.post("/v1/images/edits", files=FILES, data={"prompt": "x"})
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.json()["error"]["code"] == "internal_error"
        assert response.headers["x-request-id"]
    assert "Unexpected error" in caplog.text


def test_a_silent_stream_is_kept_alive(client, painter, monkeypatch):
    monkeypatch.setattr(edits, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(edits, "FIRST_EVENT_S", 0.02)
    painter.pause = 0.1
    response = stream(client)
    assert response.text.startswith(": ping\n\n")
    assert [name for name, _ in events_of(response)] == ["image_edit.completed"]


@pytest.mark.parametrize("streamed", ["true", "false"])
def test_a_client_that_leaves_stops_its_edit(client, painter, served, streamed):
    painter.pause = 0.01
    closed, steps = painter.closed, painter.steps
    fields = {
        "prompt": "remove it",
        "steps": "50",
        "stream": streamed,
        "partial_images": "1" if streamed == "true" else "0",
    }
    with pytest.raises(httpx2.ReadTimeout), httpx2.Client(base_url=served.url, timeout=0.2) as hasty:
        hasty.post("/v1/images/edits", files=FILES, data=fields)
    assert wait_until(lambda: painter.closed == closed + 1)
    done = painter.steps
    assert done - steps < 50
    identity = painter.calls[-1].id
    assert wait_until(lambda: _outcome(served, identity) == "cancelled")
    assert painter.steps == done


def test_a_client_that_leaves_a_stream_that_has_begun_stops_its_edit(client, painter):
    painter.pause = 0.01
    closed, steps = painter.closed, painter.steps
    fields = {"prompt": "remove it", "steps": "50", "stream": "true", "partial_images": "1"}
    with client.stream("POST", "/v1/images/edits", files=FILES, data=fields) as response:
        assert next(response.iter_lines()) == "event: image_edit.partial_image"
    assert wait_until(lambda: painter.closed == closed + 1)
    assert painter.steps - steps < 50


def _outcome(served, identity):
    latest = served.run(lambda: served.services.store.edits.latest(limit=5))
    return {edit.id: edit.outcome for edit in latest}.get(identity)
