"""The schedule and its Euler step are the scheduler's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux_fill import calculate_shift

from careedit.editing.schedule import make_schedule

CPU = torch.device("cpu")


def scheduler(**config) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**{"use_dynamic_shifting": True, **config})


@pytest.mark.parametrize("config", [{}, {"use_dynamic_shifting": False, "shift": 3.0}, {"time_shift_type": "linear"}])
@pytest.mark.parametrize("steps", [1, 2, 7, 28])
@pytest.mark.parametrize("tokens", [128, 192, 8192])
def test_sigmas_fall_from_one_to_zero_as_the_scheduler_sets_them(config, steps, tokens):
    own = make_schedule(scheduler(**config), steps, calculate_shift(tokens), CPU)
    theirs = scheduler(**config)
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(tokens))

    assert torch.equal(own.sigmas, theirs.sigmas)
    assert torch.equal(own.timesteps, theirs.timesteps)
    assert own.sigmas[0] == 1 and own.sigmas[-1] == 0 and (own.sigmas.diff() < 0).all()
    assert own.steps == steps


def test_more_tokens_shift_the_sigmas_towards_noise():
    few, many = (make_schedule(scheduler(), 8, calculate_shift(tokens), CPU) for tokens in (128, 4096))

    assert (many.sigmas[1:-1] > few.sigmas[1:-1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_rounded_as_the_schedulers(dtype):
    theirs = scheduler()
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / 5, 5), mu=calculate_shift(128))
    own = make_schedule(scheduler(), 5, calculate_shift(128), CPU)
    ours = expected = torch.randn(1, 128, 32, dtype=dtype)

    for index, timestep in enumerate(theirs.timesteps):
        velocity = torch.randn(1, 128, 32, dtype=dtype)
        expected = theirs.step(velocity, timestep, expected, return_dict=False)[0]
        ours = own.advance(ours, velocity, index)
        assert ours.dtype == dtype
        assert torch.equal(ours, expected)


def test_the_denoised_estimate_recovers_clean_latents_from_their_true_velocity():
    schedule = make_schedule(scheduler(), 6, calculate_shift(128), CPU)
    clean, noise = torch.randn(2, 1, 128, 32)

    for index, sigma in enumerate(schedule.sigmas):
        estimate = schedule.denoised((1 - sigma) * clean + sigma * noise, noise - clean, index)
        assert torch.allclose(estimate, clean, atol=1e-5)
