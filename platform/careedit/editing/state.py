"""One edit: its inputs (`EditJob`), its progress (`EditState`), and the protocol of what steps it (`Stepper`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from PIL import Image
from torch import Tensor

from careedit.editing.schedule import Schedule
from careedit.errors import CancelledError, CareEditError, InputError, MaskError
from careedit.images import MAX_REFERENCES
from careedit.records import BASE, check_weights

DIPTYCH = "A diptych with two side-by-side images of the same scene. On the right, the scene is exactly the same as on the left but"
TRIPTYCH = (
    "A triptych with three side-by-side images. On the left, a reference. On the right, the scene is exactly the same as in "
    "the middle but, taking from the reference,"
)
"""The in-context prompts (ICEdit, arXiv 2504.20690, section 3.1, in the wording of its released code)."""

Start = Literal["noise", "source"]
"""What the target panel starts from: noise alone, or the source picture plus noise."""

OnSteps = Callable[[int], None]
"""Called after each step with the number of states that made it. What it raises ends the edit."""


def in_context_prompt(instruction: str, *, references: int = 0) -> str:
    """The prompt that the base sees: the fixed frame, then the instruction as the user wrote it."""
    return f"{TRIPTYCH if references else DIPTYCH} {instruction.strip()}"


@dataclass(frozen=True, eq=False)
class EditJob:
    """The inputs of one image; all pictures have the panel's size."""

    source: Image.Image
    """The source, RGB; its sides are multiples of the base's `multiple`."""
    instruction: str
    """What to change, as the user wrote it."""
    seed: int
    """Seed of this image's noise, 0 or more."""
    steps: int
    """Number of denoising steps, 1 or more."""
    mask: Image.Image | None = None
    """"L", of the source's size, 255 where pixels may change; None: everywhere."""
    references: tuple[Image.Image, ...] = ()
    """At most one, of the source's size."""
    guidance: float | None = None
    """Guidance scale of a guidance-distilled base; None: its default. Other bases take only None."""
    noise_scale: float = 1.0
    """Standard deviation of the noise that denoising starts from, above 0 and at most 1."""
    start: Start = "noise"
    """"source": denoising starts from the canvas with the source in its target panel, plus noise. Only a base that was
    trained this way supports it (`careedit.finetune.flow`)."""
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({BASE: 1.0}))
    """Weight per expert, positive and summing to 1; `BASE` is the base without an expert."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; give at least one denoising step.", field="steps")
        if self.seed < 0:
            raise InputError(f"The seed is {self.seed}; it must not be negative.", field="seed")
        if not 0 < self.noise_scale <= 1:
            raise InputError(f"noise_scale is {self.noise_scale}; it must be above 0 and at most 1.")
        if len(self.references) > MAX_REFERENCES:
            raise InputError(
                f"{len(self.references)} references were given; one reference is supported.", field="references"
            )
        check_weights(self.weights)
        if self.mask is not None and self.mask.size != self.source.size:
            raise MaskError(f"The mask's panel is {self.mask.size}, the source's {self.source.size}; fit both alike.")
        if any(reference.size != self.source.size for reference in self.references):
            raise InputError(
                f"Every reference must be fitted to the source's panel of {self.source.size} pixels.",
                field="references",
            )

    @property
    def panels(self) -> int:
        """Panels of the canvas: [source | target], with a reference [reference | source | target]."""
        return 2 + len(self.references)

    @property
    def prompt(self) -> str:
        """The in-context prompt that the base reads."""
        return in_context_prompt(self.instruction, references=len(self.references))


@dataclass(eq=False)
class EditState:
    """Everything that one edit needs between two steps; it shares nothing with the other edits of its batch."""

    job: EditJob
    """The inputs of the edit."""
    canvas_size: tuple[int, int]
    """Width and height of the canvas, in pixels."""
    schedule: Schedule
    """The noise schedule of this edit."""
    latents: Tensor
    """Noisy latents of the canvas at `sigma`, tokens [1, T, 4C]."""
    condition: Tensor
    """Latents of the masked canvas and the mask, tokens [1, T, 4C + 4*s*s]."""
    coverage: Tensor | None
    """Share of each token's pixels that the user's mask marks as editable, [1, T, 1]; None without a mask."""
    prompt_tokens: Tensor
    """T5's output, [1, L, width]."""
    prompt_pooled: Tensor
    """CLIP's pooled output, [1, width]."""
    prompt_truncated: bool
    """Whether the prompt was too long, so that the base did not see its end."""
    guidance: float | None
    """Guidance scale in use; None if the base takes none."""
    index: int = 0
    """Number of steps that were made."""
    nfe: int = 0
    """Transformer evaluations so far: rows of batches, one per expert and step."""
    velocity: Tensor | None = None
    """The velocity of the last step, tokens [1, T, 4C], so that a preview costs no evaluation; None before the first."""
    cancelled: bool = False
    """Whether the edit was cancelled; set by `cancel`."""

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return self.index == self.schedule.steps

    @property
    def live(self) -> bool:
        """Whether `Engine.step` would advance it."""
        return not (self.done or self.cancelled)

    @property
    def sigma(self) -> float:
        """Noise level of `latents`, 1 (noise) to 0 (clean)."""
        return float(self.schedule.sigmas[self.index])

    def cancel(self) -> None:
        """Stop the edit: no further step advances it. Safe from another thread while a step runs."""
        self.cancelled = True

    def raise_unless_finished(self) -> None:
        """`CancelledError` for a cancelled edit, `CareEditError` for one with steps left."""
        self.raise_if_cancelled()
        if not self.done:
            raise CareEditError(
                f"The edit has done {self.index} of {self.schedule.steps} steps; step it to the end first."
            )

    def raise_if_cancelled(self) -> None:
        """`CancelledError` for a cancelled edit."""
        if self.cancelled:
            raise CancelledError(f"The edit was cancelled after {self.index} of {self.schedule.steps} steps.")


class Stepper(Protocol):
    """Prepares, steps and decodes edits. `Engine` does it directly; a server's replica waits for its turn at an engine."""

    @property
    def waited(self) -> float | None:
        """Seconds in which other edits had the engine; None where the engine serves one edit at a time."""
        ...

    @property
    def shared(self) -> bool:
        """Whether a batch held another edit too, or was split, so that a replay may round differently."""
        ...

    @property
    def threads(self) -> int:
        """Torch's CPU threads where the steps run."""
        ...

    def prepare(self, job: EditJob) -> EditState:
        """Encode an edit and draw its noise; errors as in `Engine.prepare`."""
        ...

    def advance(self, states: Sequence[EditState], to: int | None = None, on_steps: OnSteps | None = None) -> None:
        """Step `states` together until each has done `to` steps, by default all of its own schedule."""
        ...

    def preview_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """The target panels as they are estimated now, RGB; errors as in `Engine.preview_many`."""
        ...

    def finish_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """The target panels of finished edits, RGB; errors as in `Engine.finish_many`."""
        ...

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Load the named experts and keep them loaded until the context ends."""
        ...
