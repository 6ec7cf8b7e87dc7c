"""What every database must do; SQLite runs these cases in tests/unit, PostgreSQL in tests/integration."""

from __future__ import annotations

import asyncio

import pytest

from careedit_deployments.errors import ConflictError, NotFoundError, OverloadedError
from careedit_deployments.state.batch_records import BatchLine, BatchRecord, FileRecord
from careedit_deployments.state.queue import FULL_S
from careedit_deployments.state.records import (
    ArmEvent,
    AssignmentRecord,
    FeedbackRecord,
    JobImage,
    new_id,
)
from careedit_deployments.state.store import Store
from state_records import NOON, Clock, a_job, a_session, a_turn, an_edit, collect_cases, progress

TERMS = {"lease_s": 10.0, "attempts": 3}
CASES, case = collect_cases()
"""Every case below, for `pytest.mark.parametrize`, and the decorator that adds one."""


async def kinds(store: Store, job_id: str) -> list[str]:
    return [event.kind for event in await store.jobs.events(job_id)]


@case
async def jobs_are_claimed_oldest_first_and_each_once(store: Store, clock: Clock) -> None:
    jobs = [await store.jobs.add(a_job(created=NOON + i)) for i in (2, 0, 1)]
    claimed = [await store.jobs.claim("w", **TERMS) for _ in range(4)]
    assert [job and job.id for job in claimed] == [jobs[1].id, jobs[2].id, jobs[0].id, None]


@case
async def a_queue_takes_no_more_than_it_may_hold_and_knows_what_is_in_it(store: Store, clock: Clock) -> None:
    first = await store.jobs.add(a_job(idempotency_key="k"), max_queued=2)
    await store.jobs.add(a_job(), max_queued=2)
    with pytest.raises(OverloadedError, match="2 jobs are waiting") as caught:
        await store.jobs.add(a_job(), max_queued=2)
    assert caught.value.retry_after == FULL_S
    assert await store.jobs.waiting() == 2, "nothing is left of the one that was refused"
    assert (await store.jobs.add(a_job(idempotency_key="k"), max_queued=2)).id == first.id
    await store.jobs.claim("w", **TERMS)
    await store.jobs.add(a_job(), max_queued=2)


@case
async def workers_that_come_at_once_share_the_jobs_without_overlap(store: Store, clock: Clock) -> None:
    added = {(await store.jobs.add(a_job())).id for _ in range(12)}

    async def take(worker: str) -> list[str]:
        taken = []
        while (job := await store.jobs.claim(worker, **TERMS)) is not None:
            taken.append(job.id)
        return taken

    shares = await asyncio.gather(*(take(f"w{i}") for i in range(4)))
    taken = [job for share in shares for job in share]
    assert len(taken) == 12
    assert set(taken) == added


@case
async def a_silent_workers_job_is_taken_up_and_its_own_writes_count_no_more(store: Store, clock: Clock) -> None:
    await store.jobs.add(a_job())
    first = await store.jobs.claim("first", **TERMS)
    assert await store.jobs.append(first, progress(first)) is False
    clock.now += 9
    assert await store.jobs.renew_lease(first, lease_s=10) is False
    clock.now += 9
    assert await store.jobs.claim("second", **TERMS) is None, "the lease was renewed"
    clock.now += 2
    second = await store.jobs.claim("second", **TERMS)
    assert (second.id, second.attempt, second.started) == (first.id, 2, NOON)
    assert await store.jobs.append(first, progress(first)) is None
    assert await store.jobs.renew_lease(first, lease_s=10) is None
    assert await store.jobs.finish(first, "completed") is None
    assert await store.jobs.release(first) is False
    ended = await store.jobs.finish(second, "completed")
    assert (ended.status, ended.worker) == ("completed", "second")
    assert await store.jobs.finish(second, "failed", error={"code": "x", "message": "x"}) is None
    assert await kinds(store, first.id) == ["queued", "started", "progress", "started", "completed"]


