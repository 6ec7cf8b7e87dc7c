"""Each family's edits equal its stock pipeline's: alone, in mixed batches, with masks, with references."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinInpaintPipeline, FluxKontextInpaintPipeline, TaylorSeerCacheConfig
from PIL import Image, ImageDraw

import small_bases
from careedit.editing import FAMILIES, EditJob, Engine
from careedit.editing.families import Flux2Klein
from careedit.errors import ImageError, InputError
from careedit.experts.applier import NoExperts
from careedit.records import StepCache

BUILDERS: dict[str, Callable[[], Any]] = {
    "kontext": small_bases.kontext,
    "klein": small_bases.klein,
    "klein kv": partial(small_bases.klein, kv=True),
    "klein base": partial(small_bases.klein, distilled=False),
    "qwen 2509": partial(small_bases.qwen, zero_cond_t=False),
    "qwen 2511": small_bases.qwen,
    "longcat": small_bases.longcat,
}
GUIDANCE = {
    "kontext": 2.5,
    "klein": None,
    "klein kv": None,
    "klein base": 3.0,
    "qwen 2509": 3.0,
    "qwen 2511": 3.0,
    "longcat": 3.0,
}
"""A guidance scale that the base takes."""
REFERENCES = {"klein": 3, "klein kv": 3, "klein base": 3, "qwen 2509": 2, "qwen 2511": 2}


@pytest.fixture(scope="module", params=list(BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipe(name: str) -> Any:
    pipe = BUILDERS[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def engine(pipe: Any) -> Engine:
    length = small_bases.TEXT_LENGTH if hasattr(pipe, "text_encoder_2") else None
    base = FAMILIES[type(pipe).__name__].from_pipeline(pipe, max_sequence_length=length)
    return Engine(base, NoExperts(base.transformer))


@pytest.fixture(autouse=True)
def _small_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    small_bases.use_small_areas(monkeypatch)


def picture(shade: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    image = Image.new("RGB", size, (shade, 255 - shade, 90))
    ImageDraw.Draw(image).ellipse((8, 12, 30 + shade % 20, 40), fill=(200, shade, 40))
    return image


def job(shade: int = 120, **fields: Any) -> EditJob:
    return EditJob(
        **{"source": picture(shade), "instruction": "remove the red circle", "seed": 7, "steps": 4, **fields}
    )


def stock(pipe: Any, job: EditJob, output_type: str = "latent") -> Any:
    """The pipeline's own answer to a job."""
    kind = type(pipe).__name__
    pictures = [job.source, *job.references]
    arguments: dict[str, Any] = {
        "prompt": job.instruction,
        "image": pictures if len(pictures) > 1 else job.source,
        "num_inference_steps": job.steps,
        "generator": torch.Generator("cpu").manual_seed(job.seed),
        "output_type": output_type,
    }
    if kind != "LongCatImageEditPipeline":
        arguments |= {"height": job.source.height, "width": job.source.width}
    if kind.startswith("FluxKontext"):
        arguments |= {"max_area": job.source.width * job.source.height, "_auto_resize": False}
        arguments |= {"max_sequence_length": small_bases.TEXT_LENGTH}
    if kind == "QwenImageEditPlusPipeline":
        arguments |= {"true_cfg_scale": job.guidance or 1.0}
        arguments |= {"negative_prompt": " "} if (job.guidance or 1.0) > 1 else {}
    elif job.guidance is not None:
        arguments |= {"guidance_scale": job.guidance}
    if job.mask is not None:
        arguments |= {"mask_image": job.mask, "strength": 1.0}
    return pipe(**arguments).images


def finished(engine: Engine, *jobs: EditJob, head_start: int = 0) -> list[torch.Tensor]:
    """The final latents of jobs that are stepped together, the first one `head_start` steps ahead, as pipelines give them."""
    states = [engine.prepare(one) for one in jobs]
    engine.advance(states[:1], head_start)
    engine.advance(states)
    if isinstance(engine.base, Flux2Klein):
        return [engine.base.vae_latents(state.latents, state.encoded.grid) for state in states]
    return [state.latents for state in states]


def without_guidance(name: str) -> float | None:
    """The scale at which a base has one branch: its own equality test needs no second forward."""
    return GUIDANCE[name] if name in ("kontext", "klein", "klein kv") else 1.0


def test_an_edit_alone_equals_the_pipeline_bit_for_bit(name: str, pipe: Any, engine: Engine) -> None:
    one = job(guidance=without_guidance(name))
    state = engine.prepare(one)
    engine.advance([state])
    assert torch.equal(finished(engine, one)[0], stock(pipe, one))
    assert engine.finish(state).tobytes() == stock(pipe, one, "pil")[0].tobytes()
    assert engine.finish(state).size == one.source.size


def test_a_guided_edit_equals_the_pipeline(name: str, pipe: Any, engine: Engine) -> None:
    one = job(guidance=GUIDANCE[name])
    (latents,) = finished(engine, one)
    torch.testing.assert_close(latents, stock(pipe, one), rtol=0.0, atol=1e-5)


