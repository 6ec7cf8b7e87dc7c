import pytest

from careedit.records import EditRequest
from careedit_deployments.ab.shadow import Shadowing
from careedit_deployments.edits.backend import EditCall
from careedit_deployments.errors import DeadlineError
from careedit_deployments.state.tenant_policy import PURPOSES
from careedit_deployments.telemetry.metrics import Metrics, Recording
from fake_backend import FakeBackend, done

JUDGED = {"scorer": {"backend": "transformers", "model": "judge"}}


@pytest.fixture
def finished(draw_picture, add_edits):
    """`await finished(backend, store, arm)`: an edit that a user got and that is stored: its call and its images."""

    async def make(backend, store, arm="a", purposes=PURPOSES, **fields):
        (edit_id,) = await add_edits(store, arm, "m")
        request = EditRequest(image=draw_picture(), instruction="remove the circle", seed=7, steps=4, **fields)
        call = EditCall(
            id=edit_id,
            arm=arm,
            request=request,
            decision=await backend.route(arm, request, top_k=1),
            partials=3,
            purposes=purposes,
            deadline_s=60,
            request_id="req_1",
        )
        return call, (done(call, 0),)

    return make


def test_a_copy_is_edited_from_the_same_noise_judged_and_stored(make_config, with_store, finished) -> None:
    recording = Recording()
    backend = FakeBackend("a", "b", shadows=("mirror",), scores={"mirror": 0.8})

    async def work(store):
        shadowing = Shadowing(make_config(**JUDGED), backend, store, Metrics(recording))
        call, made = await finished(backend, store)
        shadowing.ended(call, "made", made)
        await shadowing.settled()
        (copy,) = await store.edits.latest(arm="mirror")
        return call, copy, await store.edits.get(call.id)

    call, copy, original = with_store(work)
    (asked,) = backend.calls
    assert (asked.arm, asked.request.seed, asked.request.steps, asked.partials) == ("mirror", 7, 4, 0)
    assert asked.id == copy.id != call.id
    assert (copy.shadow_of, copy.request_id, copy.outcome, copy.experts) == (call.id, "req_1", "made", {"erase": 1})
    assert copy.scores == {"overall": 0.8, "followed": 0.8, "preserved": 1, "clean": 1}
    assert original.scores is not None, "the original is judged too, to be compared with"
    assert copy.instruction is None and "remove" not in str(copy.traces[0]["routing"]["weights"])
    assert not {"instruction", "prompt"} & set(copy.traces[0]), "prompts are not kept"
    assert recording.total("careedit_shadow_copies", arm="mirror", outcome="scored") == 1
    assert recording.total("careedit_judged", outcome="given") == 2
    assert recording.total("careedit_edits", arm="mirror", outcome="made") == 1


def test_without_a_judge_a_copy_is_stored_unscored(make_config, with_store, finished) -> None:
    recording, backend = Recording(), FakeBackend("a", "b", shadows=("mirror",), judge=False)

    async def work(store):
        shadowing = Shadowing(make_config(), backend, store, Metrics(recording))
        shadowing.ended(*_made(await finished(backend, store)))
        await shadowing.settled()
        return (await store.edits.latest(arm="mirror"))[0].scores

    assert with_store(work) is None
    assert recording.total("careedit_shadow_copies", outcome="unscored") == 1


def test_a_judge_that_is_away_costs_the_score_and_nothing_else(make_config, with_store, finished) -> None:
    recording, backend = Recording(), FakeBackend("a", "b", shadows=("mirror",), judge=False)

    async def work(store):
        shadowing = Shadowing(make_config(**JUDGED), backend, store, Metrics(recording))
        shadowing.ended(*_made(await finished(backend, store)))
        await shadowing.settled()
        return (await store.edits.latest(arm="mirror"))[0].outcome

    assert with_store(work) == "made"
    assert recording.total("careedit_shadow_copies", outcome="unscored") == 1


def test_a_shadow_that_fails_is_stored_as_failed_for_its_guard_to_see(make_config, with_store, finished) -> None:
    recording, backend = Recording(), FakeBackend("a", "b", shadows=("mirror",), scores={"a": 1.0})
    backend.broken.add("mirror")

    async def work(store):
        shadowing = Shadowing(make_config(**JUDGED), backend, store, Metrics(recording))
        shadowing.ended(*_made(await finished(backend, store)))
        await shadowing.settled()
        return (await store.edits.latest(arm="mirror"))[0]

    failed = with_store(work)
    assert (failed.outcome, failed.traces) == ("failed", ())
    assert "No replica of 'mirror' answers" in failed.error
    assert recording.total("careedit_shadow_copies", outcome="failed") == 1


def test_copies_beyond_the_bound_are_dropped_and_counted_at_once(make_config, with_store, finished) -> None:
    recording, backend = Recording(), FakeBackend("a", "b", shadows=("mirror",), judge=False)
    backend.gate.clear()

    async def work(store):
        shadowing = Shadowing(make_config(), backend, store, Metrics(recording), at_once=2)
        for _ in range(5):
            shadowing.ended(*_made(await finished(backend, store)))
        dropped = recording.total("careedit_shadow_copies", outcome="dropped")
        backend.gate.set()
        await shadowing.settled()
        return dropped, len(await store.edits.latest(arm="mirror"))

    assert with_store(work) == (3, 2)


