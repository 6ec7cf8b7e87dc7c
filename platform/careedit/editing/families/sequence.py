"""What the families share whose pictures stand behind the target as tokens, each picture on a grid of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from careedit.editing.cache import EncodingCache, Tensors
from careedit.editing.families.family import Begin, Encoded, Family, Kept, Row, settings
from careedit.editing.job import EditJob
from careedit.editing.latents import pack
from careedit.errors import ExpertError
from careedit.experts.applier import Inputs
from careedit.images import image_sha256

Grid = tuple[int, int]
"""Rows and columns of tokens."""


@dataclass(frozen=True, eq=False)
class SequenceFamily(Family):
    """A base that denoises the target's tokens alone and reads the source and the references behind them."""

    @abstractmethod
    def encode_picture(self, picture: Image.Image) -> Tensor:
        """One picture's normalised latents as tokens, [1, T, C]."""

    def noise(self, grid: Grid, generator: torch.Generator) -> Tensor:
        """The target's noise as tokens [1, T, 4C], drawn on the CPU in the pipeline's shape [1, C, h, w]."""
        shape = (1, self.latent_channels, 2 * grid[0], 2 * grid[1])
        return pack(torch.randn(shape, generator=generator, dtype=self.dtype))

    def check_fit(self) -> None:
        """Text encoder, VAE and transformer agree on their widths."""
        expected = settings(self.transformer).joint_attention_dim
        if self.text_encoder is not None and expected != self.text_width:
            raise ExpertError(
                f"The base's transformer takes text of width {expected}, but its text_encoder gives {self.text_width}."
            )
        self.check_channels()

    def check_channels(self) -> None:
        """The transformer takes the latents' channels alone."""
        channels = settings(self.transformer).in_channels
        if channels != 4 * self.latent_channels:
            raise ExpertError(
                f"The base's transformer takes {channels} channels, but its vae gives {4 * self.latent_channels}."
            )

    def inputs(self, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """The pictures' tokens stand behind the target's."""
        per_row = {
            "hidden_states": tokens_behind(rows),
            "encoder_hidden_states": torch.cat([row.text["encoder_hidden_states"] for row in rows]),
            "timestep": timesteps.to(self.dtype) / 1000,
        }
        return Inputs(per_row, shared)

    def text_inputs(self, job: EditJob, texts: Sequence[Tensors]) -> tuple[tuple[Mapping[str, Tensor], ...], bool]:
        """The transformer's text inputs of each guidance branch, and whether the instruction was cut."""
        return tuple({"encoder_hidden_states": tokens} for tokens, _ in texts), bool(texts[0][-1])

    @abstractmethod
    def positions(self, grids: Sequence[Grid], texts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """The inputs that all rows share, for the target's grid and those of the pictures behind it."""

    def text_layout(self, texts: Sequence[Mapping[str, Tensor]]) -> Hashable:
        """What the texts of two edits must have in common to share a batch: by default their length."""
        return texts[0]["encoder_hidden_states"].shape[1]

    def grids(self, job: EditJob) -> tuple[Grid, ...]:
        """The grids of the target, of the source and of the references."""
        side = 2 * self.vae_scale
        pictures = (job.source, job.source, *job.references)
        return tuple((one.height // side, one.width // side) for one in pictures)

    def shared_inputs(
        self, grids: tuple[Grid, ...], texts: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Hashable, Mapping[str, Any]]:
        """The layout of rows with these grids and texts, and the inputs that such rows share."""
        layout = (grids, self.text_layout(texts))
        return layout, self.remember(layout, lambda: self.positions(grids, texts))

    def prompt(self, job: EditJob) -> str:
        """The instruction itself."""
        return job.instruction.strip()

    @torch.no_grad()
    def encode(self, job: EditJob, cache: EncodingCache, texts: Sequence[Tensors] | None = None) -> Encoded:
        """Instruction and pictures; `pictures` are each picture's tokens [1, T, C], the source's first."""
        scale = self.check(job)
        pictures = (job.source, *job.references)
        tokens = tuple(cache.get(("picture", image_sha256(one)), partial(self._encode, one))[0] for one in pictures)
        inputs, truncated = self.text_inputs(job, self.encode_texts(job, cache) if texts is None else texts)
        grids = self.grids(job)
        layout, shared = self.shared_inputs(grids, inputs)
        return Encoded(inputs, scale, grids[0], layout, shared, tokens, truncated)

    @torch.no_grad()
    def begin(self, job: EditJob, encoded: Encoded) -> Begin:
        """One draw: the target's noise. A mask keeps the source outside it after every step."""
        generator = torch.Generator("cpu").manual_seed(job.seed)
        noise = self.noise(encoded.grid, generator).to(self.device) * job.noise_scale
        condition = torch.cat(encoded.pictures, dim=1)
        if job.mask is None:
            return Begin(noise, condition)
        free = free_tokens(job.mask, encoded.grid).to(device=self.device, dtype=self.dtype)
        return Begin(noise, condition, kept=Kept(free, noise, encoded.pictures[0]))

    def _encode(self, picture: Image.Image) -> Tensors:
        return (self.encode_picture(picture),)

    def to_image(self, picture: Tensor, job: EditJob) -> Image.Image:
        """The picture, clipped and rounded as the pipeline does."""
        return cast(Image.Image, self.image_processor.postprocess(picture, output_type="pil")[0])


def tokens_behind(rows: Sequence[Row]) -> Tensor:
    """Each row's target tokens with its pictures' behind them, [rows, T, C]."""
    return torch.cat([torch.cat((row.latents, row.condition), dim=1) for row in rows])


def free_tokens(mask: Image.Image, grid: Grid) -> Tensor:
    """1 for each token with a pixel of 128 or more in `mask`, else 0: [1, T, 1].

    A partly marked token must be free; the pixels outside the mask become the source's own when the result is composed.
    """
    marked = torch.from_numpy((np.asarray(mask.convert("L")) >= 128).astype(np.float32))[None, None]
    return functional.adaptive_max_pool2d(marked, grid).flatten(2).transpose(1, 2)
