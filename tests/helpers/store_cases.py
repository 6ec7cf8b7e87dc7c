"""What every database must do with sessions, webhooks and logs; SQLite runs them in tests/unit, PostgreSQL in integration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.records import ArmEvent, AssignmentRecord, FeedbackRecord, KeyRecord, new_id
from careedit_deployments.state.store import Store
from state_records import NOON, Clock, a_job, a_session, a_turn, an_edit

Case = Callable[[Store, Clock], Awaitable[None]]
CASES: list[Case] = []
"""Every function below that is marked with `case`."""


def case(function: Case) -> Case:
    """Add a function to `CASES`."""
    CASES.append(function)
    return function


@case
async def a_key_is_found_by_its_hash_until_it_is_revoked(store: Store, clock: Clock) -> None:
    key = KeyRecord(id=new_id("key"), sha256="c" * 64, name="a laptop", concurrent_requests=2, created=NOON)
    await store.keys.add(key)
    assert await store.keys.find("c" * 64) == key
    assert await store.keys.find("d" * 64) is None
    assert await store.keys.revoke(key.id) is True
    assert await store.keys.revoke(key.id) is False
    assert await store.keys.find("c" * 64) is None
    assert [one.revoked for one in await store.keys.all()] == [NOON]


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
    for i in (2, 4):
        await store.feedback.add(FeedbackRecord(id=f"f{i}", edits=("x",), rating=5, created=NOON + i))
    assert await store.edits.prune(NOON + 3) == 3
    assert len(await store.edits.latest()) == 2
    assert [one.id for one in await store.feedback.latest()] == ["f4"]


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
