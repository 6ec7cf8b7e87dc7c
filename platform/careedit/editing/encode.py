"""Encodes text and pictures for the transformer, equal to `FluxFillPipeline`'s encodings number for number."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from careedit.editing.base_model import EditorBase, settings
from careedit.editing.cache import EncodingCache, Tensors
from careedit.editing.latents import pack, pack_mask, unpack
from careedit.images import image_sha256


@dataclass(frozen=True, eq=False)
class PromptEncoding:
    """The encodings of one prompt."""

    tokens: Tensor
    """T5's output, [1, max_sequence_length, width]."""
    pooled: Tensor
    """CLIP's pooled output, [1, width]."""
    truncated: bool
    """Whether the prompt is too long for T5, which encodes its words, so that its end is missing."""
    pooled_truncated: bool
    """Whether the prompt is too long for CLIP, which gives the pooled embedding, so that its end is missing."""


@dataclass(frozen=True, eq=False)
class StartLatents:
    """The random tensors of one edit, drawn from its own seed."""

    noise: Tensor
    """The noise that denoising starts from, tokens [1, T, 4C]."""
    condition: Tensor
    """Sampled latents of the masked canvas, then the mask's pixels: tokens [1, T, 4C + 4*s*s]."""
    mask: Tensor
    """The mask's pixels, tokens [1, T, 4*s*s], 1 where the edit is free."""


class Encoder:
    """Encodes prompts and canvases for one base; repeated ones come from `cache`."""

    def __init__(self, base: EditorBase, cache: EncodingCache) -> None:
        self.base = base
        self.cache = cache
        layout: dict[str, Any] = {"vae_scale_factor": base.multiple, "vae_latent_channels": base.latent_channels}
        self._pictures = VaeImageProcessor(**layout)
        self._masks = VaeImageProcessor(**layout, do_normalize=False, do_binarize=True, do_convert_grayscale=True)

    @torch.no_grad()
    def prompt(self, text: str) -> PromptEncoding:
        """`text` through both encoders; long text is truncated as in the pipeline, and the result says so."""
        tokens, pooled, cut, pooled_cut = self.cache.get(("prompt", text), lambda: self._encode_prompt(text))
        return PromptEncoding(tokens, pooled, bool(cut), bool(pooled_cut))

    @torch.no_grad()
    def start(self, canvas: Image.Image, mask: Image.Image, seed: int) -> StartLatents:
        """The start of an edit on `canvas`, free where `mask` ("L", of the canvas's size) is 128 or more.

        The draws come from a CPU generator per edit, in the pipeline's order: the sample of the unmasked
        canvas's latents (which strength 1.0 then multiplies by 0, so only its draw is repeated here), the noise, the
        sample of the masked canvas's latents. So a seed's noise depends neither on the batch nor on the device.
        """
        key: Hashable = ("canvas", image_sha256(canvas), image_sha256(mask))
        moments, mask_tokens = self.cache.get(key, lambda: self._encode_canvas(canvas, mask))
        posterior = cast(Any, DiagonalGaussianDistribution)(moments)
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = posterior.mean.shape
        torch.randn(shape, generator=generator, dtype=moments.dtype)
        noise = torch.randn(shape, generator=generator, dtype=self.base.dtype).to(self.base.device)
        vae = settings(self.base.vae)
        sample = (posterior.sample(generator) - vae.shift_factor) * vae.scaling_factor
        condition = torch.cat((pack(sample.to(self.base.dtype)), mask_tokens), dim=-1)
        return StartLatents(pack(noise), condition, mask_tokens)

    @torch.no_grad()
    def picture(self, canvas: Image.Image) -> Tensor:
        """The mean latents of an unmasked canvas, tokens [1, T, 4C]."""
        return self.cache.get(("picture", image_sha256(canvas)), lambda: self._encode_picture(canvas))[0]

    @torch.no_grad()
    def decode(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens [B, T, 4C] of canvases of `size` (width, height in pixels) to pictures [B, 3, height, width] in -1..1."""
        width, height = (side // self.base.vae_scale for side in size)
        vae: Any = self.base.vae
        latents = (unpack(tokens, height, width) / vae.config.scaling_factor + vae.config.shift_factor).to(vae.dtype)
        if len(latents) > 1 and latents.device.type == "cpu":
            # A batch decodes a quarter faster on a CPU with its channels last. One canvas gains little, and there the
            # pipeline's own layout keeps the pipeline's own bits.
            latents = latents.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, vae.decode(latents, return_dict=False)[0])

    def to_pictures(self, pictures: Tensor) -> list[Image.Image]:
        """[B, 3, height, width] in -1..1 to RGB pictures, clipped and rounded as the pipeline does."""
        return cast("list[Image.Image]", self._pictures.postprocess(pictures, output_type="pil"))

    def _encode_prompt(self, text: str) -> Tensors:
        base = self.base
        ids, cut = _tokenize(base.tokenizer_2, text, base.max_sequence_length)
        pooled_ids, pooled_cut = _tokenize(base.tokenizer, text, base.tokenizer.model_max_length)
        tokens = cast(Any, base.text_encoder_2)(ids.to(base.device), output_hidden_states=False)[0]
        pooled = cast(Any, base.text_encoder)(pooled_ids.to(base.device), output_hidden_states=False).pooler_output
        return tokens.to(base.dtype), pooled.to(base.dtype), torch.tensor(cut), torch.tensor(pooled_cut)

    def _encode_picture(self, canvas: Image.Image) -> Tensors:
        vae: Any = self.base.vae
        pixels = self._pictures.preprocess(canvas, height=canvas.height, width=canvas.width)
        mean = vae.encode(pixels.to(device=self.base.device, dtype=vae.dtype)).latent_dist.mean
        latents = (mean - vae.config.shift_factor) * vae.config.scaling_factor
        return (pack(latents.to(self.base.dtype)),)

    def _encode_canvas(self, canvas: Image.Image, mask: Image.Image) -> Tensors:
        base = self.base
        vae: Any = base.vae
        pixels = self._pictures.preprocess(canvas, height=canvas.height, width=canvas.width).to(torch.float32)
        free = self._masks.preprocess(mask, height=canvas.height, width=canvas.width)
        masked = (pixels * (1 - free)).to(device=base.device, dtype=vae.dtype)
        moments = vae.encode(masked).latent_dist.parameters
        return moments, pack_mask(free, base.vae_scale).to(device=base.device, dtype=base.dtype)


def _tokenize(tokenizer: Any, text: str, length: int) -> tuple[Tensor, bool]:
    padded = tokenizer([text], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    # verbose=False: a text over the limit is reported by the flag, not by the tokenizer's log.
    whole = tokenizer([text], truncation=False, verbose=False)["input_ids"][0]
    return padded.input_ids, len(whole) > length
