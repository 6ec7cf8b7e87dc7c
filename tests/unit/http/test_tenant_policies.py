"""Policies of tenants over HTTP: what each may use, how much, where, and what its edits may be used for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from careedit_deployments.state.tables import usage
from careedit_deployments.state.tenant_policy import TenantPolicy
from fake_backend import FakeBackend, picture_file
from served import Served, a_key, events_of, serve

FILES = {"image": ("a.png", picture_file())}
LARGE = {"image": ("a.png", picture_file((100, 50)))}
ARMS = {
    "tiny": {"expert_set": "tiny", "guard": {"min_judge_score": 0.1}},
    "other": {"expert_set": "tiny"},
    "copy": {"expert_set": "tiny", "shadow": True},
}


class Tenant:
    """A tenant of a server with keys, its client, and a client without a key."""

    def __init__(self, served: Served, painter: FakeBackend, tenant: str, client: httpx2.Client) -> None:
        self.served, self.painter, self.tenant, self.client = served, painter, tenant, client
        self.tenants = served.services.store.tenants

    def may(self, **policy: Any) -> None:
        """Give the tenant a policy."""
        values = TenantPolicy(**policy).model_dump(mode="json")
        self.served.run(lambda: self.tenants.change(self.tenant, policy=values))

    def edit(self, files: Any = FILES, **fields: str) -> httpx2.Response:
        return self.client.post("/v1/images/edits", files=files, data={"prompt": "remove it", **fields})

    def job(self, files: Any = FILES, **fields: str) -> httpx2.Response:
        return self.client.post("/v1/jobs", files=files, data={"prompt": "remove it", **fields})

    def ended(self, job: httpx2.Response) -> dict[str, Any]:
        """A job once it has ended."""
        assert job.status_code == 202, job.text
        self.client.get(f"/v1/jobs/{job.json()['id']}/events").read()
        return self.client.get(f"/v1/jobs/{job.json()['id']}").json()

    def arms(self) -> list[str]:
        """The arms of the edits since the last call, once all copies are made."""

        async def settled() -> None:
            for observer in self.served.services.edits._observers:
                if hasattr(observer, "settled"):
                    await observer.settled()

        self.served.run(settled)
        arms = [call.arm for call in self.painter.calls]
        self.painter.calls.clear()
        return arms


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, FakeBackend, str, str]]:
    painter, (key, access) = FakeBackend("tiny", "other", shadows=("copy",)), a_key("a team")
    config = {
        "arms": ARMS,
        "region": "eu-central",
        "scorer": {"backend": "transformers", "model": "judge"},
        "jobs": {"workers": 1},
        "auth": {"required": False},
    }
    with serve(tmp_path_factory.mktemp("policies"), painter, keys=(access,), **config) as served:
        yield served, painter, access[0].id, key


@pytest.fixture
def tenant(server: tuple[Served, FakeBackend, str, str]) -> Iterator[Tenant]:
    served, painter, tenant_id, key = server
    painter.fails, painter.calls = None, []
    with httpx2.Client(base_url=served.url, headers={"authorization": f"Bearer {key}"}, timeout=30) as client:
        tenant = Tenant(served, painter, tenant_id, client)
        tenant.may()
        yield tenant


def refusal(response: httpx2.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert error["message"].endswith("."), error
    return response.status_code, error["code"], error["param"]


def test_a_tenant_sees_and_uses_only_its_models(tenant: Tenant) -> None:
    tenant.may(models=["other"])
    assert [one["id"] for one in tenant.client.get("/v1/models").json()["data"]] == ["other"]
    assert {one["model"] for one in tenant.client.get("/v1/experts").json()["data"]} == {"other"}
    assert tenant.client.get("/v1/models/tiny").status_code == 404
    assert refusal(tenant.edit(model="tiny")) == (403, "tenant_policy", "model")
    assert refusal(tenant.edit(model="unknown")) == (404, "model_not_found", "model")
    arms = tenant.served.services.store.arms
    before = tenant.served.run(lambda: arms.assigned("careedit"))
    for user in "abcdef":  # without a restriction about half of them would go to the other arm
        assert tenant.edit(user=user, model="fake").headers["x-careedit-arm"] == "other"
        assert tenant.edit(user=user).headers["x-careedit-arm"] == "other"
    assert tenant.served.run(lambda: arms.assigned("careedit")) == before, "no random assignment of an A/B test"
    tenant.may(models=["fake"])
    assert [one["id"] for one in tenant.client.get("/v1/models").json()["data"]] == ["tiny", "other"]
    tenant.may(models=["gone"])
    assert refusal(tenant.edit()) == (403, "tenant_policy", None)


def test_an_expert_that_a_tenant_may_not_use_is_refused_by_name_and_left_out_by_the_router(tenant: Tenant) -> None:
    tenant.may(experts=["style"])
    assert {one["name"] for one in tenant.client.get("/v1/experts").json()["data"]} == {"style"}
    for fields in ({"expert": "erase"}, {"expert[erase]": "0.5", "expert[style]": "0.5"}):
        assert refusal(tenant.edit(**fields)) == (403, "tenant_policy", "expert")
    routing = tenant.edit().json()["careedit"]["traces"][0]["routing"]
    assert routing["weights"] == {"base": 1.0}
    assert routing["reason"].endswith("The tenant may not use erase, so the edit uses base.")
    drawn = {"prompt": "draw it"}
    assert tenant.edit(**drawn).json()["careedit"]["traces"][0]["routing"]["weights"] == {"style": 1.0}
    assert tenant.edit(expert="base").status_code == 200
    route = tenant.client.post("/v1/routes", files=FILES, data={"prompt": "remove it"})
    assert route.json()["routing"]["weights"] == {"base": 1.0}


def test_a_picture_of_a_tenant_is_as_large_as_its_policy_allows(tenant: Tenant) -> None:
    session = tenant.client.post("/v1/sessions", files=LARGE).json()["id"]
    tenant.may(pixels=48 * 32, images=2)
    image = {"image_url": base64.b64encode(LARGE["image"][1]).decode()}
    pair = {"source": image, "edited": image, "instruction": "x"}
    for response in (
        tenant.edit(LARGE),
        tenant.edit(LARGE, stream="true"),
        tenant.job(LARGE),
        tenant.client.post("/v1/routes", files=LARGE, data={"prompt": "x"}),
        tenant.client.post("/v1/sessions", files=LARGE),
        tenant.client.post(f"/v1/sessions/{session}/turns", json={"prompt": "x"}),
        tenant.client.post("/v1/scores", json={"pairs": [pair]}),
    ):
        assert response.status_code == 400, response.text
        assert "1,536" in response.json()["error"]["message"]
    assert refusal(tenant.edit(size="96x64")) == (400, "too_expensive", "size")
    assert refusal(tenant.edit(n="3")) == (400, "too_expensive", "n")
    assert tenant.edit(n="2").status_code == 200


def test_the_cost_of_a_day_ends_with_a_429_that_says_when_the_next_one_begins(tenant: Tenant) -> None:
    async def used() -> int:
        (count,) = await tenant.tenants._database.column(usage.select().with_only_columns(usage.c.evaluations))
        return count

    tenant.may(evaluations_per_day=20)
    assert tenant.edit().status_code == 200
    tenant.painter.fails = RuntimeError("broken")
    assert tenant.edit().status_code == 500
    tenant.painter.fails = None
    assert tenant.served.run(used) == 4, "what the server could not make is not counted"
    assert tenant.ended(tenant.job(n="2"))["status"] == "completed"
    assert tenant.client.post("/v1/routes", files=FILES, data={"prompt": "remove it"}).status_code == 200
    tenant.served.run(lambda: tenant.tenants.change(tenant.tenant, stored_bytes=1))
    assert refusal(tenant.job()) == (429, "storage_quota_exceeded", None)
    tenant.served.run(lambda: tenant.tenants.change(tenant.tenant, stored_bytes=None))
    assert tenant.served.run(used) == 12, "a job counts once, and a question about the route does not"
    assert events_of(tenant.edit(stream="true"))[0][0] == "image_edit.completed"
    session = tenant.client.post("/v1/sessions", files=FILES).json()["id"]
    turn = {"prompt": "remove it", "steps": 5}
    for response in (
        tenant.edit(steps="5"),
        tenant.edit(steps="5", stream="true"),
        tenant.job(steps="5"),
        tenant.client.post(f"/v1/sessions/{session}/turns", json=turn),
    ):
        assert refusal(response) == (429, "daily_quota_exceeded", None)
        assert 0 < int(response.headers["retry-after"]) <= 24 * 3600
        assert response.headers["x-should-retry"] == "false"
    message = response.json()["error"]["message"]
    assert message.startswith(
        "Your edits of today have taken 16 evaluations and this one needs 5; your tenant may use 20"
    )
    assert tenant.edit().status_code == 200
    assert tenant.served.run(used) == 20


def test_a_tenant_of_another_region_brings_no_work_here_and_still_reads_and_deletes(tenant: Tenant) -> None:
    job = tenant.job().json()["id"]
    tenant.may(region="us-east")
    image = {"image_url": base64.b64encode(FILES["image"][1]).decode()}
    for response in (
        tenant.edit(),
        tenant.job(),
        tenant.client.post("/v1/routes", files=FILES, data={"prompt": "x"}),
        tenant.client.post("/v1/sessions", files=FILES),
        tenant.client.post("/v1/scores", json={"pairs": [{"source": image, "edited": image, "instruction": "x"}]}),
    ):
        assert refusal(response) == (403, "tenant_policy", None)
        assert "'us-east' and this server is in 'eu-central'" in response.json()["error"]["message"]
    assert tenant.client.get(f"/v1/jobs/{job}").status_code == 200
    assert tenant.client.delete(f"/v1/jobs/{job}").status_code == 200
    tenant.may(region="eu-central")
    assert tenant.edit().status_code == 200


def test_a_job_runs_under_the_policy_of_that_time(tenant: Tenant) -> None:
    async def hold() -> None:
        tenant.painter.gate.clear()

    async def go_on() -> None:
        tenant.painter.gate.set()

    for allowed, policy in (
        ("not use the expert 'erase'", {"experts": ["style"]}),
        ("region", {"region": "us-east"}),
        ("may not use the model 'tiny'", {"models": ["other"]}),
        ("image has 48x32 = 1,536 pixels; the limit is 10", {"pixels": 10}),
    ):
        tenant.may()
        tenant.served.run(hold)
        first, second = tenant.job(), tenant.job(expert="erase", model="tiny")
        tenant.may(**policy)
        tenant.served.run(go_on)
        assert tenant.client.get(f"/v1/jobs/{first.json()['id']}/events").status_code == 200
        job = tenant.ended(second)
        assert job["status"] == "failed"
        assert allowed in job["error"]["message"]
        assert job["error"]["code"] == ("too_expensive" if "pixels" in policy else "tenant_policy")


def test_webhooks_go_only_to_the_hosts_of_the_policy(tenant: Tenant) -> None:
    hook = {"url": "https://hooks.example.org/a"}
    for hosts, said in (
        ((), "no host"),
        (("other.example.org", "b.example.org"), "other.example.org or b.example.org"),
    ):
        tenant.may(webhook_hosts=hosts)
        for response in (tenant.client.post("/v1/webhooks", json=hook), tenant.job(webhook=hook["url"])):
            assert refusal(response) == (403, "tenant_policy", None)
            assert f"may go to {said};" in response.json()["error"]["message"]
    tenant.may(webhook_hosts=["hooks.example.org"])
    endpoint = tenant.client.post("/v1/webhooks", json=hook)
    assert endpoint.status_code == 201
    tenant.may(webhook_hosts=[])  # after the address was registered
    job = tenant.ended(tenant.job())
    deliveries: list[Any] = []
    while not deliveries or deliveries[0]["status"] == "pending":
        deliveries = tenant.client.get(f"/v1/jobs/{job['id']}/deliveries").json()["data"]
    assert (deliveries[0]["status"], deliveries[0]["attempts"]) == ("given_up", 1)
    assert "may go to no host" in deliveries[0]["last_error"]
    tenant.client.delete(f"/v1/webhooks/{endpoint.json()['id']}")


def purposes(tenant: Tenant) -> list[list[str]]:
    """What the answers of an edit, a stream, a job and a turn say."""
    session = tenant.client.post("/v1/sessions", files=FILES).json()["id"]
    turn = tenant.client.post(f"/v1/sessions/{session}/turns", json={"prompt": "remove it", "model": "tiny"})
    stream = events_of(tenant.edit(model="tiny", stream="true", partial_images="1"))
    answers = [
        tenant.edit(model="tiny").json(),
        *(data for _, data in stream),
        tenant.ended(tenant.job(model="tiny"))["result"],
        turn.json(),
    ]
    assert len(answers) == 5
    return [answer["careedit"]["purposes"] for answer in answers]


def test_an_edit_of_a_tenant_is_for_nothing_but_the_answer_until_its_policy_says_so(tenant: Tenant) -> None:
    assert purposes(tenant) == [[]] * 5
    assert "copy" not in tenant.arms()
    tenant.may(purposes=["judging", "evaluation", "keep_source"])
    assert purposes(tenant) == [["judging", "evaluation"]] * 5, "without credentials no source is kept"
    assert "copy" not in tenant.arms()
    edit = tenant.edit(model="tiny").json()["careedit"]["id"]
    tenant.arms()
    edits = tenant.served.services.store.edits
    record = tenant.served.run(lambda: edits.get(edit))
    assert record.purposes == ("judging", "evaluation")
    assert record.scores["overall"] == 1.0
    tenant.may(purposes=["shadow"])
    assert purposes(tenant) == [["shadow"]] * 5
    assert tenant.arms().count("copy") == 4
    tenant.may(purposes=["judging"])
    assert tenant.edit(model="other").json()["careedit"]["purposes"] == [], "the guard of this arm asks no judge"


def test_without_a_key_the_configuration_decides_as_it_always_did(tenant: Tenant) -> None:
    with httpx2.Client(base_url=tenant.served.url, timeout=30) as client:
        answer = client.post("/v1/images/edits", files=FILES, data={"prompt": "remove it"}).json()
    assert answer["careedit"]["purposes"] == ["shadow", "judging", "evaluation"]
    assert tenant.arms()[1:] == ["copy"]