@case
async def a_job_whose_workers_all_died_fails_with_that_reason(store: Store, clock: Clock) -> None:
    job = await store.jobs.add(a_job(webhook="https://example.org"))
    for attempt in (1, 2, 3):
        assert (await store.jobs.claim("w", **TERMS)).attempt == attempt
        clock.now += 11
    assert await store.jobs.claim("w", **TERMS) is None
    failed = await store.jobs.get(job.id)
    assert (failed.status, failed.attempt, failed.error["code"]) == ("failed", 3, "worker_lost")
    assert failed.expires > clock.now
    assert (await kinds(store, job.id))[-1] == "failed"
    assert len(await store.webhooks.of(job.id)) == 1


@case
async def a_job_that_is_given_back_is_taken_at_once_and_has_lost_no_attempt(store: Store, clock: Clock) -> None:
    job = await store.jobs.add(a_job())
    assert await store.jobs.release(await store.jobs.claim("one", **TERMS)) is True
    again = await store.jobs.claim("two", **TERMS)
    assert (again.id, again.attempt, again.worker) == (job.id, 1, "two")
    assert await kinds(store, job.id) == ["queued", "started", "requeued", "started"]


@case
async def events_are_numbered_from_one_and_read_from_any_number_on(store: Store, clock: Clock) -> None:
    await store.jobs.add(a_job())
    job = await store.jobs.claim("w", **TERMS)
    image = {"edit_id": "e", "arm": "a", "picture": "p", "trace": {"seed": 1}}
    for number in (1, 0, 1):
        await store.jobs.append(job, progress(job), image=JobImage(image=number, **image))
    events = await store.jobs.events(job.id, after=2)
    assert [event.number for event in events] == [3, 4, 5]
    kept = await store.jobs.get(job.id)
    assert [made.image for made in kept.images] == [0, 1]
    assert kept.last_event == 5


@case
async def a_queued_job_is_cancelled_at_once_and_a_running_one_by_its_worker(store: Store, clock: Clock) -> None:
    queued = await store.jobs.add(a_job())
    assert (await store.jobs.cancel(queued.id)).status == "cancelled"
    await store.jobs.add(a_job())
    running = await store.jobs.claim("w", **TERMS)
    asked = await store.jobs.cancel(running.id)
    assert (asked.status, asked.cancel_requested) == ("running", True)
    assert await store.jobs.append(running, progress(running)) is True
    assert await store.jobs.renew_lease(running, lease_s=10) is True
    clock.now += 11  # and if that worker is dead, whoever comes next sees to it
    assert await store.jobs.claim("other", **TERMS) is None
    assert (await store.jobs.get(running.id)).status == "cancelled"


@case
async def an_idempotency_key_is_one_job_per_owner(store: Store, clock: Clock) -> None:
    first = await store.jobs.add(a_job(idempotency_key="k"))
    assert (await store.jobs.add(a_job(idempotency_key="k"))).id == first.id
    other = await store.jobs.add(a_job(idempotency_key="k", owner="somebody"))
    assert other.id != first.id
    with pytest.raises(ConflictError, match="another body"):
        await store.jobs.add(a_job(idempotency_key="k", body_sha256="b" * 64))
    assert {(await store.jobs.add(a_job())).id for _ in range(2)}.isdisjoint({first.id})


@case
async def the_same_key_sent_at_once_makes_one_job(store: Store, clock: Clock) -> None:
    added = await asyncio.gather(*(store.jobs.add(a_job(idempotency_key="k")) for _ in range(8)))
    assert len({job.id for job in added}) == 1
    assert len(await store.jobs.page("anonymous")) == 1


@case
async def only_the_owner_sees_a_job(store: Store, clock: Clock) -> None:
    job = await store.jobs.add(a_job(owner="mine"))
    assert (await store.jobs.get(job.id, owner="mine")).id == job.id
    assert await store.jobs.page("other") == []
    for ask in (store.jobs.get, store.jobs.cancel):
        with pytest.raises(NotFoundError):
            await ask(job.id, owner="other")
    assert (await store.jobs.get(job.id)).status == "queued"


