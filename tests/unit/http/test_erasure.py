"""A user's data are erased from database, log and blob store, and those of others stay."""

import asyncio
import json

import httpx2
import pytest

from an_end_user import FILES, use
from careedit_deployments.cli import privacy
from careedit_deployments.edits import erasure
from careedit_deployments.errors import ConflictError
from fake_backend import FakeBackend
from served import serve

KINDS = ("jobs", "batches", "uploads", "sessions", "files", "edits", "feedback", "assignments")


def test_no_trace_of_an_erased_user_is_left_and_others_keep_theirs(tmp_path):
    with serve(tmp_path, FakeBackend(), telemetry={"log_prompts": True}) as served:
        services = served.services

        def erase(name):
            async def work():
                names = await services.users.forms("anonymous", name)
                return await erasure.erase(services.store, services.blobs, "anonymous", names, actor="an operator")

            return served.run(work)

        with httpx2.Client(base_url=served.url, timeout=30) as client:
            mine, other = use(client, "anna", "remove the xylophone"), use(client, "bert", "remove the zeppelin")
            pseudonym = served.run(lambda: services.users.of("anonymous", "anna"))
            log = b"".join(path.read_bytes() for path in tmp_path.glob("state.db*"))
            assert pseudonym.encode() in log, "else the search below would prove nothing"
            receipt = erase("anna")
            assert {kind: receipt.kinds[kind].count for kind in KINDS} == {
                "jobs": 1, "batches": 0, "uploads": 0, "sessions": 1, "files": 1, "edits": 4, "feedback": 1, "assignments": 1
            }  # fmt: skip
            assert all(erased.count == 0 for erased in erase("anna").kinds.values()), "a second time nothing is left"
            assert client.get(f"/v1/jobs/{mine[2]}").status_code == 404
            assert client.get(f"/v1/sessions/{other[1]}").status_code == 200
            assert client.get(f"/v1/jobs/{other[2]}").json()["result"]["data"]
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            data = path.read_bytes()
            for trace in ("xylophone", pseudonym, *mine):
                assert trace.encode() not in data, (trace, path)
                assert trace not in str(path)
        served.run(services.store.audit.verify)
        everything = served.run(
            lambda: erasure.erase(services.store, services.blobs, "anonymous", None, actor="an operator")
        )
        assert {kind: everything.kinds[kind].count for kind in KINDS} == {
            "jobs": 1, "batches": 0, "uploads": 0, "sessions": 1, "files": 1, "edits": 4, "feedback": 1, "assignments": 1
        }  # fmt: skip
        assert served.run(services.store.edits.latest) == []


def test_nothing_is_erased_while_a_job_does_not_end(tmp_path):
    painter = FakeBackend()
    with serve(tmp_path, painter) as served, httpx2.Client(base_url=served.url, timeout=30) as client:
        store, blobs = served.services.store, served.services.blobs
        painter.gate.clear()
        job = client.post("/v1/jobs", files=FILES, data={"prompt": "remove it"}).json()["id"]
        while client.get(f"/v1/jobs/{job}").json()["status"] == "queued":
            pass
        stuck = asyncio.Event()

        async def cancel(job_id, *, owner=None):  # a worker that hangs does not see that it should stop
            stuck.set()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.jobs, "cancel", cancel)
            with pytest.raises(ConflictError, match="1 jobs of this user still run, so nothing was erased"):
                served.run(lambda: erasure.erase(store, blobs, "anonymous", None, actor="x", wait_s=0.0))
        assert stuck.is_set()
        assert client.get(f"/v1/jobs/{job}").status_code == 200
        receipt = served.run(lambda: erasure.erase(store, blobs, "anonymous", None, actor="x"))
        assert receipt.kinds["jobs"].count == 1
        assert client.get(f"/v1/jobs/{job}").status_code == 404
        served.loop.call_soon_threadsafe(painter.gate.set)


def test_jobs_that_others_delete_while_an_erasure_waits_do_not_stop_it(tmp_path):
    painter = FakeBackend()
    with serve(tmp_path, painter) as served, httpx2.Client(base_url=served.url, timeout=30) as client:
        store, blobs = served.services.store, served.services.blobs
        painter.gate.clear()  # no job ends by itself
        jobs = [client.post("/v1/jobs", files=FILES, data={"prompt": "remove it"}).json()["id"] for _ in range(2)]
        cancel = store.jobs.cancel

        async def cancel_and_lose(job_id, *, owner=None):
            cancelled = await cancel(job_id, owner=owner)
            for lost in jobs:  # one whose end is awaited, and one before it is cancelled
                await store.jobs.delete(lost)
            return cancelled

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.jobs, "cancel", cancel_and_lose)
            receipt = served.run(lambda: erasure.erase(store, blobs, "anonymous", None, actor="x", wait_s=5.0))
        assert receipt.kinds["jobs"].count == 0
        served.loop.call_soon_threadsafe(painter.gate.set)


def test_the_command_prints_a_receipt_and_refuses_an_unknown_tenant(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the configuration leaves the place of pictures at its default
    assert "'tenant_x' does not exist" in str(
        call(privacy, "erase", "--tenant", "tenant_x", "--user", "anna").exception
    )
    receipt = json.loads(call(privacy, "erase", "--tenant", "anonymous", "--user", "anna", "--json").stdout)
    assert (receipt["version"], receipt["tenant"], receipt["whole"]) == (1, "anonymous", False)
    assert {kind: erased["count"] for kind, erased in receipt["kinds"].items()} == dict.fromkeys(KINDS, 0)
    assert "The receipt is erasure_" in call(privacy, "erase", "--tenant", "anonymous").stdout
