"""Batches of edits: what is refused, cancelled, kept apart and erased. The official client is in tests/integration."""

from __future__ import annotations

import base64
import json

import httpx2
import pytest

from careedit_deployments.edits import erasure
from careedit_deployments.http import batches
from careedit_deployments.http.batch_lines import read_lines
from careedit_deployments.state.batch_records import BATCH_ENDS
from careedit_deployments.state.retention import DAY_S
from careedit_deployments.state.tenant_records import Retention
from fake_backend import FakeBackend, picture_file
from served import a_key, serve

URL = "data:image/png;base64," + base64.b64encode(picture_file()).decode()


def line(custom_id, prompt="remove it", **fields):
    body = {"prompt": prompt, "images": [{"image_url": URL}], **fields}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/images/edits", "body": body})


def upload(client, *lines):
    answer = client.post("/v1/files", files={"file": ("in.jsonl", "\n".join(lines))}, data={"purpose": "batch"})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def start(client, *lines, **fields):
    body = {"input_file_id": upload(client, *lines), "endpoint": "/v1/images/edits", "completion_window": "24h"}
    answer = client.post("/v1/batches", json={**body, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def ended(client, batch_id):
    while (batch := client.get(f"/v1/batches/{batch_id}").json())["status"] not in BATCH_ENDS:
        pass
    return batch


def content(client, file_id):
    return [json.loads(text) for text in client.get(f"/v1/files/{file_id}/content").text.splitlines()]


def test_a_line_that_is_refused_is_in_the_error_file_and_the_others_are_edited(client):
    lines = [line("a", seed=1), line("b", prompt=""), line("c", n=99), line("d", response_format="url"), line("e")]
    batch = ended(client, start(client, *lines, metadata={"shop": "north"}))
    assert (batch["status"], batch["metadata"], batch["errors"]) == ("completed", {"shop": "north"}, None)
    assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]

    made = content(client, batch["output_file_id"])
    assert [one["custom_id"] for one in made] == ["a", "e"] and all(one["error"] is None for one in made)
    response = made[0]["response"]
    assert response["status_code"] == 200 and response["body"]["careedit"]["traces"][0]["seed"] == 1
    assert response["body"] == client.get(f"/v1/jobs/{response['request_id']}").json()["result"]
    failed = {one["custom_id"]: one["response"] for one in content(client, batch["error_file_id"])}
    assert {name: (one["status_code"], one["body"]["error"]["param"]) for name, one in failed.items()} == {
        "b": (400, "prompt"), "c": (400, "n"), "d": (400, "response_format"),
    }  # fmt: skip
    size = client.get(f"/v1/files/{batch['output_file_id']}").json()["bytes"]
    assert size == len(client.get(f"/v1/files/{batch['output_file_id']}/content").content)

    client.delete(f"/v1/jobs/{response['request_id']}").raise_for_status()
    assert [one["error"] and one["error"]["code"] for one in content(client, batch["output_file_id"])] == [
        "job_deleted", None,
    ]  # fmt: skip


def test_an_input_that_is_wrong_fails_the_batch_and_names_each_line(client):
    wrong = json.loads(line("x")) | {"url": "/v1/chat/completions"}
    lines = [line("a"), "{", json.dumps(wrong), line("a"), line("s", stream=True), '{"custom_id": "z"}']
    batch = ended(client, start(client, *lines))
    assert (batch["status"], batch["request_counts"]["total"], batch["output_file_id"]) == ("failed", 0, None)
    assert [(error["line"], error["code"], error["param"]) for error in batch["errors"]["data"]] == [
        (2, "invalid_json_line", None),
        (3, "mismatched_endpoint", "url"),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "unsupported_parameter", "stream"),
        (6, "missing_required_parameter", "method"),
    ]
    assert read_lines(b"\xff")[1][0]["code"] == "invalid_file"
    assert read_lines(b" \n")[1][0]["code"] == "empty_file"
    assert read_lines(b'{"a":' + b"[" * 200_000)[1][0]["code"] == "invalid_json_line"


