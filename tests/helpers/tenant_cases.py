"""What every database must do for several tenants; SQLite runs these cases in tests/unit, PostgreSQL in tests/integration."""

from __future__ import annotations

import pytest

from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.records import KeyRecord, TenantRecord
from careedit_deployments.state.store import Store
from careedit_deployments.state.tenants import KeyOfTenant
from state_records import NOON, Clock, a_job, collect_cases, progress

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
    await store.tenants.limit(tenant.id, requests_per_minute=9, concurrent_requests=None)
    changed = tenant.model_copy(update={"requests_per_minute": 9, "concurrent_requests": None})
    assert await store.tenants.all() == [changed]
    assert {found.tenant for found in await store.keys.all()} == {changed}
    for ask in (store.tenants.get, store.tenants.limit):
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