def test_edits_at_other_steps_share_a_batch(name: str, pipe: Any, engine: Engine) -> None:
    first = job(seed=3, steps=5, guidance=GUIDANCE[name])
    second = job(200, seed=4, instruction="make the whole picture blue", guidance=GUIDANCE[name])
    for latents, one in zip(finished(engine, first, second, head_start=2), (first, second), strict=True):
        torch.testing.assert_close(latents, stock(pipe, one), rtol=0.0, atol=1e-4)


def test_references_of_any_size_stand_behind_the_source(name: str, pipe: Any, engine: Engine) -> None:
    long = (32, 128) if name.startswith("qwen") else (64, 128)  # sizes that the pipelines do not change
    sizes = [long, long[::-1], (64, 64)][: REFERENCES.get(name, 0)]
    references = tuple(picture(30 * index, size) for index, size in enumerate(sizes))
    one = job(references=references, guidance=without_guidance(name))
    if sizes:
        assert torch.equal(finished(engine, one)[0], stock(pipe, one))
    with pytest.raises(InputError, match="references were given, but the base"):
        engine.check(job(references=(picture(1),) * (len(sizes) + 1)))


def test_bfloat16_is_rounded_as_in_the_pipeline(name: str) -> None:
    pipe = BUILDERS[name]().to(torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    length = small_bases.TEXT_LENGTH if hasattr(pipe, "text_encoder_2") else None
    base = FAMILIES[type(pipe).__name__].from_pipeline(pipe, max_sequence_length=length)
    one = job(steps=2, guidance=without_guidance(name))
    assert torch.equal(finished(Engine(base, NoExperts(base.transformer)), one)[0], stock(pipe, one))


@pytest.mark.parametrize("name", ["kontext", "klein"], indirect=True)
def test_a_mask_keeps_the_source_as_the_inpaint_pipeline_does(name: str, pipe: Any, engine: Engine) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 32, 48, 64))  # whole tokens: at partly marked ones the pipelines differ from each other
    kind = {"kontext": FluxKontextInpaintPipeline, "klein": Flux2KleinInpaintPipeline}[name]
    inpaint = kind(**pipe.components, **({"is_distilled": True} if name == "klein" else {}))
    inpaint.set_progress_bar_config(disable=True)
    one = job(mask=mask, guidance=without_guidance(name) or (None if name == "klein" else 2.5))
    assert torch.equal(finished(engine, one)[0], stock(inpaint, one))


def test_a_mask_leaves_the_rest_of_the_source(name: str, engine: Engine) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 32, 64, 64))
    state = engine.prepare(job(mask=mask, guidance=without_guidance(name)))
    engine.advance([state])
    kept = state.kept
    assert kept is not None
    outside = (kept.free == 0).expand_as(state.latents)
    assert torch.equal(state.latents[outside], kept.clean[outside])
    assert not torch.equal(state.latents[~outside], kept.clean[~outside])


def test_a_preview_is_the_denoised_estimate_and_a_cancelled_edit_stops(name: str, engine: Engine) -> None:
    states = [engine.prepare(job(seed=seed, guidance=GUIDANCE[name])) for seed in (1, 2)]
    engine.advance(states, 2)
    previews = engine.preview_many(states)
    assert {preview.size for preview in previews} == {(64, 64)}
    assert previews[0].tobytes() != previews[1].tobytes()
    engine.cancel(states[0])
    engine.advance(states)
    assert (states[0].index, states[1].index) == (2, 4)


def test_a_panel_of_another_size_is_refused(engine: Engine) -> None:
    with pytest.raises(ImageError, match="must be multiples of"):
        engine.check(job(source=picture(1, (72, 65))))


def test_a_base_that_takes_no_guidance_refuses_it(name: str, engine: Engine) -> None:
    if GUIDANCE[name] is None:
        with pytest.raises(InputError, match="takes none"):
            engine.check(job(guidance=3.0))
    else:
        assert engine.check(job(guidance=3.0)) == 3.0
    with pytest.raises(InputError, match="cannot start from 'source'"):
        engine.check(job(start="source"))


@pytest.mark.parametrize("name", ["klein"], indirect=True)
def test_a_step_cache_equals_the_stock_hook_in_any_batch(pipe: Any, engine: Engine) -> None:
    jobs = [job(seed=1, steps=12, step_cache=StepCache()), job(90, seed=2, steps=16, step_cache=StepCache())]
    states = [engine.prepare(one) for one in jobs]
    engine.advance(states[:1], 5)
    engine.advance(states)
    assert [state.nfe for state in states] == [6, 7]
    pipe.transformer.enable_cache(
        TaylorSeerCacheConfig(
            cache_interval=3,
            disable_cache_before_step=3,
            max_order=1,
            taylor_factors_dtype=torch.float32,
            use_lite_mode=True,
        )
    )
    try:
        for one, state in zip(jobs, states, strict=True):
            pipe.transformer._reset_stateful_cache()
            latents = engine.base.vae_latents(state.latents, state.encoded.grid)
            torch.testing.assert_close(latents, stock(pipe, one), rtol=0.0, atol=1e-5)
    finally:
        pipe.transformer.disable_cache()


def test_a_step_cache_with_nothing_to_skip_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to skip in 3 steps"):
        job(steps=3, step_cache=StepCache())