@case
async def pages_go_from_new_to_old(store: Store, clock: Clock) -> None:
    ids = [(await store.jobs.add(a_job(id=f"job_{i:032x}"))).id for i in range(5)]
    first = await store.jobs.page("anonymous", limit=2)
    second = await store.jobs.page("anonymous", limit=9, before=first[-1].id)
    assert [job.id for job in (*first, *second)] == ids[::-1]
    assert [await store.jobs.ahead(job) for job in (*first, *second)] == [4, 3, 2, 1, 0]


@case
async def an_ended_job_expires_and_leaves_no_row(store: Store, clock: Clock) -> None:
    job = await store.jobs.add(a_job(idempotency_key="k", webhook="https://example.org"))
    await store.jobs.cancel(job.id)
    assert await store.jobs.expired() == []
    clock.now += 8 * 24 * 3600
    assert await store.jobs.expired() == [job.id]
    await store.jobs.delete(job.id)
    assert await store.jobs.events(job.id) == []
    assert await store.webhooks.of(job.id) == []
    assert await store.jobs.existing([job.id]) == frozenset()
    assert (await store.jobs.add(a_job(idempotency_key="k"))).id != job.id, "the key is free again"


@case
async def a_subscriber_is_woken_by_changes_of_this_process(store: Store, clock: Clock) -> None:
    events = {topic: store.jobs.subscribe(topic) for topic in ("queued", "event", "cancel", "webhook")}
    job = await store.jobs.add(a_job())
    assert [topic for topic, event in events.items() if event.is_set()] == ["queued"]
    await store.jobs.cancel(job.id)
    assert all(event.is_set() for event in events.values())
    assert not store.jobs.subscribe("queued").is_set()


@case
async def an_edit_is_kept_whole_and_replaced_by_its_id(store: Store, clock: Clock) -> None:
    edit = an_edit(experts={"erase": 1.0}, traces=({"seed": 2**60, "filter": None},), user="søren\x00")
    await store.edits.add(an_edit(id=edit.id, outcome="failed"))
    await store.edits.add(edit)
    await store.edits.score(edit.id, {"overall": 0.5})
    kept = await store.edits.get(edit.id)
    assert kept == edit.model_copy(update={"user": "søren\ufffd", "scores": {"overall": 0.5}})
    with pytest.raises(NotFoundError):
        await store.edits.get(edit.id, owner="somebody else")


@case
async def edits_are_counted_by_arm_and_outcome_and_listed_newest_first(store: Store, clock: Clock) -> None:
    for i, (arm, outcome, shadow_of) in enumerate(
        [("a", "made", None), ("a", "made", None), ("a", "failed", None), ("b", "made", "x"), ("a", "made", None)]
    ):
        await store.edits.add(an_edit(arm=arm, outcome=outcome, shadow_of=shadow_of, created=NOON + i, seconds=i + 1.0))
    counts = [
        (count.arm, count.outcome, count.shadow, count.edits) for count in await store.edits.counts(since=NOON + 1)
    ]
    assert counts == [("a", "failed", False, 1), ("a", "made", False, 2), ("b", "made", True, 1)]
    assert (await store.edits.counts(since=NOON + 1))[1].seconds == pytest.approx(3.5)
    latest = await store.edits.latest(arm="a", limit=2)
    assert [edit.created - NOON for edit in latest] == [4, 2]


