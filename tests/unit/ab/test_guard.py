import asyncio
import time

import pytest

from careedit_deployments.ab.guard import ArmGuard, disable_by_hand, restore, violation_of
from careedit_deployments.config import Guard
from careedit_deployments.errors import ConflictError, NotFoundError, UnavailableError
from careedit_deployments.state.records import EditRecord
from careedit_deployments.telemetry.metrics import Metrics, Recording


def edits(outcomes: str, scores: tuple[float | None, ...] = ()) -> list[EditRecord]:
    names = {"m": "made", "f": "failed", "e": "expired", "c": "cancelled", "r": "refused", "o": "overloaded"}
    given = scores or (None,) * len(outcomes)
    return [
        EditRecord(
            id=str(index),
            arm="a",
            outcome=names[letter],
            scores=None if score is None else {"overall": score},
            created=0,
        )
        for index, (letter, score) in enumerate(zip(outcomes, given, strict=True))
    ]


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ("mmmmmmmmmm", None),
        ("mmmmmmmmff", None),  # exactly the share that may fail
        ("mmmmmmmfff", "errors"),
        ("ffff", None),  # too few to say so
        ("fffffccccc", None),  # what users gave up counts neither way
        ("mmmmmmrrrrroooooo", None),  # nor does what they asked wrongly, or a full queue
        ("mmmmmmeee", "errors"),  # what ran out of time failed
        ("mmmmmfffffcccc", "errors"),
    ],
)
def test_an_arm_breaks_its_rail_by_the_share_of_failed_edits(outcomes: str, kind: str | None) -> None:
    violation = violation_of(Guard(min_edits=6, max_error_share=0.2), edits(outcomes))
    assert (violation and violation.kind) == kind


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        ((0.6,) * 6, None),
        ((0.5,) * 6, None),
        ((0.4,) * 6, "score"),
        ((0.4,) * 5 + (None,), None),  # five judged edits are too few
        ((1.0, 1.0, 0.0, 0.0, 0.0, 0.0), "score"),
    ],
)
def test_an_arm_breaks_its_rail_by_the_judges_mean(scores: tuple[float | None, ...], kind: str | None) -> None:
    violation = violation_of(Guard(min_edits=6, min_judge_score=0.5), edits("mmmmmm", scores))
    assert (violation and violation.kind) == kind


HOUR = 3600.0


@pytest.mark.parametrize(
    ("tenants", "cut"),
    [
        ({"one": "ffffff"}, True),  # the only tenant
        ({"one": "ffffff", "two": "m"}, False),  # another one sees no failure
        ({"one": "ffffff", "two": "f"}, True),
        ({"one": "ffffff", "two": "ff", "three": "mmm"}, True),
        ({"one": "ffffff", "two": "mmmm", "three": "mmm"}, False),
    ],
)
def test_no_tenant_decides_alone_while_others_edit(tenants: dict[str, str], cut: bool) -> None:
    guard = Guard(min_edits=6, max_error_share=0.2)
    latest = [edit.model_copy(update={"owner": name}) for name, outcomes in tenants.items() for edit in edits(outcomes)]
    assert (violation_of(guard, latest) is not None) == cut
    aged = [one.model_copy(update={"created": 0 if one.owner == "two" else 2 * HOUR}) for one in latest]
    if set(tenants) == {"one", "two"}:
        assert violation_of(guard, aged) is not None  # what others saw hours ago clears no arm


def test_many_edits_of_one_tenant_leave_room_for_those_of_others(make_config, with_store, add_edits) -> None:
    async def work(store):
        await add_edits(store, "b", "mmmmm", owner="two", created=time.time() - 60)
        await add_edits(store, "b", "f" * 30, owner="one")
        guard = ArmGuard(make_config().arms, store, Metrics(Recording()))
        alone = await guard.check()
        await add_edits(store, "b", "ff", owner="two")
        return alone, await guard.check()

    assert with_store(work) == (frozenset(), {"b"})


def test_what_is_no_evidence_does_not_count(make_config, with_store, add_edits) -> None:
    async def work(store):
        await add_edits(store, "b", "fffff", evidence=False)
        return await ArmGuard(make_config().arms, store, Metrics(Recording())).check()

    assert with_store(work) == frozenset()


def test_scores_are_not_looked_at_unless_a_least_one_is_set() -> None:
    assert violation_of(Guard(min_edits=1), edits("mmm", (0.0,) * 3)) is None


def test_a_crowd_that_is_turned_away_does_not_hide_failures(make_config, with_store, add_edits) -> None:
    async def work(store):
        config = make_config()
        await add_edits(store, "b", "mmfff" + "o" * config.arms["b"].guard.window)
        return await ArmGuard(config.arms, store, Metrics(Recording())).check()

    assert with_store(work) == {"b"}