def test_a_shadow_that_is_too_late_is_stored_as_expired(make_config, with_store, finished) -> None:
    class Late(FakeBackend):
        async def edit(self, call):
            raise DeadlineError("The deadline has passed.")
            yield

    async def work(store):
        backend = Late("a", "b", shadows=("mirror",), judge=False)
        shadowing = Shadowing(make_config(), backend, store, Metrics(Recording()))
        shadowing.ended(*_made(await finished(backend, store)))
        await shadowing.settled()
        return (await store.edits.latest(arm="mirror"))[0].outcome

    assert with_store(work) == "expired"


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "expired"])
def test_an_edit_without_its_pictures_is_not_copied(make_config, with_store, finished, outcome: str) -> None:
    backend = FakeBackend("a", "b", shadows=("mirror",), judge=False)

    async def work(store):
        shadowing = Shadowing(make_config(), backend, store, Metrics(Recording()))
        call, _ = await finished(backend, store)
        shadowing.ended(call, outcome, ())
        await shadowing.settled()

    with_store(work)
    assert backend.calls == []


def test_a_shadow_that_was_cut_gets_no_copies(make_config, with_store, finished) -> None:
    backend = FakeBackend("a", "b", shadows=("mirror",), judge=False)

    async def work(store):
        shadowing = Shadowing(make_config(), backend, store, Metrics(Recording()), disabled_arms=lambda: {"mirror"})
        shadowing.ended(*_made(await finished(backend, store)))
        await shadowing.settled()

    with_store(work)
    assert backend.calls == []


def test_an_arm_whose_guard_looks_at_scores_is_judged_without_any_shadow(make_config, with_store, finished) -> None:
    backend = FakeBackend("a", "b", scores={"b": 0.3})
    arms = {name: arm for name, arm in make_config().arms.items() if not arm.shadow}

    async def work(store):
        shadowing = Shadowing(make_config(arms=arms, **JUDGED), backend, store, Metrics(Recording()))
        unguarded, guarded = await finished(backend, store, "a"), await finished(backend, store, "b")
        backend.calls += [guarded[0]]
        shadowing.ended(*_made(unguarded))
        shadowing.ended(*_made(guarded))
        await shadowing.settled()
        return [(await store.edits.get(call.id)).scores for call, _ in (unguarded, guarded)]

    first, second = with_store(work)
    assert first is None
    assert second["overall"] == 0.3


@pytest.mark.parametrize(
    ("purposes", "copies", "scored"),
    [((), 0, []), (("evaluation", "keep_source"), 0, []), (("shadow",), 1, []), (("judging",), 0, ["b"])],
)
def test_an_edit_is_used_for_its_purposes_only(
    make_config, with_store, finished, purposes, copies: int, scored: list[str]
) -> None:
    backend = FakeBackend("a", "b", shadows=("mirror",), scores={"b": 0.3, "mirror": 0.8})

    async def work(store):
        shadowing = Shadowing(make_config(**JUDGED), backend, store, Metrics(Recording()))
        call, made = await finished(backend, store, "b", purposes=purposes)
        shadowing.ended(call, "made", made)
        backend.calls.append(call)
        await shadowing.settled()
        return await store.edits.latest()

    edits = with_store(work)
    assert [call.arm for call in backend.calls[1:]] == ["mirror"] * copies
    assert [edit.arm for edit in edits if edit.scores is not None] == scored
    assert [edit.purposes for edit in edits if edit.shadow_of is not None] == [purposes] * copies


def test_when_the_server_stops_copies_are_given_up(make_config, with_store, finished) -> None:
    backend = FakeBackend("a", "b", shadows=("mirror",), judge=False)
    backend.gate.clear()

    async def work(store):
        shadowing = Shadowing(make_config(), backend, store, Metrics(Recording()))
        async with shadowing.running():
            shadowing.ended(*_made(await finished(backend, store)))
        return await store.edits.latest(arm="mirror")

    assert with_store(work) == []


def test_a_mistake_in_the_background_is_logged(make_config, with_store, finished, caplog) -> None:
    class Odd(FakeBackend):
        async def route(self, *args, **fields):
            if self.calls:
                raise ZeroDivisionError
            return await super().route(*args, **fields)

    backend = Odd("a", "b", shadows=("mirror",), judge=False)

    async def work(store):
        shadowing = Shadowing(make_config(), backend, store, Metrics(Recording()))
        call, made = await finished(backend, store)
        backend.calls.append(call)
        shadowing.ended(call, "made", made)
        await shadowing.settled()

    with_store(work)
    assert "Copying or judging" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_shadow_without_replicas_is_no_crash(make_config, with_store, finished) -> None:
    backend = FakeBackend("a", "b", judge=False)

    async def work(store):
        shadowing = Shadowing(make_config(), backend, store, Metrics(Recording()))
        shadowing.ended(*_made(await finished(backend, store)))
        await shadowing.settled()
        return (await store.edits.latest(arm="mirror"))[0].error

    assert with_store(work) == "The arm 'mirror' is not running."


def _made(pair):
    call, made = pair
    return call, "made", made
