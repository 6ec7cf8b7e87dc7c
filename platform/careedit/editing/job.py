"""The input of one edited image, as the denoising loop takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from PIL import Image

from careedit.errors import InputError, MaskError
from careedit.records import BASE, StepCache, check_weights

Start = Literal["noise", "source"]
"""What the target panel starts from: noise alone, or the source picture plus noise."""


@dataclass(frozen=True, eq=False)
class EditJob:
    """The inputs of one image. Every picture is fitted to a panel: its sides are multiples of the base's `multiple`."""

    source: Image.Image
    """The picture that is edited, RGB, fitted to its panel."""
    instruction: str
    """What to change, as the user wrote it."""
    seed: int
    """Seed of this image's noise, 0 or more."""
    steps: int
    """Number of denoising steps, 1 or more."""
    mask: Image.Image | None = None
    """"L", of the source's size, 255 where pixels may change; None: everywhere."""
    references: tuple[Image.Image, ...] = ()
    """Pictures that the instruction refers to, as many as the base's family takes. On a canvas they have the source's size."""
    guidance: float | None = None
    """Guidance scale; None means the family's default. A base that takes no guidance takes only None."""
    noise_scale: float = 1.0
    """Standard deviation of the noise that denoising starts from, above 0 and at most 1."""
    start: Start = "noise"
    """"source": denoising starts from the canvas with the source in its target panel, plus noise. Only a base that was
    trained this way supports it (`careedit.finetune.flow`)."""
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({BASE: 1.0}))
    """Weight per expert, positive and summing to 1; `BASE` is the base without an expert."""
    step_cache: StepCache | None = None
    """Which steps are extrapolated; None: every step is evaluated."""
    text_tokens: tuple[int, ...] | None = None
    """Only in a replay: the number of text tokens of each guidance branch of the edit in whose place this one stands."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; give at least one denoising step.", field="steps")
        if self.seed < 0:
            raise InputError(f"The seed is {self.seed}; it must not be negative.", field="seed")
        if not 0 < self.noise_scale <= 1:
            raise InputError(f"noise_scale is {self.noise_scale}; it must be above 0 and at most 1.")
        check_weights(self.weights)
        if self.step_cache is not None and self.step_cache.evaluations(self.steps) == self.steps:
            raise InputError(
                f"A step cache has nothing to skip in {self.steps} steps; leave step_cache out or take more steps.",
                field="step_cache",
            )
        if self.mask is not None and self.mask.size != self.source.size:
            raise MaskError(f"The mask's panel is {self.mask.size}, the source's {self.source.size}; fit both alike.")
