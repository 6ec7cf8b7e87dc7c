"""What every database must do for several tenants; SQLite runs these cases in tests/unit, PostgreSQL in tests/integration."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from careedit_deployments.errors import ConflictError, NotFoundError, OverloadedError, QuotaError
from careedit_deployments.state.audit import FIRST, AuditError, AuditHead
from careedit_deployments.state.queue import FULL_S
from careedit_deployments.state.records import AssignmentRecord, FeedbackRecord, JobRecord
from careedit_deployments.state.store import Store
from careedit_deployments.state.tables import audit, jobs, values_of
from careedit_deployments.state.tenant_records import EndpointRecord, KeyRecord, TenantRecord
from careedit_deployments.state.tenants import KeyOfTenant
from state_records import NOON, Clock, a_job, a_session, an_edit, collect_cases, progress

TERMS = {"lease_s": 10.0, "attempts": 3}
CASES, case = collect_cases()
"""Every case below, for `pytest.mark.parametrize`, and the decorator that adds one."""


async def two_keys(store: Store) -> tuple[TenantRecord, KeyRecord, KeyRecord]:
    tenant = TenantRecord(id="tenant_1", name="a team", concurrent_requests=2, created=NOON)
    await store.tenants.add(tenant)
    one, other = (KeyRecord(id=f"key_{c}", tenant=tenant.id, sha256=c * 64, name=c, created=NOON) for c in "cd")
    for key in (one, other):
        await store.keys.add(key)
    return tenant, one, other


@case
async def a_key_is_found_with_its_tenant_until_it_is_revoked_or_expires(store: Store, clock: Clock) -> None:
    tenant, one, other = await two_keys(store)
    assert await store.keys.find("c" * 64) == KeyOfTenant(key=one, tenant=tenant)
    assert await store.keys.find("e" * 64) is None
    assert await store.keys.revoke(one.id) is True
    assert await store.keys.revoke(one.id) is False
    assert await store.keys.find("c" * 64) is None
    assert await store.keys.invalid([one.id, other.id, "key_x"]) == {one.id, "key_x"}
    await store.keys.touch([other.id])
    new = other.model_copy(update={"id": "key_new", "sha256": "f" * 64, "scopes": ("read",), "used": None})
    assert await store.keys.rotate(one.id, new, overlap_s=60) is False, "a revoked key is not replaced"
    assert await store.keys.rotate(other.id, new, overlap_s=60) is True
    assert (await store.keys.find("d" * 64)).key.expires == NOON + 60
    clock.now += 60
    assert await store.keys.find("d" * 64) is None
    assert await store.keys.find("f" * 64) == KeyOfTenant(key=new, tenant=tenant), "the data stay with the tenant"
    known = {found.key.id: (found.key.revoked, found.key.used) for found in await store.keys.all()}
    assert known == {one.id: (NOON, None), other.id: (None, NOON), new.id: (None, None)}


@case
async def a_tenants_limits_are_changed_for_all_of_its_keys(store: Store, clock: Clock) -> None:
    tenant, *_ = await two_keys(store)
    await store.tenants.change(tenant.id, requests_per_minute=9, concurrent_requests=None, clear_names=True)
    limits = {"requests_per_minute": 9, "concurrent_requests": None}
    changed = tenant.model_copy(update={**limits, "clear_names": True})
    assert await store.tenants.all() == [changed]
    assert {found.tenant for found in await store.keys.all()} == {changed}
    for ask in (store.tenants.get, store.tenants.change):
        with pytest.raises(NotFoundError):
            await (ask("tenant_x") if ask == store.tenants.get else ask("tenant_x", requests_per_minute=1))


@case
async def the_jobs_of_a_revoked_key_are_cancelled_and_say_why(store: Store, clock: Clock) -> None:
    _, one, other = await two_keys(store)
    await store.jobs.add(a_job(key=one.id))
    running = await store.jobs.claim("w", **TERMS)
    queued, late = [await store.jobs.add(a_job(key=one.id, created=NOON + i)) for i in (1, 2)]
    kept = await store.jobs.add(a_job(key=other.id, created=NOON + 3))
    assert await store.jobs.renew_lease(running, lease_s=10) is False
    await store.keys.revoke(one.id)
    assert await store.jobs.renew_lease(running, lease_s=10) is True
    assert await store.jobs.append(running, progress(running)) is True
    assert await store.jobs.end_queued(one.id) == 2
    await store.jobs.finish(running, "cancelled")
    await store.jobs.add(a_job(key=one.id, created=NOON - 1))  # of a request that was admitted before
    assert (await store.jobs.claim("w", **TERMS)).id == kept.id
    ended = [job for job in await store.jobs.page("anonymous") if job.status == "cancelled"]
    assert len(ended) == 4
    assert {queued.id, late.id, running.id} < {job.id for job in ended}
    for job in ended:
        assert job.error["code"] == "key_revoked"
        assert (await store.jobs.events(job.id))[-1].data["code"] == "key_revoked"


@case
async def requests_at_once_cannot_store_more_than_the_quota(store: Store, clock: Clock) -> None:
    tenant, *_ = await two_keys(store)
    large = 2**40
    await store.tenants.change(tenant.id, stored_bytes=10 * large)
    scopes = [f"files/file_{i:052x}" for i in range(8)]
    added = (store.storage.add(scope, tenant.id, 3 * large) for scope in scopes)
    refused = [error for error in await asyncio.gather(*added, return_exceptions=True) if error is not None]
    assert len(refused) == 5
    assert all(isinstance(error, QuotaError) for error in refused)
    assert await store.storage.used(tenant.id) == 9 * large
    with pytest.raises(QuotaError, match="have 9,895,604,649,984 bytes and this request needs 2,199,023,255,552 more"):
        await store.storage.check_room(tenant.id, 2 * large)
    await store.storage.add("files/file_other", "another tenant", 1)
    counted = await store.storage.scopes("files")
    await store.storage.delete(next(scope for scope in scopes if scope in counted))
    await store.storage.check_room(tenant.id, 2 * large)
    await store.storage.take_back("files/file_other", 1)
    assert await store.storage.used("another tenant") == 0


@case
async def an_accepted_job_has_room_for_its_results_and_frees_the_rest_at_its_end(store: Store, clock: Clock) -> None:
    tenant, *_ = await two_keys(store)
    await store.tenants.change(tenant.id, stored_bytes=100)
    job = await store.jobs.add(a_job(owner=tenant.id))
    scope = f"jobs/{job.id}"
    await store.storage.add(scope, tenant.id, reserve=60)
    await store.storage.add(scope, tenant.id, 10)
    with pytest.raises(QuotaError):
        await store.storage.add("sessions/session_1", tenant.id, 31)
    await store.storage.add(scope, tenant.id, 25, accepted=True)
    assert await store.storage.used(tenant.id) == 70
    await store.storage.add(scope, tenant.id, 70, accepted=True)
    assert await store.storage.used(tenant.id) == 105, "an accepted job is not refused"
    await store.storage.add("jobs/another", "another tenant", 5, reserve=8)
    claimed = await store.jobs.claim("w", **TERMS)
    await store.jobs.finish(claimed, "completed")
    other = await store.jobs.add(a_job(owner=tenant.id))
    await store.storage.add(f"jobs/{other.id}", "another tenant", reserve=50)
    await store.jobs.cancel(other.id)
    assert await store.storage.used("another tenant") == 13, "a cancelled job reserves nothing"


@case
async def a_tenant_has_as_many_sessions_as_it_may_also_if_they_come_at_once(store: Store, clock: Clock) -> None:
    tenant, *_ = await two_keys(store)
    await store.tenants.change(tenant.id, sessions=2)
    added = (store.sessions.add(a_session(owner=tenant.id)) for _ in range(5))
    refused = [error for error in await asyncio.gather(*added, return_exceptions=True) if error is not None]
    assert len(refused) == 3
    assert all("You have 2 sessions and may have 2" in str(error) for error in refused)
    assert len(await store.sessions.page(tenant.id)) == 2
    clock.now += 100  # they expire
    await store.sessions.add(a_session(owner=tenant.id, expires=clock.now + 1))


async def queue_many(store: Store, owner: str, count: int, **changed: Any) -> None:
    rows = [values_of(a_job(owner=owner, **{"created": NOON + i / 1000, **changed})) for i in range(count)]
    async with store._database.write() as connection:
        await connection.execute(insert(jobs), rows)


async def served(store: Store, count: int, *, end: bool = True) -> list[str]:
    """The owners of the next jobs, each ended before the next one is claimed unless `end` is off."""
    owners = []
    for _ in range(count):
        job = await store.jobs.claim("w", **TERMS)
        owners.append(job.owner)
        if end:
            await store.jobs.finish(job, "completed")
    return owners


@case
async def the_audit_log_is_one_chain_whoever_writes(store: Store, clock: Clock) -> None:
    assert await store.audit.verify() == AuditHead(number=0, sha256=FIRST)
    added = [store.audit.add(f"key_{i}", "job.deleted", "job\x00", count=i, why=("ü", None)) for i in range(6)]
    await asyncio.gather(*added)
    early = await store.audit.verify()
    await store.audit.add("me", "key.added", "key_1", share=0.1)
    head = await store.audit.verify([early])
    assert (early.number, head.number) == (6, 7)
    kept = await store.audit.latest()
    for change, said in (
        (update(audit).where(audit.c.number == 3).values(actor="another"), "entry 3 does not fit"),
        (update(audit).where(audit.c.number == 2).values(sha256="0" * 64), "entry 2 does not fit"),
        (delete(audit).where(audit.c.number.in_([4, 5])), "4 to 5 are missing"),
        (delete(audit).where(audit.c.number == 1), "1 to 1 are missing"),
        (delete(audit).where(audit.c.number > 5), "ends with entry 5, but there was an entry 7"),
    ):
        await store._database.change(change)
        with pytest.raises(AuditError, match=said):
            await store.audit.verify([head])
        async with store._database.write() as connection:
            await connection.execute(delete(audit))
            await connection.execute(insert(audit), [values_of(entry) for entry in kept])
    await store._database.change(delete(audit).where(audit.c.number == 7))
    await store.audit.add("me", "key.added", "key_2")
    with pytest.raises(AuditError, match="entry 7 had another hash"):
        await store.audit.verify([early, head])


@case
async def a_tenant_with_many_jobs_delays_another_ones_first_job_by_one_job(store: Store, clock: Clock) -> None:
    await queue_many(store, "many", 500, cost=20.0)
    held = [await store.jobs.claim(f"w{i}", **TERMS) for i in range(2)]
    assert {job.owner for job in held} == {"many"}
    late = await store.jobs.add(a_job(owner="few", cost=20.0, created=NOON + 9))
    assert await store.jobs.ahead(late) == 0
    await store.jobs.finish(held[0], "completed")
    assert (await store.jobs.claim("w0", **TERMS)).id == late.id, "the first worker that becomes free takes it"
    await queue_many(store, "few", 9, cost=20.0, created=NOON + 10)
    assert Counter(await served(store, 6)) == {"few": 3, "many": 3}


@case
async def shares_are_of_work_and_not_of_jobs(store: Store, clock: Clock) -> None:
    await queue_many(store, "large", 50, cost=30.0)
    await queue_many(store, "small", 200, cost=3.0)
    owners = await served(store, 110)
    assert (owners.count("large"), owners.count("small")) == (10, 100)


@case
async def a_tenant_that_was_idle_gains_nothing_by_it(store: Store, clock: Clock) -> None:
    await queue_many(store, "steady", 40, cost=5.0)
    assert await served(store, 20) == ["steady"] * 20
    await queue_many(store, "idle", 40, cost=5.0)
    assert (await served(store, 10)).count("idle") in (5, 6)


@case
async def a_job_that_has_begun_comes_first_and_counts_once(store: Store, clock: Clock) -> None:
    await queue_many(store, "one", 3, cost=10.0)
    await queue_many(store, "two", 3, cost=10.0)
    released, lost = [await store.jobs.claim("w", **TERMS) for _ in range(2)]
    assert (released.owner, lost.owner) == ("one", "two")
    await store.jobs.release(released)
    assert (await store.jobs.claim("w", **TERMS)).id == released.id
    assert await store.jobs.renew_lease(released, lease_s=60) is False
    clock.now += 11
    again = await store.jobs.claim("w", **TERMS)
    assert (again.id, again.attempt) == (lost.id, 2)
    assert sorted(await served(store, 4)) == ["one", "one", "two", "two"]


@case
async def workers_that_come_at_once_serve_tenants_alike(store: Store, clock: Clock) -> None:
    for owner in ("a", "b", "c"):
        await queue_many(store, owner, 8, cost=7.0)
    shares = await asyncio.gather(*(served(store, 3, end=False) for _ in range(4)))
    assert Counter(owner for share in shares for owner in share) == {"a": 4, "b": 4, "c": 4}


@case
async def a_job_knows_how_many_come_before_it(store: Store, clock: Clock) -> None:
    await queue_many(store, "many", 6, cost=4.0)
    await queue_many(store, "few", 2, cost=4.0, created=NOON + 5)
    waiting = [*(await store.jobs.page("many")), *(await store.jobs.page("few"))]
    places = {job.id: await store.jobs.ahead(job) for job in waiting}
    assert sorted(places.values()) == list(range(8))
    order = []
    while (job := await store.jobs.claim("w", **TERMS)) is not None:
        order.append(job.id)
    assert [places[job] for job in order] == list(range(8)), "they begin in the order that was promised"


@case
async def a_tenant_may_wait_with_as_many_jobs_as_places_are_free(store: Store, clock: Clock) -> None:
    async def fill(owner: str) -> int:
        for count in range(100):
            try:
                await store.jobs.check_room(owner, 24)
                await store.jobs.add(a_job(owner=owner), max_queued=24)
            except OverloadedError as error:
                with pytest.raises(type(error)):
                    await store.jobs.add(a_job(owner=owner), max_queued=24)
                assert error.retry_after == FULL_S
                return count
        raise AssertionError

    assert [await fill(owner) for owner in ("a", "b", "c")] == [12, 6, 3]
    assert await fill("anonymous") == 3, "without keys only the whole queue is limited"
    with pytest.raises(OverloadedError, match="24 jobs are waiting"):
        await store.jobs.add(a_job(owner="d"), max_queued=24)


async def ended(store: Store, **changed: Any) -> JobRecord:
    return await store.jobs.cancel((await store.jobs.add(a_job(**changed))).id)


@case
async def an_ended_job_writes_one_message_per_endpoint_of_its_tenant_and_to_its_own_address(
    store: Store, clock: Clock
) -> None:
    for number, owner, url in (
        (1, "a", "https://a.example"),
        (2, "a", "https://a2.example"),
        (3, "b", "https://b.example"),
    ):
        endpoint = EndpointRecord(id=f"endpoint_{number}", owner=owner, url=url, secret=f"s{number}", created=NOON)
        await store.endpoints.add(endpoint, limit=2)
    for url, limit, said in (
        ("https://a.example", 3, "registered already"),
        ("https://a3.example", 2, "2 webhook endpoints"),
    ):
        with pytest.raises(ConflictError, match=said):
            await store.endpoints.add(EndpointRecord(id="x", owner="a", url=url, secret="s", created=NOON), limit=limit)
    job = await ended(store, owner="a", webhook="https://a2.example")
    other = await ended(store, owner="a", webhook="https://own.example")
    messages = await store.webhooks.of(job.id)
    assert {(one.url, one.endpoint) for one in messages} == {
        ("https://a.example", "endpoint_1"),
        ("https://a2.example", "endpoint_2"),
    }
    assert {one.endpoint for one in await store.webhooks.of(other.id)} == {None, "endpoint_1", "endpoint_2"}
    assert await store.webhooks.of((await ended(store)).id) == []
    assert {json.loads(one.payload)["data"]["tenant"] for one in messages} == {"a"}
    assert [one.id for one in await store.endpoints.all("b")] == ["endpoint_3"]


@case
async def an_endpoint_has_two_secrets_while_it_is_rotated(store: Store, clock: Clock) -> None:
    await store.endpoints.add(
        EndpointRecord(id="endpoint_1", owner="a", url="https://a.example", secret="one", created=NOON), limit=1
    )
    assert await store.webhooks.secrets("endpoint_1") == ("one",)
    assert (await store.endpoints.rotate("endpoint_1", "a", "two", overlap_s=60)).secret == "two"
    assert await store.webhooks.secrets("endpoint_1") == ("two", "one")
    clock.now += 60
    assert await store.webhooks.secrets("endpoint_1") == ("two",)
    for ask in (store.endpoints.delete("endpoint_1", "b"), store.endpoints.rotate("endpoint_1", "b", "x", overlap_s=1)):
        with pytest.raises(NotFoundError):
            await ask
    await store.endpoints.delete("endpoint_1", "a")
    assert await store.webhooks.secrets("endpoint_1") == ()


@case
async def a_message_is_sent_again_when_its_owner_asks(store: Store, clock: Clock) -> None:
    job = await ended(store, webhook="https://a.example")
    first = await store.webhooks.claim(lease_s=60)
    assert first is not None
    assert await store.webhooks.resend(job.id) == 0, "it is in sending"
    await store.webhooks.settle(first, error="The receiver answered 500.")
    assert await store.webhooks.resend(job.id) == 1
    again = await store.webhooks.claim(lease_s=60)
    assert again is not None
    assert (again.id, again.attempt, again.resent_after, again.attempted) == (first.id, 2, 1, NOON)
    assert await store.webhooks.claim(lease_s=60) is None


@case
async def messages_of_crowded_tenants_wait(store: Store, clock: Clock) -> None:
    for owner in ("a", "a", "b"):
        await ended(store, owner=owner, webhook="https://a.example")
    assert (await store.webhooks.claim(lease_s=60, without=["a"])).owner == "b"
    assert await store.webhooks.claim(lease_s=60, without=["a"]) is None
    assert (await store.webhooks.claim(lease_s=60)).owner == "a"


@case
async def what_a_user_of_a_tenant_has_is_found_and_deleted(store: Store, clock: Clock) -> None:
    def order(user: str) -> dict[str, Any]:
        return {**a_job().order, "user": user}

    mine = await store.jobs.add(a_job(owner="t", order=order("me")))
    for owner, user in (("t", "you"), ("u", "me")):
        await store.jobs.add(a_job(owner=owner, order=order(user)))
    session, shared = a_session(owner="t", user="me"), a_session(owner="t")
    for one in (session, shared):
        await store.sessions.add(one)
    turn = an_edit(owner="t", user="me", request_id=f"{shared.id}/req_1")
    shadow = an_edit(owner="t", shadow_of=turn.id)
    others = [an_edit(owner="u", user="me"), an_edit(owner="t", user="you"), an_edit(owner="t")]
    for edit in (turn, shadow, *others):
        await store.edits.add(edit)
        rating = {"id": f"about_{edit.id}", "owner": edit.owner, "edits": (edit.id,), "rating": 5, "created": NOON}
        await store.feedback.add(FeedbackRecord(**rating))
    for user in ("me", "you"):
        sha256 = hashlib.sha256(f"4:salt{user}".encode()).hexdigest()
        await store.arms.assign(AssignmentRecord(user_sha256=sha256, salt="salt", arm="a", created=NOON))
    await store.storage.add("files/file_1", "t", 1, user="me")
    await store.storage.add("files/file_2", "t", 1, user="you")
    data = await store.persons.find("t", ("me", "in clear"))
    assert (data.jobs, data.files, len(data.assignments)) == ((mine.id,), ("files/file_1",), 1)
    assert set(data.sessions) == {session.id, shared.id}
    assert set(data.edits) == {turn.id, shadow.id}
    assert set(data.feedback) == {f"about_{turn.id}", f"about_{shadow.id}"}
    everything = await store.persons.find("t", None)
    found = (everything.jobs, everything.edits, everything.files, everything.assignments)
    assert [len(one) for one in found] == [2, 4, 2, 2]
    await store.persons.delete(data)
    assert {edit.id for edit in await store.edits.latest()} == {edit.id for edit in others}
    assert await store.arms.assigned("salt") == {"a": 1}
    left = await store.persons.find("t", ("me",))
    assert (left.edits, left.feedback, left.assignments) == ((), (), ())
