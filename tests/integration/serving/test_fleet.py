"""Edits through Serve's handles on a real cluster: the same pictures, no mixing, cancelled and refused as promised."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from careedit.errors import InputError
from careedit.records import EarlyFilter
from careedit.routing import features_of
from careedit_deployments.edits.backend import ImageDone, Preview, Progress
from careedit_deployments.errors import DeadlineError, OverloadedError

MIXTURE = {"erase": 0.5, "style": 0.5}


def made(events):
    assert isinstance(events, list), events
    return [event for event in events if isinstance(event, ImageDone)]


def test_an_edit_through_a_replica_is_the_edit_in_this_process(call, edit, alone):
    wanted = call(seed=1, n=2, partials=2)
    (events,) = edit(wanted)
    assert [event.image for event in made(events)] == [0, 1]
    assert all(alone(event, wanted) for event in made(events))
    assert {(event.image, event.index) for event in events if isinstance(event, Preview)} == {
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    }
    assert any(isinstance(event, Progress) for event in events)
    assert made(events)[0].trace.application == "merged" and made(events)[0].trace.degradations == ()


def test_concurrent_edits_of_many_experts_never_mix(call, edit, alone):
    experts = ["erase", "style", "identity", "base", MIXTURE, "compose", "erase", "style"]
    calls = [call(seed=seed, expert=expert) for seed, expert in enumerate(experts)]
    for events, wanted in zip(edit(*calls), calls, strict=True):
        (event,) = made(events)
        assert event.trace.routing.weights == wanted.decision.weights
        assert alone(event, wanted)


def test_the_router_deployment_decides_as_the_editor_does(served, call, open_editor):
    request = call(seed=1).request.model_copy(update={"expert": "auto"})
    decision = asyncio.run(served.route("main", features_of(request), top_k=1))
    assert decision == open_editor("merged").route(request)


def test_the_early_filter_asks_the_scorer_pool(call, edit):
    (events,) = edit(call(seed=3, early_filter=EarlyFilter(strategy="continue", candidates=3, preview_steps=1)))
    (event,) = made(events)
    assert (event.trace.filter.chosen, event.trace.degradations) == (2, ())
    assert event.trace.filter.judge["model"] == "by-place"


def test_an_error_of_the_library_arrives_as_it_was_raised(call, edit):
    (error,) = edit(call(seed=1, guidance=3.0))
    assert isinstance(error, InputError) and "takes none" in str(error)
    assert "Traceback" not in str(error)


def test_the_deadline_is_kept(call, edit):
    (error,) = edit(call(seed=1, steps=200, n=4, seconds=0.5))
    assert isinstance(error, DeadlineError)


def test_a_client_that_leaves_stops_its_edit_within_a_step(served, call, ask, until):
    async def leave():
        async with aclosing(served.edit(call(seed=1, steps=200, n=4))) as events:
            async for event in events:
                assert isinstance(event, Progress)
                return

    asyncio.run(leave())
    until(lambda: ask("expert-main-erase")["edits"] == 0, 10)
    first, second = (ask("expert-main-erase") for _ in range(2))
    assert first["steps"] == second["steps"] < 4 * 200
    assert second["steps_after_cancel"] == 0


def test_a_full_queue_refuses_before_an_edit_is_made_and_those_in_it_go_on(served, call):
    async def one(seed, **fields):
        try:
            async with aclosing(served.edit(call(seed=seed, **fields))) as events:
                return "made" if [event async for event in events if isinstance(event, ImageDone)] else "nothing"
        except OverloadedError as error:
            assert error.retry_after > 0
            return "refused"

    async def fill():
        first = [asyncio.create_task(one(seed, steps=40)) for seed in range(4)]
        await asyncio.sleep(0)
        rest = [asyncio.create_task(one(seed, steps=200, n=4)) for seed in range(4, 64)]
        done, _ = await asyncio.wait([*first, *rest], return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        return {task.result() for task in done}, await asyncio.gather(*first)

    ended_first, held = asyncio.run(fill())
    assert ended_first == {"refused"}
    assert held == ["made"] * 4


def test_everything_that_is_needed_runs(served):
    assert asyncio.run(served.ready()) == {}


@pytest.mark.parametrize("name", ["magic", "erase"])
def test_an_arm_that_is_not_there_is_refused(name, served, call):
    wanted = call(seed=1).model_copy(update={"arm": name})
    with pytest.raises(InputError, match=f"The arm '{name}' does not exist; the arms are main"):
        asyncio.run(anext(served.edit(wanted)))
