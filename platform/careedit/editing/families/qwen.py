"""Qwen-Image-Edit-Plus: the text encoder, Qwen2.5-VL, reads the pictures with the instruction.

Every number equals `QwenImageEditPlusPipeline`'s for the same pictures, prompt and seed (guidance branches and batches to
rounding), for panels of the area that the pipeline itself would choose. It serves Qwen-Image-Edit-2509 and 2511 and FireRed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as stock
from PIL import Image
from torch import Tensor
from torch.nn import functional

from careedit.editing.cache import Tensors
from careedit.editing.families.family import Row, settings
from careedit.editing.families.prompts import Prompt, PromptEncoder, VisionInputs, VisionPromptEncoder
from careedit.editing.families.sequence import Grid, SequenceFamily
from careedit.editing.job import EditJob
from careedit.editing.latents import pack, unpack
from careedit.experts.applier import Inputs
from careedit.families import QWEN_EDIT_PLUS, Facts

TEXT_BUCKET = 64
"""Texts are padded to multiples of this many tokens, so that edits of unlike texts share batches of few shapes."""
TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, background), "
    "then explain how the user's text instruction should alter or modify the image. Generate a new image that meets the "
    "user's requirements while maintaining consistency with the original input where appropriate.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The chat that the model was trained with (Qwen-Image-Edit, in the pipeline's wording)."""
DROPPED = 64
"""Tokens of the chat's start whose hidden states are left out."""
PICTURE = "Picture {}: <|vision_start|><|image_pad|><|vision_end|>"
NEGATIVE = " "
"""The prompt of the branch without the instruction."""


def cut_words(tokenizer: Any, text: str, length: int) -> tuple[str, bool]:
    """`text` cut to `length` tokens, and whether it was cut."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return (text, False) if len(ids) <= length else (tokenizer.decode(ids[:length]), True)


def _padded(row: Row, length: int) -> Row:
    """A row whose text has `length` tokens."""
    text = row.text["encoder_hidden_states"]
    return row._replace(text={"encoder_hidden_states": functional.pad(text, (0, 0, 0, length - text.shape[1]))})


@dataclass(frozen=True, eq=False)
class QwenPromptEncoder(VisionPromptEncoder):
    """Qwen2.5-VL, with the chat of Qwen-Image-Edit."""

    facts: ClassVar[Facts] = QWEN_EDIT_PLUS
    """Facts of the family, which need no weights."""

    processor: Any
    """Processor of instruction and pictures for `text_encoder`."""

    def vision_inputs(self, prompt: Prompt) -> VisionInputs:
        """See `VisionPromptEncoder.vision_inputs`. The hidden states of the chat's start are left out."""
        words, cut = cut_words(self.tokenizer, prompt.text, self.max_sequence_length)
        pictures = "".join(PICTURE.format(number + 1) for number in range(len(prompt.pictures)))
        inputs = self.processor(
            text=[TEMPLATE.format(pictures + words)], images=list(prompt.pictures), padding=True, return_tensors="pt"
        )
        names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
        return VisionInputs({name: inputs[name] for name in names}, slice(DROPPED, None), cut)


@dataclass(frozen=True, eq=False)
class QwenEditPlus(QwenPromptEncoder, SequenceFamily):
    """The components of a `QwenImageEditPlusPipeline`."""

    prompt_encoder: ClassVar[type[PromptEncoder]] = QwenPromptEncoder
    """The part of this family that has the text encoder alone."""

    @property
    def vae_scale(self) -> int:
        """Pixels per latent pixel, along one side."""
        return cast(int, 2 ** len(settings(self.vae).temperal_downsample))

    @property
    def latent_channels(self) -> int:
        """Channels of the VAE's latents."""
        return cast(int, settings(self.vae).z_dim)

    @property
    def multiple(self) -> int:
        """Panel sides must be multiples of two tokens, as the pipeline's own sizes are."""
        return 4 * self.vae_scale

    def encode_picture(self, picture: Image.Image) -> Tensor:
        """The mode of the picture's latents [1, C, 1, h, w], normalised by the VAE's own mean and deviation, as tokens."""
        pixels = self.image_processor.preprocess(picture, height=picture.height, width=picture.width).unsqueeze(2)
        latents = self.vae.encode(pixels.to(device=self.device, dtype=self.vae.dtype)).latent_dist.mode()
        mean, std = self._moments(latents)
        return pack(((latents - mean) / std)[:, :, 0].to(self.dtype))

    def prompts(self, job: EditJob) -> tuple[Prompt, ...]:
        """The instruction, and for guidance a blank; the pictures are part of both."""
        seen = tuple(self._seen(picture) for picture in (job.source, *job.references))
        return (Prompt(self.prompt(job), seen), Prompt(NEGATIVE, seen))[: self.branches(job)]

    def text_inputs(self, job: EditJob, texts: Sequence[Tensors]) -> tuple[tuple[Mapping[str, Tensor], ...], bool]:
        """See `SequenceFamily.text_inputs`. A text in another edit's place in a replayed batch gets that one's length."""
        if job.text_tokens is not None:  # only the length matters
            texts = [
                (functional.pad(tokens, (0, 0, 0, length - tokens.shape[1])), cut)
                for (tokens, cut), length in zip(texts, job.text_tokens, strict=True)
            ]
        return super().text_inputs(job, texts)

    def text_layout(self, texts: Sequence[Mapping[str, Tensor]]) -> Hashable:
        """Texts of any length share a batch: they are padded."""
        return None

    def positions(self, grids: Sequence[Grid], texts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """The transformer numbers the pictures itself: frame 0 is the target's. One entry serves all rows."""
        return {"img_shapes": [[(1, rows, columns) for rows, columns in grids]], "guidance": None}

    def inputs(self, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """Texts of unlike lengths are padded to a multiple of `TEXT_BUCKET` and masked; equal ones need no mask."""
        lengths = [row.text["encoder_hidden_states"].shape[1] for row in rows]
        if len(set(lengths)) == 1:
            return super().inputs(rows, timesteps, shared)
        padded = -(-max(lengths) // TEXT_BUCKET) * TEXT_BUCKET
        inputs = super().inputs([_padded(row, padded) for row in rows], timesteps, shared)
        mask = torch.arange(padded)[None] < torch.tensor(lengths)[:, None]
        return inputs._replace(per_row={**inputs.per_row, "encoder_hidden_states_mask": mask.to(self.device)})

    def combine(self, branches: Sequence[Tensor], scale: float | None) -> Tensor:
        """u + scale * (c - u), each token rescaled to the length of c."""
        guided = super().combine(branches, scale)
        if len(branches) == 1:
            return guided
        length = torch.norm(branches[0], dim=-1, keepdim=True)
        return cast(Tensor, guided * (length / torch.norm(guided, dim=-1, keepdim=True)))

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Targets [B, 3, height, width] in about -1..1."""
        latents = unpack(tokens, 2 * grid[0], 2 * grid[1]).unsqueeze(2).to(self.vae.dtype)
        mean, std = self._moments(latents)
        return cast(Tensor, self.vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0][:, :, 0])

    def _moments(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        config = settings(self.vae)
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, std

    def _seen(self, picture: Image.Image) -> Image.Image:
        """The copy of a picture that the text encoder reads, of about 384 x 384 pixels."""
        area = stock.CONDITION_IMAGE_SIZE
        width, height = cast(Any, stock).calculate_dimensions(area, picture.width / picture.height)
        return cast(Image.Image, self.image_processor.resize(picture, height, width))
