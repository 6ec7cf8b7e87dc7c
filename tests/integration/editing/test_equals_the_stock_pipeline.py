"""One edit without experts equals `diffusers.FluxFillPipeline` for the same seed and steps, in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

TOLERANCE = 1e-4

CASES = {
    "whole panel, 1 step": {"steps": 1},
    "whole panel, 4 steps": {"steps": 4},
    "whole panel, 11 steps, another seed": {"steps": 11, "seed": 2**40 + 3},
    "partial mask": {"masked": True, "steps": 5},
    "triptych": {"reference": True, "steps": 5},
    "triptych with a partial mask": {"reference": True, "masked": True, "steps": 3},
    "panels that are not square": {"size": (96, 72), "masked": True, "steps": 3},
    "a text that both encoders cut": {"instruction": "add " + "a very small blue star and " * 40, "steps": 2},
    "no Latin letters": {"instruction": "赤い丸を消してください", "steps": 2},
}


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
def test_latents_and_picture_equal_the_stock_pipelines(
    fields, engine, tiny_pipeline, make_job, stock, run_to_end, float_canvas
):
    job = make_job(**fields)
    (state,) = run_to_end(engine, job)

    latents = stock(tiny_pipeline, job, "latent")
    picture = stock(tiny_pipeline, job, "np")[0]

    assert (state.latents - latents).abs().max() < TOLERANCE
    assert np.abs(float_canvas(engine, state) - picture).max() < TOLERANCE


@pytest.mark.parametrize("guidance", [None, 1.0, 12.5])
def test_a_guidance_distilled_base_equals_the_stock_pipeline(
    guidance, guided_engine, guided_pipeline, make_job, stock, run_to_end, float_canvas
):
    job = make_job(masked=True, steps=4, guidance=guidance)
    (state,) = run_to_end(guided_engine, job)

    assert (state.latents - stock(guided_pipeline, job, "latent")).abs().max() < TOLERANCE
    assert np.abs(float_canvas(guided_engine, state) - stock(guided_pipeline, job, "np")[0]).max() < TOLERANCE


def test_the_guidance_scale_changes_the_edit(guided_engine, make_job, run_to_end):
    weak, strong = run_to_end(guided_engine, make_job(guidance=1.0), make_job(guidance=30.0))

    assert (weak.latents - strong.latents).abs().max() > TOLERANCE


def test_the_answer_is_the_stock_pipelines_target_panel(engine, tiny_pipeline, make_job, stock, run_to_end):
    job = make_job(reference=True, steps=2)
    (state,) = run_to_end(engine, job)

    canvas = stock(tiny_pipeline, job, "pil")[0]

    assert engine.finish(state).tobytes() == canvas.crop((128, 0, 192, 64)).tobytes()


def test_editing_leaves_the_pipelines_own_scheduler_alone(engine, tiny_pipeline, make_job, run_to_end):
    before = tiny_pipeline.scheduler.timesteps.clone()

    run_to_end(engine, make_job(steps=3))

    assert torch.equal(tiny_pipeline.scheduler.timesteps, before)
