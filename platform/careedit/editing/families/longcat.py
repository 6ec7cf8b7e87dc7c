"""LongCat-Image-Edit: FLUX.1's kind of transformer and VAE, with text from Qwen2.5-VL, which reads the picture too.

Every number equals `LongCatImageEditPipeline`'s for the same picture, prompt and seed (guidance branches to rounding), for
panels of the area that the pipeline itself would choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit
from PIL import Image
from torch import Tensor

from careedit.editing.cache import EncodingCache
from careedit.editing.families.family import Row, settings
from careedit.editing.families.sequence import Grid, SequenceFamily
from careedit.editing.job import EditJob
from careedit.editing.latents import pack, unpack
from careedit.errors import ExpertError
from careedit.experts.applier import Inputs
from careedit.families import LONGCAT_EDIT, Facts
from careedit.images import image_sha256

_STOCK: Any = pipeline_longcat_image_edit
PREFIX = (
    "<|im_start|>system\nAs an image editing expert, first analyze the content and attributes of the input image(s). Then, "
    "based on the user's editing instructions, clearly and precisely determine how to modify the given image(s), ensuring "
    "that only the specified parts are altered and all other aspects remain consistent with the original(s).<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
"""The chat that the model was trained with (LongCat-Image-Edit, in the pipeline's wording)."""


@dataclass(frozen=True, eq=False)
class LongCatEdit(SequenceFamily):
    """The components of a `LongCatImageEditPipeline`."""

    facts: ClassVar[Facts] = LONGCAT_EDIT
    """Facts of the family, which need no weights."""

    text_processor: Any
    """Processor of the picture for `text_encoder`."""

    def check_fit(self) -> None:
        """Text encoder, VAE and transformer agree on their widths."""
        config = settings(self.transformer)
        width = self.text_encoder.config.get_text_config().hidden_size
        if config.joint_attention_dim != width:
            raise ExpertError(
                f"The base's transformer takes text of width {config.joint_attention_dim}, but its text_encoder gives {width}."
            )
        if config.in_channels != 4 * self.latent_channels:
            raise ExpertError(
                f"The base's transformer takes {config.in_channels} channels, but its vae gives {4 * self.latent_channels}."
            )

    def encode_picture(self, picture: Image.Image) -> Tensor:
        """The mode of the picture's latents, as tokens."""
        pixels = self.image_processor.preprocess(picture, height=picture.height, width=picture.width)
        latents = self.vae.encode(pixels.to(device=self.device, dtype=self.vae.dtype)).latent_dist.mode()
        vae = settings(self.vae)
        return pack(((latents - vae.shift_factor) * vae.scaling_factor).to(self.dtype))

    def noise(self, grid: Grid, generator: torch.Generator) -> Tensor:
        """Drawn as [1, C, h, w]."""
        shape = (1, self.latent_channels, 2 * grid[0], 2 * grid[1])
        return pack(torch.randn(shape, generator=generator, dtype=self.dtype))

    @torch.no_grad()
    def texts(
        self, job: EditJob, cache: EncodingCache, *, guided: bool
    ) -> tuple[tuple[Mapping[str, Tensor], ...], bool]:
        """The instruction, and for guidance the empty prompt; the source is part of both."""
        seen = self.image_processor.resize(job.source, job.source.height // 2, job.source.width // 2)
        key = image_sha256(seen)
        prompts = [self.prompt(job), *([""] if guided else [])]
        encoded = [cache.get(("prompt", one, key), partial(self._encode_prompt, one, seen)) for one in prompts]
        return tuple({"encoder_hidden_states": tokens} for tokens, _ in encoded), bool(encoded[0][1])

    def positions(self, grids: Sequence[Grid], texts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """Text has 0 on the first axis, the target 1, the source 2; pictures start behind the text on the other axes."""
        length = texts[0]["encoder_hidden_states"].shape[1]
        pictures = [
            _STOCK.prepare_pos_ids(
                modality_id=1 + number, type="image", start=(length, length), height=rows, width=columns
            )
            for number, (rows, columns) in enumerate(grids)
        ]
        words = _STOCK.prepare_pos_ids(modality_id=0, type="text", start=(0, 0), num_token=length)
        # The pipeline's own concatenation of float32 and float64 positions.
        ids = torch.cat([pictures[0], *(one.to(torch.float64) for one in pictures[1:])])
        return {"img_ids": ids.to(self.device), "txt_ids": words.to(self.device), "guidance": None}

    def inputs(self, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """The source's tokens stand behind the target's."""
        per_row = {
            "hidden_states": torch.cat([torch.cat((row.latents, row.condition), dim=1) for row in rows]),
            "encoder_hidden_states": torch.cat([row.text["encoder_hidden_states"] for row in rows]),
            "timestep": timesteps.to(self.dtype) / 1000,
        }
        return Inputs(per_row, shared)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Targets [B, 3, height, width] in about -1..1."""
        vae = self.vae
        latents = unpack(tokens, 2 * grid[0], 2 * grid[1]) / vae.config.scaling_factor + vae.config.shift_factor
        return cast(Tensor, vae.decode(latents.to(vae.dtype), return_dict=False)[0])

    def _encode_prompt(self, prompt: str, seen: Image.Image) -> tuple[Tensor, Tensor]:
        """Quoted words are tokenized letter by letter, as the model was trained to write them."""
        picture = self.text_processor.image_processor(images=seen, return_tensors="pt")
        words: list[int] = []
        for part, quoted in _STOCK.split_quotation(prompt):
            for piece in part if quoted else [part]:
                words += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        cut = len(words) > self.max_sequence_length
        padded = self.tokenizer.pad(
            {"input_ids": [words[: self.max_sequence_length]]},
            max_length=self.max_sequence_length,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        count = int(picture["image_grid_thw"].prod()) // self.text_processor.image_processor.merge_size**2
        prefix = self.tokenizer(PREFIX.replace("<|image_pad|>", "<|image_pad|>" * count), add_special_tokens=False)
        suffix = self.tokenizer(SUFFIX, add_special_tokens=False)
        start, end = (torch.tensor([one["input_ids"]]) for one in (prefix, suffix))
        first = prefix["input_ids"].index(self.tokenizer.convert_tokens_to_ids("<|vision_start|>"))
        mask = (torch.ones_like(start), padded["attention_mask"], torch.ones_like(end))
        hidden = self.text_encoder(
            input_ids=torch.cat((start, padded["input_ids"], end), dim=1).to(self.device),
            attention_mask=torch.cat(mask, dim=1).to(self.device),
            pixel_values=picture["pixel_values"].to(self.device),
            image_grid_thw=picture["image_grid_thw"].to(self.device),
            output_hidden_states=True,
        ).hidden_states[-1]
        return hidden[:, first : -end.shape[1]].to(self.dtype), torch.tensor(cut)
