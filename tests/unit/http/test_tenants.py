"""Tenants and their keys over HTTP: scopes, several keys, expiry, rotation, and what a revocation ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from careedit_deployments.http import app
from careedit_deployments.http.auth import make_key
from careedit_deployments.state.tenant_records import Scope
from fake_backend import FakeBackend, picture_file
from served import Served, a_key, serve

EDIT = {"files": {"image": ("a.png", picture_file())}, "data": {"prompt": "remove it"}}


class Team:
    """A tenant of a server that needs keys."""

    def __init__(self, served: Served, painter: FakeBackend, tenant: str) -> None:
        self.served, self.painter, self.tenant = served, painter, tenant
        self.clients = ExitStack()

    def key(self, *scopes: Scope, expires: float | None = None) -> tuple[str, httpx2.Client]:
        """Id of a new key, and a client that uses it."""
        key, record = make_key("a laptop", self.tenant, scopes=scopes or ("edit", "read"), expires=expires)
        self.served.run(lambda: self.served.services.store.keys.add(record))
        client = httpx2.Client(base_url=self.served.url, headers={"authorization": f"Bearer {key}"}, timeout=30)
        return record.id, self.clients.enter_context(client)

    def revoke(self, key_id: str) -> None:
        assert self.served.run(lambda: self.served.services.store.keys.revoke(key_id))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    painter, (_, access) = FakeBackend(), a_key("a team")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "CHECK_S", 0.02)
        patch.setattr(app, "TOUCH_S", 0.02)
        with serve(tmp_path_factory.mktemp("team"), painter, keys=(access,), auth={"required": True}) as served:
            team = Team(served, painter, access[0].id)
            with team.clients:
                yield team


def test_a_key_does_what_its_scopes_allow_and_nothing_else(team: Team) -> None:
    _, reader = team.key("read")
    _, sender = team.key("edit")
    _, admin = team.key("admin")
    _, operator = team.key("operator")
    job = sender.post("/v1/jobs", **EDIT)
    assert job.status_code == 202
    assert reader.get(f"/v1/jobs/{job.json()['id']}").status_code == 200
    assert admin.get("/v1/webhooks").status_code == 200
    assert operator.get("/v1/arms").status_code == 200
    for refused in (
        reader.post("/v1/jobs", **EDIT),
        reader.delete(f"/v1/jobs/{job.json()['id']}"),
        sender.get("/v1/jobs"),
        reader.get("/v1/arms"),
        admin.get("/v1/arms"),  # it counts the edits of all tenants
        operator.get("/v1/webhooks"),
        admin.get("/v1/jobs"),
    ):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (403, "missing_scope", None)
        assert "scope" in error["message"]


def test_what_one_key_makes_another_key_of_the_tenant_finds(team: Team) -> None:
    (first, old), (_, new) = team.key(), team.key()
    job = old.post("/v1/jobs", **EDIT).json()["id"]
    while old.get(f"/v1/jobs/{job}").json()["status"] != "completed":
        pass
    session = old.post("/v1/sessions", files=EDIT["files"]).json()["id"]
    team.revoke(first)
    assert old.get(f"/v1/jobs/{job}").status_code == 401
    assert new.get(f"/v1/sessions/{session}").status_code == 200
    assert new.get(f"/v1/jobs/{job}").json()["result"]["data"]
    assert new.delete(f"/v1/jobs/{job}").json()["deleted"] is True


def test_an_expired_key_is_wrong_and_a_used_one_says_when(team: Team) -> None:
    _, expired = team.key(expires=time.time() - 1)
    key, valid = team.key(expires=time.time() + 60)
    assert expired.get("/v1/models").status_code == 401
    used = None
    while used is None:
        assert valid.get("/v1/models").status_code == 200
        used = next(one.key.used for one in team.served.run(team.served.services.store.keys.all) if one.key.id == key)
    assert used > time.time() - 60


def test_a_revocation_ends_streams_and_jobs_of_the_key_and_of_no_other(team: Team) -> None:
    (revoked, mine), (_, other) = team.key(), team.key()
    team.painter.pause = 0.05
    try:
        mine_job, other_job = (
            client.post("/v1/jobs", files=EDIT["files"], data={"prompt": "x", "steps": "40"}).json()["id"]
            for client in (mine, other)
        )
        with (
            other.stream("GET", f"/v1/jobs/{mine_job}/events") as kept,
            mine.stream("GET", f"/v1/jobs/{other_job}/events") as ended,
        ):
            lines, seen = ended.iter_lines(), kept.iter_lines()
            assert next(lines) == next(seen) == "event: job.queued"
            team.revoke(revoked)
            *_, name, data, _ = list(lines)  # a stream that did not end would bring job.completed
            assert (name, json.loads(data.removeprefix("data: "))["error"]["code"]) == (
                "event: error",
                "invalid_api_key",
            )
            assert [line for line in seen if line.startswith("event: ")][-1] == "event: job.cancelled"
        job = other.get(f"/v1/jobs/{mine_job}").json()
        assert (job["status"], job["error"]["code"]) == ("cancelled", "key_revoked")
        assert other.get(f"/v1/jobs/{other_job}").json()["status"] in ("running", "completed")
    finally:
        team.painter.pause = 0.0


def test_an_edit_whose_key_is_revoked_gets_401(team: Team) -> None:
    key, client = team.key()
    team.painter.pause = 0.05
    try:
        answers: list[httpx2.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(
                client.post("/v1/images/edits", files=EDIT["files"], data={"prompt": "x", "steps": "40"})
            )
        )
        calls = len(team.painter.calls)
        asking.start()
        while len(team.painter.calls) == calls:
            pass
        team.revoke(key)
        asking.join()
        assert answers[0].status_code == 401
        assert "revoked" in answers[0].json()["error"]["message"]
    finally:
        team.painter.pause = 0.0


def test_an_admin_erases_a_user_of_its_own_tenant_only(team: Team) -> None:
    _, sender = team.key()
    _, admin = team.key("admin")
    sender.post("/v1/images/edits", files=EDIT["files"], data={"prompt": "remove it", "user": "a/nna"})
    assert sender.delete("/v1/users/a%2Fnna").status_code == 403
    counts = [admin.delete("/v1/users/a%2Fnna").json()["kinds"]["edits"]["count"] for _ in range(2)]
    assert counts == [1, 0]
    entry = team.served.run(lambda: team.served.services.store.audit.latest(limit=1))[0]
    assert (entry.action, entry.subject) == ("privacy.erased", team.tenant)
    assert "nna" not in str(entry.detail)


def test_nothing_of_a_tenant_is_there_for_an_admin_of_another(team: Team) -> None:
    _, mine = team.key("edit", "read", "admin")
    key, (tenant, record) = a_key("another team")
    team.served.run(lambda: team.served.services.store.tenants.add(tenant))
    team.served.run(lambda: team.served.services.store.keys.add(record))
    job = mine.post("/v1/jobs", **EDIT).json()["id"]
    session = mine.post("/v1/sessions", files=EDIT["files"]).json()["id"]
    turn = mine.post(f"/v1/sessions/{session}/turns", json={"prompt": "x"}).json()["careedit"]
    endpoint = mine.post("/v1/webhooks", json={"url": "https://example.org/hooks"}).json()["id"]
    line = {"custom_id": "1", "method": "POST", "url": "/v1/images/edits", "body": {}}
    upload = mine.post("/v1/files", files={"file": ("in.jsonl", json.dumps(line))}, data={"purpose": "batch"}).json()[
        "id"
    ]
    order = {"input_file_id": upload, "endpoint": "/v1/images/edits", "completion_window": "24h"}
    batch = mine.post("/v1/batches", json=order).json()["id"]
    ids = {"job_id": job, "session_id": session, "turn_id": turn["turn"], "endpoint_id": endpoint, "file_id": upload}
    ids["batch_id"] = batch
    others = {"model", "user", "name"}  # of all tenants; of the caller's tenant; an address that is a secret
    routes = [
        (method.upper(), path)
        for path, methods in mine.get("/openapi.json").json()["paths"].items()
        if "{" in path and not any(f"{{{name}}}" in path for name in others)
        for method in methods
    ]
    assert len(routes) > 10
    with httpx2.Client(base_url=team.served.url, headers={"authorization": f"Bearer {key}"}, timeout=30) as theirs:
        bodies = {"turns": {"prompt": "x"}, "rotate": {"overlap_s": 0}}
        for method, path in routes:
            body = bodies.get(path.rpartition("/")[2]) if method == "POST" else None
            answer = theirs.request(method, path.format(**ids), json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), (method, path)
        own = theirs.post("/v1/sessions", files=EDIT["files"]).json()["id"]
        for path, body in (
            ("/v1/feedback", {"edit": turn["id"], "rating": 1}),
            (f"/v1/sessions/{own}/turns", {"prompt": "x", "turn": turn["turn"]}),
            ("/v1/images/edits", {"prompt": "x", "session": session}),
        ):
            assert theirs.post(path, json=body).status_code == 404, path
        assert theirs.get("/v1/jobs").json()["data"] == theirs.get("/v1/webhooks").json()["data"] == []
    assert mine.get(f"/v1/sessions/{session}").json()["id"] == session
    mine.delete(f"/v1/webhooks/{endpoint}")
