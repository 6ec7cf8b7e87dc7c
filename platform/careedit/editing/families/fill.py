"""FLUX.1-Fill: source and target are panels of one canvas, whose masked target the transformer fills in (ICEdit).

Every number equals `FluxFillPipeline`'s for the same canvas, mask, prompt and seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from careedit.editing.cache import EncodingCache, Tensors
from careedit.editing.families.family import Begin, Encoded, Family, Row, settings
from careedit.editing.families.flux1 import Flux1
from careedit.editing.job import EditJob
from careedit.editing.latents import pack, pack_mask, position_ids, token_coverage, unpack
from careedit.errors import ExpertError, InputError
from careedit.experts.applier import Inputs
from careedit.families import FLUX_FILL, Facts
from careedit.images import canvas_mask, compose_canvas, crop_target, image_sha256

DIPTYCH = "A diptych with two side-by-side images of the same scene. On the right, the scene is exactly the same as on the left but"
TRIPTYCH = (
    "A triptych with three side-by-side images. On the left, a reference. On the right, the scene is exactly the same as in "
    "the middle but, taking from the reference,"
)
"""The in-context prompts (ICEdit, arXiv 2504.20690, section 3.1, in the wording of its released code)."""


def in_context_prompt(instruction: str, *, references: int = 0) -> str:
    """The prompt that the base sees: the fixed frame, then the instruction as the user wrote it."""
    return f"{TRIPTYCH if references else DIPTYCH} {instruction.strip()}"


def panels_of(job: EditJob) -> int:
    """Panels of the canvas: [source | target], with a reference [reference | source | target]."""
    return 2 + len(job.references)


@dataclass(frozen=True, eq=False)
class FluxFill(Flux1):
    """The components of a `FluxFillPipeline`."""

    facts: ClassVar[Facts] = FLUX_FILL
    """Facts of the family, which need no weights."""

    def check_channels(self) -> None:
        """The transformer takes noisy latents, masked latents and every pixel of the mask (384 channels in FLUX.1-Fill)."""
        latent = 4 * self.latent_channels
        expected = 2 * latent + 4 * self.vae_scale**2
        channels = settings(self.transformer).in_channels
        if channels != expected:
            raise ExpertError(
                f"The base's transformer takes {channels} channels, but with its vae a fill-type transformer takes "
                f"{expected} (noisy latents, masked image and mask); give a fill-type base."
            )

    def check(self, job: EditJob) -> float | None:
        """As in `Family.check`; panels of one canvas have one size."""
        if any(reference.size != job.source.size for reference in job.references):
            raise InputError(
                f"Every reference must be fitted to the source's panel of {job.source.size} pixels.", field="references"
            )
        return super().check(job)

    def prompt(self, job: EditJob) -> str:
        """The in-context prompt of a diptych or triptych."""
        return in_context_prompt(job.instruction, references=len(job.references))

    @torch.no_grad()
    def encode(self, job: EditJob, cache: EncodingCache, texts: Sequence[Tensors] | None = None) -> Encoded:
        """Prompt, masked canvas and mask; with `start="source"` the unmasked canvas too.

        `pictures` are the moments of the masked canvas' latents [1, 2C, h, w], the mask's pixels as tokens
        [1, T, 4*s*s], and the mean latents of the unmasked canvas [1, T, 4C] if the edit starts from the source.
        """
        scale = self.check(job)
        canvas = compose_canvas([*job.references, job.source, job.source])
        mask = canvas_mask(panels_of(job), job.source.size, job.mask)
        key: Hashable = ("canvas", image_sha256(canvas), image_sha256(mask))
        pictures = cache.get(key, lambda: self._encode_canvas(canvas, mask))
        if job.start == "source":
            pictures = (
                *pictures,
                *cache.get(("picture", image_sha256(canvas)), lambda: (self.encode_picture(canvas),)),
            )
        inputs, truncated = self.text_inputs(job, self.encode_texts(job, cache) if texts is None else texts)
        grid = (canvas.height // self.multiple, canvas.width // self.multiple)
        shared = self.remember(grid, lambda: self.make_shared(position_ids(2 * grid[0], 2 * grid[1])))
        return Encoded(inputs, scale, grid, grid, shared, pictures, truncated)

    @torch.no_grad()
    def begin(self, job: EditJob, encoded: Encoded) -> Begin:
        """The draws come in the pipeline's order: the sample of the unmasked canvas's latents (which strength 1.0 then
        multiplies by 0, so only its draw is repeated here), the noise, the sample of the masked canvas's latents."""
        moments, mask, *picture = encoded.pictures
        posterior = cast(Any, DiagonalGaussianDistribution)(moments)
        generator = torch.Generator("cpu").manual_seed(job.seed)
        shape = posterior.mean.shape
        torch.randn(shape, generator=generator, dtype=moments.dtype)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype).to(self.device)
        sample = self.scaled(posterior.sample(generator))
        latents = pack(noise) * job.noise_scale
        if picture:
            latents = latents + picture[0]
        condition = torch.cat((pack(sample.to(self.dtype)), mask), dim=-1)
        return Begin(latents, condition, None if job.mask is None else token_coverage(mask))

    def inputs(self, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """Each token's condition stands next to it in the channels."""
        tokens = torch.cat([torch.cat((row.latents, row.condition), dim=2) for row in rows])
        return self.flux_inputs(tokens, rows, timesteps, shared)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Whole canvases, [B, 3, height, width] in about -1..1."""
        return self.decode_latents(unpack(tokens, 2 * grid[0], 2 * grid[1]))

    def to_image(self, picture: Tensor, job: EditJob) -> Image.Image:
        """The last panel of a canvas, clipped and rounded as the pipeline does."""
        return crop_target(self.image_processor.postprocess(picture, output_type="pil")[0], panels_of(job))

    def pixels(self, job: EditJob) -> int:
        """Pixels of the canvas."""
        return panels_of(job) * job.source.width * job.source.height

    def _encode_canvas(self, canvas: Image.Image, mask: Image.Image) -> Tensors:
        pixels = self.image_processor.preprocess(canvas, height=canvas.height, width=canvas.width).to(torch.float32)
        masks = VaeImageProcessor(
            vae_scale_factor=self.multiple, do_normalize=False, do_binarize=True, do_convert_grayscale=True
        )
        free = masks.preprocess(mask, height=canvas.height, width=canvas.width)
        masked = (pixels * (1 - free)).to(device=self.device, dtype=self.vae.dtype)
        moments = self.vae.encode(masked).latent_dist.parameters
        return moments, pack_mask(free, self.vae_scale).to(device=self.device, dtype=self.dtype)


def as_fill(base: Family) -> FluxFill:
    """`base` as a FLUX.1-Fill base; raises `ExpertError` for another family."""
    if not isinstance(base, FluxFill):
        raise ExpertError(f"This works with FLUX.1-Fill bases only, and the base is a {base.facts.pipeline}.")
    return base
