"""How long a store keeps what it has; SQLite runs these cases in tests/unit, PostgreSQL in tests/integration."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from careedit.errors import InputError
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.auth import make_key, make_tenant
from careedit_deployments.state.audit import PRUNE_S, AuditError, AuditHead
from careedit_deployments.state.batch_records import BatchLine, BatchRecord, FileRecord
from careedit_deployments.state.records import ArmEvent, AssignmentRecord, FeedbackRecord, new_id
from careedit_deployments.state.retention import DAY_S
from careedit_deployments.state.store import Store
from careedit_deployments.state.tables import audit
from careedit_deployments.state.tenant_records import Retention
from state_records import NOON, Clock, a_job, a_session, a_turn, an_edit, collect_cases

CASES, case = collect_cases()
"""Every case below, for `pytest.mark.parametrize`, and the decorator that adds one."""


async def a_tenant(store: Store, **days: float) -> str:
    tenant = make_tenant("a tenant")
    await store.tenants.add(tenant)
    if days:
        await store.retention.set(tenant.id, Retention(**days))
    return tenant.id


@case
async def an_edit_is_kept_as_its_tenant_wants_and_feedback_as_long_as_its_edits(store: Store, clock: Clock) -> None:
    brief, other = await a_tenant(store, edits=10), await a_tenant(store)
    old, young, others = (
        an_edit(owner=brief, created=NOON),
        an_edit(owner=brief, created=NOON + 5 * DAY_S),
        an_edit(owner=other, created=NOON),
    )
    for edit in (old, young, others):
        await store.edits.add(edit)
    about = {"old": (old.id,), "both": (young.id, old.id), "young": (young.id,), "others": (others.id,), "lost": ("x",)}
    for name, edits in about.items():
        owner = other if name == "others" else brief
        await store.feedback.add(
            FeedbackRecord(
                id=name, owner=owner, edits=edits, rating=5, created=NOON + (9 if "old" in name else 0) * DAY_S
            )
        )
    clock.now = NOON + 10 * DAY_S
    assert await store.retention.due("edits") == 0
    clock.now += 1
    assert await store.retention.due("edits") == 1
    assert await store.retention.delete("edits") == {"feedback": 3, "edits": 1}
    assert {one.id for one in await store.feedback.latest()} == {"young", "others"}
    clock.now = NOON + 91 * DAY_S
    assert await store.retention.delete("edits") == {"feedback": 2, "edits": 2}


@case
async def a_new_time_holds_for_jobs_and_sessions_that_are_stored(store: Store, clock: Clock) -> None:
    tenant = await a_tenant(store)
    job = await store.jobs.cancel((await store.jobs.add(a_job(owner=tenant))).id)
    quiet, turned = (a_session(owner=tenant, created=NOON, expires=NOON + DAY_S) for _ in range(2))
    for session in (quiet, turned):
        await store.sessions.add(session)
    await store.sessions.add_turn(a_turn(session=turned.id, created=NOON + DAY_S / 2), expires=NOON + DAY_S)

    async def ends() -> list[float]:
        sessions = [(await store.sessions.get(session.id)).expires for session in (quiet, turned)]
        return [((await store.jobs.get(job.id)).expires - NOON) / DAY_S, *((end - NOON) / DAY_S for end in sessions)]

    await store.retention.set(tenant, Retention(jobs=2, sessions=3))
    assert await ends() == pytest.approx([2, 3, 3.5])
    late = await store.jobs.cancel((await store.jobs.add(a_job(owner=tenant))).id)
    assert (await store.jobs.get(late.id)).expires == NOON + 2 * DAY_S
    assert await store.retention.kept_s(tenant, "sessions", 1.0) == 3 * DAY_S
    await store.retention.set(tenant, Retention(sessions=60))
    assert await ends() == pytest.approx([7, 30, 30]), "the configuration's own end of a session holds as well"
    await store.retention.set(tenant, Retention())
    assert await ends() == pytest.approx([7, 1, 1.5])
    assert (await store.tenants.get(tenant)).retention is None
    with pytest.raises(NotFoundError, match="does not exist"):
        await store.retention.set("tenant_x", Retention(jobs=1))


@case
async def a_new_time_holds_for_batches_and_files_that_are_stored(store: Store, clock: Clock) -> None:
    brief, other = await a_tenant(store), await a_tenant(store)
    for tenant in (brief, other):
        times = {"owner": tenant, "created": NOON, "expires": NOON + 8 * DAY_S}
        file = FileRecord(id=f"results {tenant}", name="a", purpose="batch", bytes=1, batch=f"batch {tenant}", **times)
        for name in ("read", "unread"):
            await store.files.add(
                file.model_copy(update={"id": f"{name} {tenant}", "batch": None, "expires": NOON + 7 * DAY_S})
            )
        batch = BatchRecord(id=f"batch {tenant}", input_file=f"read {tenant}", deadline=NOON + DAY_S, **times)
        await store.batches.add(batch)
        await store.files.add(file)
        job = await store.jobs.add(a_job(id=f"job {tenant}", owner=tenant))
        await store.batches.add_lines([BatchLine(batch=batch.id, number=1, custom_id="a", job=job.id)])
        await store.jobs.cancel(job.id)
        await store.batches.keep_jobs(batch)

    async def ends(tenant: str) -> dict[str, float]:
        found = {
            name: await store.files.get(f"{name} {tenant}", owner=tenant) for name in ("read", "unread", "results")
        }
        found |= {"batch": await store.batches.get(f"batch {tenant}"), "job": await store.jobs.get(f"job {tenant}")}
        return {name: (record.expires - NOON) / DAY_S for name, record in found.items()}

    as_configured = {"read": 7, "unread": 7, "results": 8, "batch": 8, "job": 8}
    assert await ends(brief) == as_configured
    await store.retention.set(brief, Retention(jobs=0.5))
    assert await ends(brief) == {"read": 1, "unread": 0.5, "results": 1.5, "batch": 1.5, "job": 1.5}
    assert await ends(other) == as_configured
    await store.retention.set(brief, Retention())
    assert await ends(brief) == as_configured


@case
async def assignments_events_and_keys_end_and_each_arm_keeps_its_latest_event(store: Store, clock: Clock) -> None:
    brief = await a_tenant(store, assignments=1)
    for user, owner in (("a", brief), ("b", None), ("c", "other")):
        record = AssignmentRecord(user_sha256=user * 64, salt="s", owner=owner, arm=user, created=NOON)
        await store.arms.assign(record)
    for i, (arm, kind) in enumerate([("a", "cut"), ("a", "restored"), ("b", "cut")]):
        await store.arms.add(ArmEvent(id=new_id("arm"), arm=arm, kind=kind, reason="It failed.", created=NOON + i))
    keys = [make_key(name, brief, expires=NOON + end)[1] for name, end in (("x", DAY_S), ("y", 1e9))]
    for key in keys:
        await store.keys.add(key)
    clock.now = NOON + 2 * DAY_S
    assert await store.retention.delete("assignments") == {"assignments": 1}
    assert set(await store.arms.assigned("s")) == {"b", "c"}
    clock.now = NOON + 367 * DAY_S
    assert await store.retention.delete("assignments") == {"assignments": 2}
    assert await store.retention.delete("arm_events") == {"arm_events": 1}
    assert (await store.arms.disabled(), len(await store.arms.events())) == ({"b"}, 2)
    assert await store.retention.delete("keys") == {"keys": 1}
    assert [pair.key.name for pair in await store.keys.all()] == ["y"]


@case
async def the_audit_log_is_whole_after_old_entries_are_deleted(store: Store, clock: Clock) -> None:
    for _ in range(3):
        await store.audit.add("key_1", "session.deleted", "session_1")
    early = await store.audit.verify()
    clock.now = NOON + 10
    for _ in range(2):
        await store.audit.add("key_1", "job.deleted", "job_1")
    late = await store.audit.verify()
    assert await store.audit.due(NOON + PRUNE_S) == 0, "the oldest is due, but not for a day"
    clock.now = NOON + PRUNE_S + 20
    await store.audit.add("key_1", "job.deleted", "job_2")
    assert await store.audit.due(NOON + PRUNE_S + 5) == 5
    assert await store.audit.prune(NOON + PRUNE_S + 5) == 5
    assert await store.audit.start() == late
    assert (await store.audit.verify([late])).number == 7
    assert [entry.number for entry in await store.audit.latest()] == [7, 6]
    with pytest.raises(InputError, match="entries up to 5 were deleted because of their age"):
        await store.audit.verify([early])
    with pytest.raises(AuditError, match="entry 5 had another hash"):
        await store.audit.verify([AuditHead(number=5, sha256="0" * 64)])
    clock.now += 3 * PRUNE_S
    assert await store.audit.prune(clock.now - PRUNE_S) == 2
    assert (await store.audit.verify()).number == 8, "the entry about the first deletion is gone as well"
    await store.audit.add("key_1", "job.deleted", "job_3")
    async with store._database.write() as connection:
        await connection.execute(delete(audit).where(audit.c.number == 8))
    with pytest.raises(AuditError, match="entries 1 to 8 are missing"):
        await store.audit.verify()


@case
async def a_false_start_of_the_audit_log_is_found(store: Store, clock: Clock) -> None:
    for _ in range(3):
        await store.audit.add("key_1", "session.deleted", "session_1")
    assert await store.audit.prune(NOON + 2 * PRUNE_S) == 3
    async with store._database.write() as connection:
        false = {"number": 3, "sha256": "0" * 64}
        await connection.execute(update(audit).values(detail=false))
    with pytest.raises(AuditError, match="hash of entry 4 does not fit"):
        await store.audit.verify()