@case
async def what_is_forgotten_keeps_its_numbers_and_loses_its_words(store: Store, clock: Clock) -> None:
    told = {"instruction": "hide it", "user": "me", "traces": ({"prompt": "hide it"},), "pictures": ("p",)}
    mine = an_edit(request_id="session_1/req_1", scores={"overall": 0.9}, **told)
    others = [an_edit(request_id=request, **told) for request in ("session_10/req_1", "sessionX1/req_1")]
    for edit in (mine, *others):
        await store.edits.add(edit)
        feedback = {"edits": (edit.id, "z"), "winner": "z", "comment": "ugly", "created": NOON}
        await store.feedback.add(FeedbackRecord(id=new_id("feedback"), **feedback))
    assert await store.edits.redact("session_1") == 1
    kept = await store.edits.get(mine.id)
    assert (kept.instruction, kept.user, kept.traces, kept.pictures) == (None, None, (), ())
    assert (kept.outcome, kept.seconds, kept.scores) == ("made", 1.0, {"overall": 0.9})
    comments = {feedback.edits[0]: feedback.comment for feedback in await store.feedback.latest()}
    assert comments == {mine.id: None, others[0].id: "ugly", others[1].id: "ugly"}
    assert [(await store.edits.get(edit.id)).instruction for edit in others] == ["hide it", "hide it"]


@case
async def an_arm_is_cut_as_its_latest_event_says(store: Store, clock: Clock) -> None:
    for i, (arm, kind) in enumerate([("a", "cut"), ("b", "cut"), ("a", "restored"), ("c", "restored")]):
        await store.arms.add(ArmEvent(id=new_id("arm"), arm=arm, kind=kind, reason="It failed.", created=NOON + i))
    assert await store.arms.disabled() == {"b"}
    assert [event.kind for event in await store.arms.events(arm="a")] == ["restored", "cut"]


@case
async def a_user_is_assigned_once_per_salt(store: Store, clock: Clock) -> None:
    for user, arm in (("u", "a"), ("v", "a"), ("u", "b")):
        await store.arms.assign(AssignmentRecord(user_sha256=user * 64, salt="s", arm=arm, created=NOON))
    assert await store.arms.assigned("s") == {"a": 1, "b": 1}
    assert await store.arms.assigned("t") == {}


@case
async def what_was_done_is_audited(store: Store, clock: Clock) -> None:
    await store.audit.add("key_1", "session.deleted", "session_1")
    clock.now += 1
    await store.audit.add("sweeper", "state.swept", "", jobs=3)
    assert [(one.actor, one.detail) for one in await store.audit.latest()] == [("sweeper", {"jobs": 3}), ("key_1", {})]


@case
async def a_webhook_is_due_once_and_later_again(store: Store, clock: Clock) -> None:
    job = await store.jobs.add(a_job(webhook="https://example.org/hook"))
    await store.jobs.cancel(job.id)
    first = await store.webhooks.claim(lease_s=60)
    assert (first.url, first.attempt) == ("https://example.org/hook", 1)
    assert await store.webhooks.claim(lease_s=60) is None
    await store.webhooks.settle(first, error="The receiver answered 500.", retry_in_s=5)
    clock.now += 4
    assert await store.webhooks.claim(lease_s=60) is None
    clock.now += 2
    second = await store.webhooks.claim(lease_s=60)
    assert (second.id, second.attempt) == (first.id, 2)
    clock.now += 61  # its sender died
    third = await store.webhooks.claim(lease_s=60)
    assert third.attempt == 3
    await store.webhooks.settle(second)  # comes too late to count
    assert [one.status for one in await store.webhooks.of(job.id)] == ["pending"]
    await store.webhooks.settle(third)
    assert [one.status for one in await store.webhooks.of(job.id)] == ["delivered"]


@case
async def turns_are_numbered_and_the_latest_is_the_head(store: Store, clock: Clock) -> None:
    session = a_session()
    await store.sessions.add(session)
    turns = await asyncio.gather(*(store.sessions.add_turn(a_turn(session.id), expires=NOON + 200) for _ in range(4)))
    assert sorted(turn.number for turn in turns) == [1, 2, 3, 4]
    kept = await store.sessions.get(session.id)
    history = await store.sessions.turns(session.id)
    assert (kept.turns, kept.head, kept.expires) == (4, history[-1].id, NOON + 200)
    assert [turn.number for turn in history] == [1, 2, 3, 4]


