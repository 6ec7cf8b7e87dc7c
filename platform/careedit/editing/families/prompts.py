"""The part of a base that reads prompts: its text encoders, which can run in another process than transformer and VAE."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from careedit.editing.cache import Tensors
from careedit.errors import ExpertError
from careedit.families import Facts
from careedit.images import image_sha256


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the text encoders read for one guidance branch of an edit."""

    text: str
    """The words for the text encoder, before they are cut to its maximum length."""
    pictures: tuple[Image.Image, ...] = ()
    """The pictures that the text encoder reads with the words, in its own size; only Qwen's families have some."""

    @cached_property
    def key(self) -> Hashable:
        """The content, for a cache of encodings."""
        return ("prompt", self.text, tuple(image_sha256(picture) for picture in self.pictures))


@dataclass(frozen=True, eq=False)
class PromptEncoder(ABC):
    """The text encoders of one base. A whole base (`Family`) is one too, unless it was loaded without them."""

    facts: ClassVar[Facts]
    """What is known of the family before weights are read."""

    text_encoder: Any
    """Encodes the prompt, in Qwen's families together with the pictures; None if another process encodes."""
    tokenizer: Any
    """Tokenizer that belongs to `text_encoder`."""
    max_sequence_length: int
    """Text tokens per prompt, from 1 to the family's maximum; longer text is cut."""
    device: torch.device
    """The device that holds the components."""
    dtype: torch.dtype
    """Number format of the encoded text: that of the transformer's weights."""

    def __post_init__(self) -> None:
        names = set(self.facts.text_components) - (
            set(self.facts.text_encoders) if self.text_encoder is None else set()
        )
        check_components(self.facts, {name: getattr(self, name) for name in self.facts.components if name in names})
        if not 1 <= self.max_sequence_length <= self.facts.text_tokens:
            raise ExpertError(
                f"max_sequence_length is {self.max_sequence_length}; it must lie between 1 and {self.facts.text_tokens}."
            )

    @property
    @abstractmethod
    def text_width(self) -> int:
        """Width of an encoded text token."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[Tensors]:
        """Each prompt's tensors, the tokens [1, T, C] first, and last a bool: whether the text was cut.

        Prompts whose inputs have one shape share a forward. Nothing is padded for that, so another prompt of the batch
        changes no more than the rounding. A single prompt has the numbers of the stock pipeline.
        """


class VisionInputs(NamedTuple):
    """The inputs of Qwen2.5-VL for one prompt."""

    tensors: Mapping[str, Tensor]
    """Its arguments; along their first axis, prompts of one shape can be concatenated."""
    kept: slice
    """The tokens whose hidden states are the encoded text."""
    cut: bool
    """Whether the text was cut."""


@dataclass(frozen=True, eq=False)
class VisionPromptEncoder(PromptEncoder):
    """Qwen2.5-VL, which reads words and pictures."""

    @property
    def text_width(self) -> int:
        """Width of the hidden states."""
        return int(self.text_encoder.config.get_text_config().hidden_size)

    @abstractmethod
    def vision_inputs(self, prompt: Prompt) -> VisionInputs:
        """The inputs of one prompt, on the CPU."""

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[Tensors]:
        """See `PromptEncoder.encode_prompts`. Prompts of as many tokens and of as large pictures share a forward."""
        prepared = [self.vision_inputs(prompt) for prompt in prompts]
        groups: dict[Hashable, list[int]] = {}
        for position, one in enumerate(prepared):
            shape = (one.tensors["input_ids"].shape[1], tuple(one.tensors["image_grid_thw"].flatten().tolist()))
            groups.setdefault(shape, []).append(position)
        encoded: dict[int, Tensors] = {}
        for positions in groups.values():
            batch = {
                name: torch.cat([prepared[i].tensors[name] for i in positions]).to(self.device)
                for name in prepared[positions[0]].tensors
            }
            hidden = self.text_encoder(**batch, output_hidden_states=True).hidden_states[-1]
            for row, i in enumerate(positions):
                tokens = hidden[row : row + 1, prepared[i].kept].to(self.dtype)
                encoded[i] = (tokens.clone(), torch.tensor(prepared[i].cut))
        return [encoded[i] for i in range(len(prompts))]


def check_components(facts: Facts, components: Mapping[str, Any]) -> None:
    """Raise `ExpertError` for a component of another class than the family's."""
    for name, component in components.items():
        expected = facts.components[name]
        if expected not in {kind.__name__ for kind in type(component).__mro__}:
            raise ExpertError(
                f"The base's {name} is a {type(component).__name__}, but a {facts.pipeline} has a {expected} there."
            )


def tokenized(tokenizer: Any, text: str, length: int) -> tuple[Tensor, bool]:
    """The ids of `text` padded or cut to `length`, [1, length], and whether it was cut."""
    padded = tokenizer([text], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    # verbose=False: a text over the limit is reported by the flag, not by the tokenizer's log.
    whole = tokenizer([text], truncation=False, verbose=False)["input_ids"][0]
    return padded.input_ids, len(whole) > length
