"""Edits share batches without seeing each other."""

from __future__ import annotations

import pytest
import torch

TOLERANCE = 1e-4


def largest_difference(states, alone) -> float:
    return max((a.latents - b.latents).abs().max().item() for a, b in zip(states, alone, strict=True))


def mixed_jobs(make_job):
    """Different pictures, masks, texts, seeds, canvas shapes and step counts."""
    return [
        make_job(10, steps=2, seed=1),
        make_job(60, steps=5, seed=2, masked=True, instruction="add a small blue star"),
        make_job(110, steps=3, seed=3, reference=True),
        make_job(160, steps=4, seed=1, size=(96, 72)),
        make_job(210, steps=3, seed=4, reference=True, masked=True),
    ]


def test_each_edit_of_a_mixed_batch_equals_the_edit_done_alone(engine, make_job, run_to_end):
    jobs = mixed_jobs(make_job)

    together = run_to_end(engine, *jobs)
    alone = [run_to_end(engine, job)[0] for job in jobs]

    assert [state.index for state in together] == [job.steps for job in jobs]
    assert largest_difference(together, alone) < TOLERANCE


def test_a_guided_batch_keeps_each_edits_own_scale(guided_engine, make_job, run_to_end):
    jobs = [make_job(guidance=scale, steps=3) for scale in (1.0, 7.5, 30.0)]

    together = run_to_end(guided_engine, *jobs)

    assert largest_difference(together, [run_to_end(guided_engine, job)[0] for job in jobs]) < TOLERANCE


def test_an_edit_may_join_midway(engine, make_job, run_to_end):
    early, late = make_job(30, steps=6, seed=5), make_job(200, steps=4, seed=6)

    states = [engine.prepare(early)]
    for _ in range(3):
        engine.step(states)
    states.append(engine.prepare(late))
    while any(state.live for state in states):
        engine.step(states)

    alone = [run_to_end(engine, job)[0] for job in (early, late)]
    assert largest_difference(states, alone) < TOLERANCE


def test_a_seeds_noise_is_the_same_in_any_company(engine, make_job):
    alone = engine.prepare(make_job(seed=11))
    engine.prepare(make_job(200, seed=12))
    torch.manual_seed(99)
    after_others = engine.prepare(make_job(seed=11))

    assert torch.equal(alone.latents, after_others.latents)
    assert torch.equal(alone.condition, after_others.condition)


def test_the_noise_belongs_to_the_seed_not_to_the_picture(engine, make_job):
    first, second = engine.prepare(make_job(20, seed=11)), engine.prepare(make_job(220, seed=11))
    other = engine.prepare(make_job(20, seed=12))

    assert torch.equal(first.latents, second.latents)
    assert not torch.equal(first.latents, other.latents)


def test_editing_neither_reads_nor_moves_the_global_random_state(engine, make_job, run_to_end):
    torch.manual_seed(4)
    before = torch.get_rng_state()

    run_to_end(engine, make_job(steps=2))

    assert torch.equal(torch.get_rng_state(), before)


def test_edits_of_one_canvas_shape_run_as_one_batch(engine, make_job, monkeypatch):
    batches = []
    velocity = engine.applier.velocity
    monkeypatch.setattr(
        engine.applier, "velocity", lambda rows, inputs: batches.append(len(rows)) or velocity(rows, inputs)
    )

    engine.step([engine.prepare(job) for job in mixed_jobs(make_job)])

    assert sorted(batches) == [1, 2, 2]


def test_a_state_given_twice_advances_once(engine, make_job):
    state = engine.prepare(make_job(steps=3))
    engine.step([state, state])

    assert (state.index, state.nfe) == (1, 1)


def test_stepping_finished_edits_changes_nothing(engine, make_job, run_to_end):
    (state,) = run_to_end(engine, make_job(steps=2))
    latents = state.latents.clone()

    engine.step([state])
    engine.step([])

    assert torch.equal(state.latents, latents)
    assert (state.index, state.nfe) == (2, 2)


def test_a_batch_that_fails_leaves_its_states_as_they_were(engine, make_job, monkeypatch):
    states = [engine.prepare(make_job(seed=seed)) for seed in (1, 2)]
    before = [state.latents for state in states]
    with monkeypatch.context() as patch:
        patch.setattr(engine.applier, "velocity", lambda rows, inputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.step(states)

    assert [state.index for state in states] == [0, 0]
    assert all(torch.equal(state.latents, was) for state, was in zip(states, before, strict=True))
    engine.step(states)
    assert [state.index for state in states] == [1, 1]


def test_canvases_decoded_together_equal_each_decoded_alone(engine, make_job, run_to_end):
    states = run_to_end(engine, *(make_job(shade, steps=2, seed=shade) for shade in (20, 90, 160)))

    together = engine.decode(states, [state.latents for state in states])
    alone = [engine.decode([state], [state.latents])[0] for state in states]

    assert max((a - b).abs().max().item() for a, b in zip(together, alone, strict=True)) < TOLERANCE
