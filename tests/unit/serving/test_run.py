"""One call through the scheduler: its events, its trace, its deadline, and the same picture as in one process."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import numpy as np
import pytest

from careedit.editor import SHARED
from careedit.errors import InputError
from careedit.images import decode_image, image_sha256
from careedit.records import EarlyFilter
from careedit_deployments.edits.backend import Candidate, ImageDone, Preview, Progress
from careedit_deployments.errors import DeadlineError, ServingError


def made(events):
    return [event for event in events if isinstance(event, ImageDone)]


def difference(first, second):
    return int(np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).max())


def test_an_edit_alone_is_the_in_process_edit_and_replays_to_the_bit(runner, call, events, editor):
    wanted = call(seed=3, n=3)
    (told,) = events(runner(), wanted)
    direct = editor.edit(wanted.request)
    for event, image in zip(made(told), direct.images, strict=True):
        assert difference(event.picture, image) <= 1
        assert event.trace.degradations == () and event.trace.routing == wanted.decision
        again = editor.replay(event.trace, image=wanted.request.image)
        assert again.image.tobytes() == event.picture.tobytes()
    assert [event.image for event in made(told)] == [0, 1, 2]
    assert [event.trace.seed for event in made(told)] == [3, 4, 5]
    assert made(told)[0].trace.seconds.keys() == {"route", "queue", "prepare", "denoise", "finish"}


def test_transparency_that_the_source_lost_is_in_the_trace(runner, call, events):
    wanted = call(seed=1)
    source = wanted.request.image.convert("RGBA")
    source.putpixel((2, 2), (0, 0, 0, 0))
    lossy = wanted.request.model_copy(update={"image": decode_image(source)})
    (told,) = events(runner(), wanted.model_copy(update={"request": lossy}))
    assert made(told)[0].trace.degradations == ("image: transparent pixels were composited over white",)


def test_edits_at_once_share_batches_say_so_and_stay_themselves(runner, call, events, editor):
    calls = [call(seed=seed, expert=expert, steps=6) for seed, expert in enumerate(["erase", "style", "base"])]
    for told, wanted in zip(events(runner(), *calls), calls, strict=True):
        (event,) = made(told)
        assert difference(event.picture, editor.edit(wanted.request).image) <= 1
        assert event.trace.routing.weights == wanted.decision.weights
        assert event.trace.degradations in ((), (SHARED,))


def test_the_routers_decision_is_used_and_not_made_again(runner, call, events):
    wanted = call(seed=1)
    other = wanted.model_copy(update={"decision": wanted.decision.model_copy(update={"weights": {"style": 1.0}})})
    first, second = (made(told)[0] for told in events(runner(), wanted, other))
    assert first.trace.routing.weights == {"erase": 1.0} and second.trace.routing.weights == {"style": 1.0}
    assert difference(first.picture, second.picture) > 1


def test_an_unknown_expert_in_a_decision_is_refused(runner, call, events):
    wanted = call(seed=1)
    other = wanted.model_copy(update={"decision": wanted.decision.model_copy(update={"weights": {"magic": 1.0}})})
    with pytest.raises(InputError, match="'magic'"):
        events(runner(), other)


@pytest.mark.parametrize(("partials", "steps", "count"), [(0, 4, 0), (1, 4, 1), (3, 4, 3), (3, 2, 1), (3, 1, 0)])
def test_partial_pictures_come_evenly_before_the_result(partials, steps, count, runner, call, events):
    (told,) = events(runner(), call(seed=2, partials=partials, steps=steps, n=2))
    shown = [event for event in told if isinstance(event, Preview)]
    assert len({(event.image, event.index) for event in shown}) == len(shown) >= 2 * count
    assert all(event.picture.size == (96, 64) for event in shown)
    kinds = [type(event) for event in told]
    assert count == 0 or kinds.index(Preview) < kinds.index(ImageDone)


def test_progress_counts_to_the_end_for_every_image(runner, call, events):
    (told,) = events(runner(), call(seed=2, steps=5, n=2))
    for image in (0, 1):
        counts = [event.done for event in told if isinstance(event, Progress) and event.image == image]
        assert counts[0] == 1 and counts[-1] == 5 and counts == sorted(set(counts))


def test_no_progress_is_told_to_who_does_not_want_it(runner, call, events):
    (told,) = events(runner(), call(seed=2, steps=5, n=2, partials=1, progress=False))
    assert [type(event) for event in told] == [Preview, Preview, ImageDone, ImageDone]


def test_the_early_filter_runs_through_the_scheduler_and_its_trace_replays(runner, call, events, editor, scripted):
    wanted = call(seed=5, early_filter=EarlyFilter(strategy="continue", candidates=3, preview_steps=2))
    (told,) = events(runner(scripted([0.1, 0.9, 0.2])), wanted)
    (event,) = made(told)
    assert (event.trace.seed, event.trace.filter.chosen, event.trace.nfe) == (6, 1, 3 * 2 + 2)
    assert "filter" in event.trace.seconds
    again = editor.replay(event.trace, image=wanted.request.image)
    assert again.image.tobytes() == event.picture.tobytes()


def test_candidates_of_the_filter_are_sent_to_who_wants_them(runner, call, events, scripted):
    wanted = EarlyFilter(strategy="continue", candidates=3, preview_steps=2)
    for asked in (True, False):
        (told,) = events(
            runner(scripted([0.1, 0.9, 0.2])), call(seed=5, early_filter=wanted, candidates=asked, progress=False)
        )
        (event,) = made(told)
        seen = [(one.index, image_sha256(one.picture)) for one in told if isinstance(one, Candidate)]
        tried = event.trace.filter.candidates if asked else ()
        assert seen == [(i, one.preview_sha256) for i, one in enumerate(tried)]


def test_a_judge_that_fails_costs_the_filter_and_not_the_edit(runner, call, events, scripted):
    wanted = call(seed=5, early_filter=EarlyFilter(strategy="continue", candidates=2, preview_steps=1))
    (told,) = events(runner(scripted(RuntimeError("the pool is down"))), wanted)
    (degradation,) = made(told)[0].trace.degradations
    assert degradation.startswith("degraded: filter, the judge failed (the pool is down)")


def test_whoever_leaves_stops_the_edit_within_a_step(runner, call, scheduler):
    async def leave():
        async with aclosing(runner().stream(call(seed=1, steps=200))) as stream:
            async for event in stream:
                assert isinstance(event, Progress)
                break

    asyncio.run(leave())
    # What was under way when the caller left may end; then nothing is stepped any more.
    steps = scheduler.call(lambda: scheduler.counters.steps).result(10)
    assert scheduler.call(lambda: scheduler.counters.steps).result(10) == steps < 100
    assert scheduler.counters.steps_after_cancel == 0


def test_the_deadline_ends_an_edit(runner, call, events, scheduler):
    started = time.monotonic()
    with pytest.raises(DeadlineError, match="deadline"):
        events(runner(), call(seed=1, steps=200, n=4, seconds=0.1))
    assert time.monotonic() - started < 5
    assert scheduler.counters.steps_after_cancel == 0


def test_numbers_that_ran_over_are_an_error_and_no_picture(runner, call, events, editor, monkeypatch):
    step = editor.engine.step

    def overflow(states):
        step(states)
        for state in states:
            state.latents = state.latents * float("nan")

    monkeypatch.setattr(editor.engine, "step", overflow)
    with pytest.raises(ServingError, match="numbers ran over"):
        events(runner(), call(seed=1))


def test_a_short_edit_does_not_wait_for_a_long_one(runner, call):
    async def both():
        running = runner()
        order = []

        async def one(name, wanted):
            async with aclosing(running.stream(wanted)) as stream:
                async for event in stream:
                    if isinstance(event, ImageDone):
                        order.append(name)

        await asyncio.gather(one("long", call(seed=1, steps=24, n=2)), one("short", call(seed=2, steps=2)))
        return order

    assert asyncio.run(both())[0] == "short"
