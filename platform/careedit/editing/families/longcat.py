"""LongCat-Image-Edit: FLUX.1's kind of transformer and VAE, with text from Qwen2.5-VL, which reads the picture too.

Every number equals `LongCatImageEditPipeline`'s for the same picture, prompt and seed (guidance branches to rounding), for
panels of the area that the pipeline itself would choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit
from torch import Tensor

from careedit.editing.families.kl import KLFamily
from careedit.editing.families.prompts import Prompt, PromptEncoder, VisionInputs, VisionPromptEncoder
from careedit.editing.families.sequence import Grid, SequenceFamily
from careedit.editing.job import EditJob
from careedit.editing.latents import unpack
from careedit.families import LONGCAT_EDIT, Facts

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
class LongCatPromptEncoder(VisionPromptEncoder):
    """Qwen2.5-VL, with the tokens of a LongCat prompt."""

    facts: ClassVar[Facts] = LONGCAT_EDIT
    """Facts of the family, which need no weights."""

    text_processor: Any
    """Processor of the picture for `text_encoder`."""

    def vision_inputs(self, prompt: Prompt) -> VisionInputs:
        """Quoted words are tokenized letter by letter, as the model was trained to write them."""
        (seen,) = prompt.pictures
        picture = self.text_processor.image_processor(images=seen, return_tensors="pt")
        words: list[int] = []
        for part, quoted in _STOCK.split_quotation(prompt.text):
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
        tensors = {
            "input_ids": torch.cat((start, padded["input_ids"], end), dim=1),
            "attention_mask": torch.cat(mask, dim=1),
            "pixel_values": picture["pixel_values"],
            "image_grid_thw": picture["image_grid_thw"],
        }
        return VisionInputs(tensors, slice(first, -end.shape[1]), cut)


@dataclass(frozen=True, eq=False)
class LongCatEdit(LongCatPromptEncoder, KLFamily, SequenceFamily):
    """The components of a `LongCatImageEditPipeline`."""

    prompt_encoder: ClassVar[type[PromptEncoder]] = LongCatPromptEncoder
    """The part of this family that has the text encoder alone."""

    def prompts(self, job: EditJob) -> tuple[Prompt, ...]:
        """The instruction, and for guidance the empty prompt; the source is part of both."""
        seen = self.image_processor.resize(job.source, job.source.height // 2, job.source.width // 2)
        return (Prompt(self.prompt(job), (seen,)), Prompt("", (seen,)))[: self.branches(job)]

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

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Targets [B, 3, height, width] in about -1..1."""
        latents = self.unscaled(unpack(tokens, 2 * grid[0], 2 * grid[1]))
        return cast(Tensor, self.vae.decode(latents, return_dict=False)[0])