@case
async def a_head_moves_only_from_where_it_was_seen(store: Store, clock: Clock) -> None:
    session = a_session()
    await store.sessions.add(session)
    turn = await store.sessions.add_turn(a_turn(session.id), expires=NOON + 200)
    assert await store.sessions.move_head(session.id, seen=None, to="x") is False
    assert await store.sessions.move_head(session.id, seen=turn.id, to=None) is True
    assert await store.sessions.move_head(session.id, seen=None, to=turn.id) is True


@case
async def an_expired_session_is_gone_before_it_is_swept(store: Store, clock: Clock) -> None:
    session = a_session(owner="mine")
    await store.sessions.add(session)
    with pytest.raises(NotFoundError):
        await store.sessions.get(session.id, owner="other")
    assert [one.id for one in await store.sessions.page("mine")] == [session.id]
    clock.now = session.expires
    with pytest.raises(NotFoundError, match="expired"):
        await store.sessions.get(session.id)
    with pytest.raises(NotFoundError):
        await store.sessions.add_turn(a_turn(session.id), expires=clock.now + 9)
    assert await store.sessions.page("mine") == []
    assert await store.sessions.expired() == [session.id]
    assert await store.sessions.existing([session.id, "session_x"]) == {session.id}
    await store.sessions.delete(session.id)
    assert await store.sessions.expired() == []


@case
async def a_batch_has_one_worker_and_an_owner_has_two_batches_at_work(store: Store, clock: Clock) -> None:
    await store.files.add(
        FileRecord(id="f", name="in", purpose="batch", bytes=1, key="k", users=("u",), created=NOON, expires=NOON + 9)
    )
    made = []
    for i in range(3):
        times = {"created": NOON + i, "deadline": NOON + 20, "expires": NOON + 90}
        made.append(BatchRecord(id=new_id("batch"), input_file="f", **times))
        await store.batches.add(made[-1])
    claimed = [await store.batches.claim(f"w{i}", lease_s=10.0) for i in range(3)]
    assert [batch and batch.id for batch in claimed] == [made[0].id, made[1].id, None]
    first = claimed[0]
    clock.now += 11
    assert (await store.files.get("f", owner=first.owner)).expires == NOON + 20, "as long as a batch may need it"
    again = await store.batches.claim("w9", lease_s=10.0)
    assert again.id == first.id and await store.batches.change(first, total=5) is None, (
        "the claim of the silent one is lost"
    )

    job, other = [await store.jobs.add(a_job()) for _ in range(2)]
    lines = [BatchLine(batch=first.id, number=i, custom_id=str(i), user="u" if i == 1 else None) for i in (1, 2, 3, 4)]
    await store.batches.add_lines(lines)
    await store.batches.add_lines(lines)
    await store.batches.change_line(lines[0], job=job.id)
    await store.batches.change_line(lines[1], job=other.id)
    await store.batches.change_line(lines[2], error={"error": {"code": "x"}})
    assert await store.batches.open_jobs(first.id) == {job.id: "queued", other.id: "queued"}
    await store.jobs.cancel(job.id)
    await store.jobs.finish(await store.jobs.claim("w", **TERMS), "completed")
    assert await store.batches.counts(first.id) == (1, 2)
    await store.batches.keep_jobs(first)
    await store.batches.refuse_waiting(first.id, {"error": {"code": "late"}})
    assert [line.error and line.error["error"]["code"] for line in await store.batches.lines(first.id)] == [
        None, None, "x", "late",
    ]  # fmt: skip
    await store.batches.forget_users(first.owner, ["u"])
    assert [line.number for line in await store.batches.lines(first.id, after=2)] == [3, 4]
    assert await store.batches.counts(first.id) == (1, 2)
    await store.batches.change(again, status="completed", ended=clock())
    with pytest.raises(ConflictError, match="is completed"):
        await store.batches.cancel(first.id)
    clock.now = NOON + 91
    assert await store.batches.expired() == [first.id]
    await store.batches.delete(first.id)
    with pytest.raises(NotFoundError):
        await store.batches.get(first.id)
