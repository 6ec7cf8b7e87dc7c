"""FLUX.2 [klein]: four axes of positions, text from three layers of Qwen3, latents normalised by the VAE's batch norm.

Every number equals `Flux2KleinPipeline`'s for the same pictures, prompt and seed (guidance branches to rounding, since both
share one forward); with a mask `Flux2KleinInpaintPipeline`'s at strength 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline, compute_empirical_mu
from PIL import Image
from torch import Tensor

from careedit.editing.cache import Tensors
from careedit.editing.families.family import settings
from careedit.editing.families.prompts import Prompt, PromptEncoder
from careedit.editing.families.sequence import Grid, SequenceFamily
from careedit.editing.job import EditJob
from careedit.errors import ExpertError
from careedit.families import FLUX2_KLEIN, Facts, GuidanceKind

_PIPELINE: Any = Flux2KleinPipeline
LAYERS = (9, 18, 27)
"""Hidden states of the text encoder that are put side by side, as in the pipeline."""


@dataclass(frozen=True, eq=False)
class KleinPromptEncoder(PromptEncoder):
    """Qwen3, of which three layers are read."""

    facts: ClassVar[Facts] = FLUX2_KLEIN
    """Facts of the first family with this text encoder; the others have the same."""

    @property
    def text_width(self) -> int:
        """Width of three hidden states."""
        return len(LAYERS) * int(self.text_encoder.config.hidden_size)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[Tensors]:
        """See `PromptEncoder.encode_prompts`. The pipeline pads every prompt to the same length."""
        texts = [one.text for one in prompts]
        tokens = _PIPELINE._get_qwen3_prompt_embeds(
            self.text_encoder,
            self.tokenizer,
            texts,
            dtype=self.dtype,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
            hidden_states_layers=LAYERS,
        )
        return [(tokens[i : i + 1].clone(), torch.tensor(self._is_cut(text))) for i, text in enumerate(texts)]

    def _is_cut(self, text: str) -> bool:
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return len(self.tokenizer(chat, truncation=False, verbose=False)["input_ids"]) > self.max_sequence_length


@dataclass(frozen=True, eq=False)
class Flux2Klein(KleinPromptEncoder, SequenceFamily):
    """The components of a `Flux2KleinPipeline`."""

    facts: ClassVar[Facts] = FLUX2_KLEIN
    """Facts of the family, which need no weights."""
    prompt_encoder: ClassVar[type[PromptEncoder]] = KleinPromptEncoder
    """Also that of the family with kept keys and values."""

    @cached_property
    def image_processor(self) -> Any:
        """Pixels to tensors and back, as the pipeline's own processor does it."""
        return Flux2ImageProcessor(vae_scale_factor=2 * self.vae_scale)

    @property
    def guidance(self) -> GuidanceKind:
        """A step-distilled base takes no guidance."""
        return "none" if self.options.get("is_distilled") else "branches"

    def check_fit(self) -> None:
        """Text encoder, VAE and transformer agree on their widths."""
        expected = settings(self.transformer).joint_attention_dim
        if self.text_encoder is not None and expected != self.text_width:
            raise ExpertError(
                f"The base's transformer takes text of width {expected}, but three layers of its text_encoder give "
                f"{self.text_width}."
            )
        self.check_channels()
        if self.text_encoder is not None and self.text_encoder.config.num_hidden_layers < LAYERS[-1]:
            raise ExpertError(f"The base's text_encoder has fewer than {LAYERS[-1]} layers; give klein's own.")

    def encode_picture(self, picture: Image.Image) -> Tensor:
        """The mode of the picture's latents, folded 2x2, normalised by the VAE's batch norm, as tokens."""
        pixels = self.image_processor.preprocess(
            picture, height=picture.height, width=picture.width, resize_mode="crop"
        )
        latents = self.vae.encode(pixels.to(device=self.device, dtype=self.vae.dtype)).latent_dist.mode()
        latents = _PIPELINE._patchify_latents(latents)
        mean, std = self._moments(latents)
        return _tokens(((latents - mean) / std).to(self.dtype))

    def noise(self, grid: Grid, generator: torch.Generator) -> Tensor:
        """Drawn folded, as [1, 4C, rows, columns]."""
        return _tokens(torch.randn((1, 4 * self.latent_channels, *grid), generator=generator, dtype=self.dtype))

    def prompts(self, job: EditJob) -> tuple[Prompt, ...]:
        """The instruction, and for guidance the empty prompt."""
        return (Prompt(self.prompt(job)), Prompt(""))[: self.branches(job)]

    def positions(self, grids: Sequence[Grid], texts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """Axes (picture, row, column, word): the target is picture 0, then 10, 20, ...; words are numbered."""
        one = torch.arange(1)
        pictures = [
            torch.cartesian_prod(torch.tensor([10 * number]), torch.arange(rows), torch.arange(columns), one)
            for number, (rows, columns) in enumerate(grids)
        ]
        words = torch.cartesian_prod(one, one, one, torch.arange(self.max_sequence_length))
        ids = {"img_ids": torch.cat(pictures), "txt_ids": words}
        return {**{name: value.to(self.device) for name, value in ids.items()}, "guidance": None}

    def shift(self, tokens: int, steps: int) -> float:
        """FLUX.2's fitted shift, which depends on the number of steps too."""
        return compute_empirical_mu(tokens, steps)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Targets [B, 3, height, width] in about -1..1."""
        latents = self.vae_latents(tokens, grid).to(self.vae.dtype)
        return cast(Tensor, self.vae.decode(latents, return_dict=False)[0])

    def vae_latents(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens [B, T, 4C] as the VAE's own latents [B, C, 2 * rows, 2 * columns]."""
        latents = tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)
        mean, std = self._moments(latents)
        return cast(Tensor, _PIPELINE._unpatchify_latents(latents * std + mean))

    def _moments(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        mean = norm.running_mean.view(1, -1, 1, 1).to(latents)
        return mean, torch.sqrt(norm.running_var.view(1, -1, 1, 1) + self.vae.config.batch_norm_eps).to(latents)


def _tokens(latents: Tensor) -> Tensor:
    """[B, C, rows, columns] to tokens [B, T, C]."""
    return latents.flatten(2).transpose(1, 2)