def test_a_failing_arm_is_cut_out_the_event_recorded_and_counted(make_config, with_store, add_edits) -> None:
    recording = Recording()

    async def work(store):
        guard = ArmGuard(make_config().arms, store, Metrics(recording))
        await add_edits(store, "a", "mmmmm")
        await add_edits(store, "b", "mmfff")
        return await guard.check(), guard.disabled_arms(), await store.arms.events(), await store.audit.latest()

    cut, same, events, audit = with_store(work)
    assert cut == same == {"b"}
    assert [(event.arm, event.kind, event.numbers) for event in events] == [("b", "cut", {"errors": 3, "edits": 5})]
    assert events[0].reason == "3 of its latest 5 edits failed; the limit is 20%."
    assert [(entry.actor, entry.action, entry.subject) for entry in audit] == [("arm guard", "arm.cut", "b")]
    assert recording.total("careedit_arm_cuts", arm="b", reason="errors") == 1
    assert recording.values["careedit_arm_live"] == {
        (("arm", "a"),): [1],
        (("arm", "b"),): [0],
        (("arm", "mirror"),): [1],
    }


def test_a_second_look_and_a_second_replica_record_nothing_more(make_config, with_store, add_edits) -> None:
    async def work(store):
        first, second = (ArmGuard(make_config().arms, store, Metrics(Recording())) for _ in range(2))
        await add_edits(store, "b", "fffff")
        await first.check()
        assert await second.check() == {"b"}
        await first.check()
        return await store.arms.events()

    assert len(with_store(work)) == 1


def test_the_last_live_arm_is_never_cut(make_config, with_store, add_edits) -> None:
    async def work(store):
        guard = ArmGuard(make_config().arms, store, Metrics(Recording()))
        await add_edits(store, "a", "fffff")
        await add_edits(store, "b", "fffff")
        return await guard.check()

    assert with_store(work) in ({"a"}, {"b"})


def test_a_failing_shadow_is_cut_though_it_takes_no_traffic(make_config, with_store, add_edits) -> None:
    async def work(store):
        await add_edits(store, "mirror", "fffff", shadow_of="edit_0")
        return await ArmGuard(make_config().arms, store, Metrics(Recording())).check()

    assert with_store(work) == {"mirror"}


def test_only_the_window_counts(make_config, with_store, add_edits) -> None:
    async def work(store):
        await add_edits(store, "b", "fffff", created=time.time() - 60)
        await add_edits(store, "b", "mmmmmmmmmm")
        return await ArmGuard(make_config().arms, store, Metrics(Recording())).check()

    assert with_store(work) == frozenset()


def test_a_restored_arm_starts_anew_and_may_be_cut_again(make_config, with_store, add_edits) -> None:
    async def work(store):
        guard = ArmGuard(make_config().arms, store, Metrics(Recording()))
        await add_edits(store, "b", "fffff")
        await guard.check()
        event = await restore(store, "b", actor="ada")
        after = await guard.check()
        await add_edits(store, "b", "fffff")
        return event, after, await guard.check(), await store.audit.latest(limit=10)

    event, after, again, audit = with_store(work)
    assert (event.kind, event.reason) == ("restored", "Restored by ada.")
    assert (after, again) == (frozenset(), {"b"})
    assert ("ada", "arm.restored", "b") in [(entry.actor, entry.action, entry.subject) for entry in audit]


def test_what_is_not_cut_cannot_be_restored(with_store) -> None:
    with pytest.raises(ConflictError, match="need not be restored"):
        with_store(lambda store: restore(store, "b", actor="ada"))


def test_a_person_may_cut_an_arm_but_not_an_unknown_one_nor_twice_nor_the_last(make_config, with_store) -> None:
    arms = make_config().arms

    async def work(store):
        await disable_by_hand(store, arms, "b", actor="ada", reason="Odd colours.")
        for name, error, words in (
            ("b", ConflictError, "already"),
            ("a", ConflictError, "last"),
            ("z", NotFoundError, "does not exist"),
        ):
            with pytest.raises(error, match=words):
                await disable_by_hand(store, arms, name, actor="ada", reason="")
        return await store.arms.disabled()

    assert with_store(work) == {"b"}


def test_in_the_background_an_arm_is_cut_soon_after_its_edits_failed(make_config, with_store, add_edits) -> None:
    async def work(store):
        guard = ArmGuard(make_config().arms, store, Metrics(Recording()), pause_s=0, refresh_s=60)
        async with guard.running():
            await add_edits(store, "b", "fffff")
            assert guard.disabled_arms() == frozenset()
            guard.ended(None, "failed", ())  # type: ignore[arg-type]  # the guard only hears that something ended
            async with asyncio.timeout(10):
                while not guard.disabled_arms():
                    await asyncio.sleep(0.01)
        return guard.disabled_arms()

    assert with_store(work) == {"b"}


def test_a_store_that_is_away_changes_nothing_and_raises_nothing(make_config) -> None:
    class Away:
        @property
        def arms(self):
            raise UnavailableError("The database does not answer.")

    async def work():
        async with (guard := ArmGuard(make_config().arms, Away(), Metrics(Recording()))).running():
            return guard.disabled_arms()

    assert asyncio.run(work()) == frozenset()
