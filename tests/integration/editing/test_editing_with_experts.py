"""The loop with real experts: one adapter equals the stock pipeline's, and a batch may hold several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxFillPipeline
from peft import LoraConfig, get_peft_model_state_dict

from careedit.editing import Engine, FluxFill
from careedit.experts import DEFAULT_TARGETS, MemoryLibrary, load_adapter, make_applier, save_adapter, shapes_of
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, build_pipeline

TOLERANCE = 1e-4
RANK, ALPHA = 8, 16.0


def pipeline() -> FluxFillPipeline:
    """The same weights at every call: each user gets its own to put adapters on."""
    pipe = build_pipeline(["remove the red circle"])
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, Path]:
    """Adapter files as training leaves them, with weights large enough to show."""
    folder, paths = tmp_path_factory.mktemp("adapters"), {}
    for seed, name in enumerate(("erase", "style")):
        transformer = pipeline().transformer
        transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=DEFAULT_TARGETS))
        generator = torch.Generator().manual_seed(seed)
        weights = {
            key: torch.randn(value.shape, generator=generator) * 0.1
            for key, value in get_peft_model_state_dict(transformer).items()
        }
        paths[name] = folder / f"{name}.safetensors"
        save_adapter(paths[name], weights, RANK, ALPHA)
    return paths


@pytest.fixture(scope="module")
def engines(adapters) -> Callable[[str], Engine]:
    made: dict[str, Engine] = {}

    def get(kind: str) -> Engine:
        if kind not in made:
            base = FluxFill.from_pipeline(pipeline(), max_sequence_length=MAX_SEQUENCE_LENGTH)
            shapes = shapes_of(base.transformer)
            library = MemoryLibrary({name: load_adapter(path, shapes) for name, path in adapters.items()}, shapes)
            made[kind] = Engine(base, make_applier(base.transformer, library, kind))
        return made[kind]

    return get


@pytest.mark.parametrize("kind", ["merged", "shared"])
@pytest.mark.parametrize("fields", [{"steps": 5}, {"masked": True, "steps": 3}, {"reference": True, "steps": 3}])
def test_an_edit_with_one_adapter_equals_the_stock_pipeline_with_it(
    kind, fields, engines, adapters, make_job, stock, run_to_end, float_canvas
):
    plain = make_job(**fields)
    job = make_job(**fields, weights={"style": 1.0})
    (state,) = run_to_end(engines(kind), job)

    pipe = pipeline()
    without = stock(pipe, plain, "latent")
    pipe.load_lora_weights(adapters["style"].parent, weight_name=adapters["style"].name)

    assert (without - state.latents).abs().max() > 0.1
    assert (stock(pipe, job, "latent") - state.latents).abs().max() < TOLERANCE
    assert abs(stock(pipe, job, "np")[0] - float_canvas(engines(kind), state)).max() < TOLERANCE


@pytest.mark.parametrize("kind", ["merged", "shared"])
def test_a_batch_of_experts_mixtures_and_base_equals_each_edit_alone(kind, engines, make_job, run_to_end):
    engine = engines(kind)
    jobs = [
        make_job(10, seed=1, steps=3, weights={"style": 1.0}),
        make_job(60, seed=2, steps=2),
        make_job(110, seed=3, steps=4, masked=True, weights={"erase": 0.6, "style": 0.4}),
        make_job(160, seed=4, steps=3, reference=True, weights={"erase": 1.0}),
        make_job(210, seed=5, steps=2, weights={"erase": 1.0}),
    ]

    together = run_to_end(engine, *jobs)

    for state, job in zip(together, jobs, strict=True):
        (alone,) = run_to_end(engine, job)
        assert (state.latents - alone.latents).abs().max() < TOLERANCE
        assert state.nfe == alone.nfe


def test_merged_and_shared_experts_edit_alike(engines, make_job, run_to_end):
    job = make_job(steps=4, masked=True, weights={"erase": 0.5, "style": 0.5})
    merged, shared = (run_to_end(engines(kind), job)[0] for kind in ("merged", "shared"))

    assert (merged.latents - shared.latents).abs().max() < TOLERANCE
