"""What the tests of the denoising loop share: engines on untrained tiny bases, pictures, and the stock pipeline's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from PIL import Image, ImageDraw

from careedit.editing import EditJob, EditState, Engine, FluxFill, in_context_prompt
from careedit.experts.applier import NoExperts
from careedit.images import canvas_mask, compose_canvas
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, build_pipeline


def make_base(pipe: FluxFillPipeline) -> FluxFill:
    return FluxFill.from_pipeline(pipe, max_sequence_length=MAX_SEQUENCE_LENGTH)


@pytest.fixture(scope="session")
def base(tiny_pipeline: FluxFillPipeline) -> FluxFill:
    return make_base(tiny_pipeline)


@pytest.fixture(scope="session")
def guided_pipeline() -> FluxFillPipeline:
    pipe = build_pipeline(["remove the red circle"], seed=1, guidance_embeds=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def engine(base: FluxFill) -> Engine:
    return Engine(base, NoExperts(base.transformer))


@pytest.fixture
def guided_engine(guided_pipeline: FluxFillPipeline) -> Engine:
    base = make_base(guided_pipeline)
    return Engine(base, NoExperts(base.transformer))


def scene(shade: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A drawn picture, different for every shade."""
    picture = Image.new("RGB", size, (shade, 255 - shade, 90))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((8, 12, 30 + shade % 20, 40), fill=(200, shade, 40))
    pen.rectangle((36, 30, 60, 58), fill=(20, 90, shade))
    return picture


def box_mask(size: tuple[int, int] = (64, 64), box: tuple[int, int, int, int] = (20, 12, 50, 43)) -> Image.Image:
    """A mask whose edges do not fall on token borders."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


@pytest.fixture
def make_job() -> Callable[..., EditJob]:
    def make(shade: int = 120, *, masked: bool = False, reference: bool = False, **fields: Any) -> EditJob:
        size = fields.pop("size", (64, 64))
        return EditJob(
            **{"instruction": "remove the red circle", "seed": 7, "steps": 4, **fields},
            source=scene(shade, size),
            mask=box_mask(size) if masked else None,
            references=(scene(shade + 40, size),) if reference else (),
        )

    return make


@pytest.fixture
def stock() -> Callable[..., Any]:
    """`FluxFillPipeline`'s own answer to a job, as latents or as a float picture."""

    def run(pipe: FluxFillPipeline, job: EditJob, output_type: str) -> Any:
        canvas = compose_canvas([*job.references, job.source, job.source])
        guidance = {} if job.guidance is None else {"guidance_scale": job.guidance}
        return pipe(
            prompt=in_context_prompt(job.instruction, references=len(job.references)),
            image=canvas,
            mask_image=canvas_mask(2 + len(job.references), job.source.size, job.mask),
            height=canvas.height,
            width=canvas.width,
            num_inference_steps=job.steps,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            max_sequence_length=MAX_SEQUENCE_LENGTH,
            output_type=output_type,
            **guidance,
        ).images

    return run


@pytest.fixture
def run_to_end() -> Callable[..., list[EditState]]:
    """Prepare jobs and step them together until all are done."""

    def run(engine: Engine, *jobs: EditJob) -> list[EditState]:
        states = [engine.prepare(job) for job in jobs]
        while any(state.live for state in states):
            engine.step(states)
        return states

    return run


@pytest.fixture
def float_canvas() -> Callable[[Engine, EditState], np.ndarray]:
    """A finished edit's whole canvas as the pipeline's "np" output: [height, width, 3] in 0..1."""

    def decode(engine: Engine, state: EditState) -> np.ndarray:
        picture = engine.decode([state], [state.latents])[0]
        return (picture / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).float().numpy()

    return decode
