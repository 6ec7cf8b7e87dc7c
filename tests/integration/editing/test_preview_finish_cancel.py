"""Looking at an edit before it ends, ending it, and stopping it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageChops

from careedit.errors import CancelledError, CareEditError


def test_the_preview_after_the_last_step_is_the_finished_picture(engine, make_job, run_to_end):
    (state,) = run_to_end(engine, make_job(steps=3))

    assert engine.preview(state).tobytes() == engine.finish(state).tobytes()


@pytest.mark.parametrize("size", [(64, 64), (96, 72)])
@pytest.mark.parametrize("reference", [False, True])
def test_previews_and_answers_have_the_panels_size(engine, make_job, run_to_end, size, reference):
    state = engine.prepare(make_job(steps=2, size=size, reference=reference))
    engine.step([state])
    preview = engine.preview(state)
    engine.step([state])

    assert preview.size == engine.finish(state).size == size
    assert preview.mode == "RGB"


def test_a_preview_is_the_denoised_estimate_of_the_step_just_made(engine, make_job):
    state = engine.prepare(make_job(steps=4))
    start = state.latents
    engine.step([state])

    # The straight line through the first step, followed to sigma = 0.
    estimate = start - state.schedule.sigmas[0] * state.velocity
    picture = engine.base.image_processor.postprocess(engine.decode([state], [estimate])[0])[0].crop((64, 0, 128, 64))

    difference = np.abs(np.asarray(picture, dtype=int) - np.asarray(engine.preview(state), dtype=int))
    assert difference.max() <= 1


def test_a_preview_changes_nothing_and_evaluates_nothing(engine, make_job, run_to_end):
    job = make_job(steps=4)
    state = engine.prepare(job)
    while state.live:
        engine.step([state])
        before = (state.latents.clone(), state.index, state.nfe)
        first, second = engine.preview(state), engine.preview(state)
        assert first.tobytes() == second.tobytes()
        assert torch.equal(state.latents, before[0]) and (state.index, state.nfe) == before[1:]

    (undisturbed,) = run_to_end(engine, job)
    assert torch.equal(state.latents, undisturbed.latents)


def test_there_is_nothing_to_preview_before_the_first_step(engine, make_job):
    with pytest.raises(CareEditError, match="made no step"):
        engine.preview(engine.prepare(make_job()))


def test_an_edit_with_steps_left_cannot_be_finished(engine, make_job):
    state = engine.prepare(make_job(steps=3))
    engine.step([state])

    with pytest.raises(CareEditError, match="1 of 3 steps"):
        engine.finish(state)


def test_finishing_many_agrees_with_finishing_each(engine, make_job, run_to_end):
    jobs = [make_job(seed=1, steps=2), make_job(90, seed=2, steps=2, reference=True), make_job(200, seed=3, steps=2)]
    states = run_to_end(engine, *jobs)

    together = engine.decode(states, [state.latents for state in states])
    for state, canvas, picture in zip(states, together, engine.finish_many(states), strict=True):
        alone = engine.decode([state], [state.latents])[0]
        assert (canvas - alone).abs().max() < 1e-4
        assert max(high for _, high in ImageChops.difference(picture, engine.finish(state)).getextrema()) <= 1


def test_a_cancelled_edit_is_skipped_and_disturbs_nobody(engine, make_job, run_to_end):
    stays, leaves = make_job(40, seed=1, steps=5), make_job(180, seed=2, steps=5)
    states = [engine.prepare(job) for job in (stays, leaves)]
    engine.step(states)
    engine.step(states)
    states[1].cancel()
    while any(state.live for state in states):
        engine.step(states)

    assert [state.index for state in states] == [5, 2]
    (alone,) = run_to_end(engine, stays)
    assert (states[0].latents - alone.latents).abs().max() < 1e-4


@pytest.mark.parametrize("look", ["preview", "finish"])
def test_a_cancelled_edit_shows_nothing(engine, make_job, look):
    state = engine.prepare(make_job(steps=3))
    engine.step([state])
    engine.cancel(state)

    with pytest.raises(CancelledError, match="after 1 of 3 steps"):
        getattr(engine, look)(state)
