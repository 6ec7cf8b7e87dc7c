"""diffusers' own pipeline of a loaded base: what the benchmarks compare the own loop with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import diffusers
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from PIL import Image

from careedit.editing import EditJob, Family
from careedit.families import FLUX2_KLEIN, FLUX_FILL, FLUX_KONTEXT, LONGCAT_EDIT, QWEN_EDIT_PLUS
from careedit.images import canvas_mask, compose_canvas


def stock_pipeline(base: Family) -> Any:
    """The pipeline of the base's family over the same components, including the transformer."""
    components = {name: getattr(base, name) for name in base.facts.components}
    components["scheduler"] = copy.deepcopy(base.scheduler)
    options = {name: base.options[name] for name in ("is_distilled",) if name in base.options}
    pipeline = getattr(diffusers, base.facts.pipeline)(**components, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_stock(pipeline: Any, base: Family, job: EditJob) -> Image.Image:
    """Run an edit without mask and references by diffusers' own pipeline; for FLUX.1-Fill the picture is the whole canvas."""
    facts, (width, height) = base.facts, job.source.size
    call: dict[str, Any] = {
        "image": job.source,
        "prompt": base.prompt(job),
        "num_inference_steps": job.steps,
        "generator": torch.Generator("cpu").manual_seed(job.seed),
    }
    if facts is not LONGCAT_EDIT:  # it takes its size from the picture
        call |= {"width": width, "height": height, "max_sequence_length": base.max_sequence_length}
    if facts is FLUX_FILL:
        canvas = compose_canvas([job.source, job.source])
        call |= {"image": canvas, "mask_image": canvas_mask(2, job.source.size, None), "width": canvas.width}
    elif facts is FLUX_KONTEXT:
        call |= {"max_area": width * height, "_auto_resize": False}
    elif facts is QWEN_EDIT_PLUS:
        guidance = facts.default_guidance if job.guidance is None else job.guidance
        call |= {"negative_prompt": " ", "true_cfg_scale": guidance}
    elif facts is FLUX2_KLEIN:
        distilled = base.options.get("is_distilled", False)
        call |= {"guidance_scale": 1.0 if distilled else job.guidance or facts.default_guidance}
    with _qwen_area(width * height):
        return cast(Image.Image, pipeline(**call).images[0])


@contextmanager
def _qwen_area(pixels: int) -> Iterator[None]:
    """Let Qwen's pipeline encode the source at the panel's size; its own is always about 1024 x 1024 pixels."""
    before = pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE
    try:
        pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE = pixels
        yield
    finally:
        pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE = before