@pytest.mark.parametrize(
    ("path", "request_", "status", "param"),
    [
        ("/v1/files", {"data": {"purpose": "vision"}, "files": {"file": ("a", b"{}")}}, 400, "purpose"),
        ("/v1/files", {"data": {"purpose": "batch"}, "files": {"file": ("a", b"")}}, 400, "file"),
        ("/v1/files", {"data": {"purpose": "batch", "x": "y"}, "files": {"file": ("a", b"{}")}}, 400, "x"),
        ("/v1/files", {"json": {}}, 400, "content-type"),
        ("/v1/batches", {"json": {"input_file_id": "none", "endpoint": "/v1/images/edits", "completion_window": "24h"}}, 404, None),
        ("/v1/batches", {"json": {"input_file_id": "a", "endpoint": "/v1/responses", "completion_window": "24h"}}, 400, "endpoint"),
        ("/v1/batches/none/cancel", {}, 404, None),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused(client, path, request_, status, param):
    answer = client.post(path, **request_)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_a_cancelled_batch_keeps_what_is_done_and_needs_its_input_until_it_has_ended(tmp_path):
    painter = FakeBackend()
    with (
        serve(tmp_path, painter, jobs={"workers": 1}) as served,
        httpx2.Client(base_url=served.url, timeout=30) as client,
    ):
        painter.gate.clear()
        batch_id = start(client, *(line(str(number)) for number in range(9)))
        while len(client.get("/v1/jobs").json()["data"]) < 3:
            pass
        batch = client.get(f"/v1/batches/{batch_id}").json()
        assert (batch["status"], batch["request_counts"]["total"]) == ("in_progress", 9)
        refused = client.delete(f"/v1/files/{batch['input_file_id']}")
        assert (refused.status_code, "reads the file" in refused.text) == (409, True)
        assert client.post(f"/v1/batches/{batch_id}/cancel").json()["status"] == "cancelling"
        served.loop.call_soon_threadsafe(painter.gate.set)
        batch = ended(client, batch_id)
        counts = batch["request_counts"]
        assert batch["status"] == "cancelled" and batch["cancelling_at"] <= batch["cancelled_at"]
        assert counts["completed"] + counts["failed"] == 9 and counts["failed"] >= 6
        errors = {one["error"]["code"] for one in content(client, batch["error_file_id"])}
        assert errors <= {"batch_cancelled", "job_cancelled"} and "batch_cancelled" in errors
        assert client.post(f"/v1/batches/{batch_id}/cancel").status_code == 409
        assert client.delete(f"/v1/files/{batch['input_file_id']}").json()["deleted"]


def test_a_server_that_restarts_goes_on_and_makes_nothing_twice(tmp_path):
    painter = FakeBackend()
    with (
        serve(tmp_path, painter, jobs={"workers": 1}) as served,
        httpx2.Client(base_url=served.url, timeout=30) as client,
    ):
        painter.gate.clear()
        batch_id = start(client, *(line(str(number)) for number in range(5)))
        while len(client.get("/v1/jobs").json()["data"]) < 3:
            pass
        served.loop.call_soon_threadsafe(painter.gate.set)
    with serve(tmp_path, FakeBackend()) as served, httpx2.Client(base_url=served.url, timeout=30) as client:
        batch = ended(client, batch_id)
        assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 5)
        assert len(client.get("/v1/jobs").json()["data"]) == 5


def test_tenants_do_not_see_each_others_batches_and_a_persons_are_erased(tmp_path):
    keys = {name: a_key(name) for name in ("anna", "bert")}
    with serve(
        tmp_path, FakeBackend(), keys=[access for _, access in keys.values()], auth={"required": True}
    ) as served:
        clients = {
            name: httpx2.Client(base_url=served.url, timeout=30, headers={"authorization": f"Bearer {key}"})
            for name, (key, _) in keys.items()
        }
        mine, other = clients.values()
        batch = ended(mine, start(mine, line("zebra", "remove the xylophone", user="carl"), line("b", user="dora")))
        for path in (
            f"/v1/batches/{batch['id']}",
            *(f"/v1/files/{batch[kind]}" for kind in ("input_file_id", "output_file_id")),
        ):
            assert (mine.get(path).status_code, other.get(path).status_code) == (200, 404)
        assert other.get("/v1/batches").json()["data"] == other.get("/v1/files").json()["data"] == []
        assert [file["purpose"] for file in mine.get("/v1/files").json()["data"]] == ["batch_output", "batch"]

        receipt = mine.delete("/v1/users/carl").json()["kinds"]
        assert {kind: receipt[kind]["count"] for kind in ("jobs", "batches", "uploads")} == {
            "jobs": 1, "batches": 1, "uploads": 1,
        }  # fmt: skip
        assert [one["custom_id"] for one in content(mine, batch["output_file_id"])] == ["b"]
        assert mine.get(f"/v1/files/{batch['input_file_id']}").status_code == 404
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not any(b"xylophone" in path.read_bytes() or b"zebra" in path.read_bytes() for path in files)

        store, blobs, owner = served.services.store, served.services.blobs, keys["anna"][1][0].id
        served.run(lambda: erasure.erase(store, blobs, owner, None, actor="an operator"))
        assert mine.get("/v1/batches").json()["data"] == mine.get("/v1/files").json()["data"] == []
        for client in clients.values():
            client.close()


def test_a_batch_whose_time_is_over_ends_and_says_which_lines_were_not_edited(client, monkeypatch):
    monkeypatch.setattr(batches, "WINDOW_S", -1.0)
    batch = ended(client, start(client, line("a"), line("b")))
    assert (batch["status"], batch["request_counts"]) == ("expired", {"total": 2, "completed": 0, "failed": 2})
    assert batch["expired_at"] and batch["output_file_id"] is None
    assert [one["error"]["code"] for one in content(client, batch["error_file_id"])] == ["batch_expired"] * 2


def test_a_batch_and_its_files_are_kept_as_long_as_their_tenant_wants_jobs(tmp_path):
    key, access = a_key("anna")
    with (
        serve(tmp_path, FakeBackend(), keys=(access,), auth={"required": True}) as served,
        httpx2.Client(base_url=served.url, timeout=30, headers={"authorization": f"Bearer {key}"}) as client,
    ):
        store, tenant = served.services.store, access[0].id
        served.run(lambda: store.retention.set(tenant, Retention(jobs=2)))
        first = client.get(f"/v1/files/{upload(client, line('a'))}").json()
        assert first["expires_at"] - first["created_at"] == 2 * DAY_S
        batch = ended(client, start(client, line("a"), line("b", prompt="")))
        stored = served.run(lambda: store.batches.get(batch["id"]))
        assert stored.expires - stored.created == pytest.approx(3 * DAY_S)
        ends = [
            client.get(f"/v1/files/{batch[kind]}").json()["expires_at"] for kind in ("output_file_id", "error_file_id")
        ]
        assert ends == [int(stored.expires)] * 2
