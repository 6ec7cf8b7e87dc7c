"""What FLUX.1's families share: two text encoders, an `AutoencoderKL`, and the transformer's arguments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from careedit.editing.cache import Tensors
from careedit.editing.families.family import Row, settings
from careedit.editing.families.kl import KLFamily
from careedit.editing.families.prompts import Prompt, PromptEncoder, tokenized
from careedit.editing.job import EditJob
from careedit.errors import ExpertError
from careedit.experts.applier import Inputs
from careedit.families import FLUX_FILL, Facts, GuidanceKind


@dataclass(frozen=True, eq=False)
class Flux1PromptEncoder(PromptEncoder):
    """CLIP and T5."""

    facts: ClassVar[Facts] = FLUX_FILL
    """Facts of the first family with these text encoders; the others have the same."""

    text_encoder_2: Any
    """T5, which gives an embedding per text token; `text_encoder` is CLIP, which gives the pooled embedding."""
    tokenizer_2: Any
    """Tokenizer that belongs to `text_encoder_2`."""

    @property
    def text_width(self) -> int:
        """Width of T5's embeddings."""
        return int(self.text_encoder_2.config.d_model)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[Tensors]:
        """See `PromptEncoder.encode_prompts`. T5, which encodes the words, decides whether the end was cut."""
        words = [tokenized(self.tokenizer_2, one.text, self.max_sequence_length) for one in prompts]
        pooled_ids = [tokenized(self.tokenizer, one.text, self.tokenizer.model_max_length)[0] for one in prompts]
        ids = torch.cat([ids for ids, _ in words])
        tokens = self.text_encoder_2(ids.to(self.device), output_hidden_states=False)[0]
        pooled = self.text_encoder(torch.cat(pooled_ids).to(self.device), output_hidden_states=False).pooler_output
        return [
            (tokens[i : i + 1].to(self.dtype).clone(), pooled[i : i + 1].to(self.dtype).clone(), torch.tensor(cut))
            for i, (_, cut) in enumerate(words)
        ]


@dataclass(frozen=True, eq=False)
class Flux1(Flux1PromptEncoder, KLFamily):
    """A base of FLUX.1's components; the families differ in where the source stands."""

    prompt_encoder: ClassVar[type[PromptEncoder]] = Flux1PromptEncoder
    """Both families have the same text encoders."""

    @property
    def guidance(self) -> GuidanceKind:
        """A guidance-distilled transformer takes the scale as an input; another takes none."""
        return "embedded" if settings(self.transformer).guidance_embeds else "none"

    def check_fit(self) -> None:
        """Raise `ExpertError` unless VAE, text encoders and transformer agree on their widths."""
        vae = settings(self.vae)
        if vae.shift_factor is None or vae.scaling_factor is None:
            raise ExpertError(
                f"The base's vae states no shift_factor or no scaling_factor; a {self.facts.pipeline}'s states both."
            )
        self.check_channels()
        config = settings(self.transformer)
        latent = 4 * self.latent_channels
        if (config.out_channels or config.in_channels) != latent:
            raise ExpertError(f"The base's transformer gives {config.out_channels} channels, but its vae has {latent}.")
        if self.text_encoder is None:
            return
        if config.joint_attention_dim != self.text_width:
            raise ExpertError(
                f"The base's transformer takes text of width {config.joint_attention_dim}, but text_encoder_2 gives "
                f"{self.text_width}."
            )
        if config.pooled_projection_dim != self.text_encoder.config.hidden_size:
            raise ExpertError(
                f"The base's transformer takes pooled text of width {config.pooled_projection_dim}, but text_encoder "
                f"gives {self.text_encoder.config.hidden_size}."
            )

    @abstractmethod
    def check_channels(self) -> None:
        """Raise `ExpertError` unless the transformer takes the family's channels."""

    def prompts(self, job: EditJob) -> tuple[Prompt, ...]:
        """One branch: guidance is an input of the transformer."""
        return (Prompt(self.prompt(job)),)

    def text_inputs(self, job: EditJob, texts: Sequence[Tensors]) -> tuple[tuple[Mapping[str, Tensor], ...], bool]:
        """The transformer's text inputs of the one branch, and whether the instruction was cut."""
        ((tokens, pooled, cut),) = texts
        return ({"encoder_hidden_states": tokens, "pooled_projections": pooled},), bool(cut)

    def make_shared(self, positions: Tensor) -> dict[str, Any]:
        """The inputs that all rows share: `positions` [T, 3] of the picture tokens, and zeros for the text."""
        text = torch.zeros(self.max_sequence_length, 3)
        ids = {"img_ids": positions, "txt_ids": text}
        return {name: value.to(device=self.device, dtype=self.dtype) for name, value in ids.items()}

    def flux_inputs(self, tokens: Tensor, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """`FluxTransformer2DModel`'s arguments for picture tokens [rows, T, C]."""
        scales = [row.scale for row in rows if row.scale is not None]
        per_row = {
            "hidden_states": tokens,
            "timestep": timesteps.to(self.dtype) / 1000,
            "pooled_projections": torch.cat([row.text["pooled_projections"] for row in rows]),
            "encoder_hidden_states": torch.cat([row.text["encoder_hidden_states"] for row in rows]),
        }
        if scales:
            per_row["guidance"] = torch.tensor(scales, dtype=torch.float32, device=self.device)
        return Inputs(per_row, {**shared, "guidance": None} if not scales else shared)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to pictures [B, 3, height, width] in about -1..1."""
        latents = self.unscaled(latents)
        if len(latents) > 1 and latents.device.type == "cpu":
            # A batch decodes a quarter faster on a CPU with its channels last. One canvas gains little, and there the
            # pipeline's own layout keeps the pipeline's own bits.
            latents = latents.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.vae.decode(latents, return_dict=False)[0])
