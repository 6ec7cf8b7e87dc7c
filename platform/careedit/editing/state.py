"""The progress of one edit (`EditState`), and the protocol of what steps it (`Stepper`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from careedit.editing.families.family import Encoded, Kept
from careedit.editing.job import EditJob
from careedit.editing.schedule import Schedule
from careedit.errors import CancelledError, CareEditError

OnSteps = Callable[[int], None]
"""Called after each step with the number of states that made it. What it raises ends the edit."""


@dataclass(eq=False)
class EditState:
    """Everything that one edit needs between two steps; it shares nothing with the other edits of its batch."""

    job: EditJob
    """The inputs of the edit."""
    encoded: Encoded
    """Its text and pictures as tensors."""
    schedule: Schedule
    """The noise schedule of this edit."""
    latents: Tensor
    """Noisy latents at `sigma`: the tokens that are denoised, [1, T, C]."""
    condition: Tensor
    """What the transformer sees with them (`Begin.condition`)."""
    coverage: Tensor | None
    """Share of each token's pixels that a native mask marks as editable, [1, T, 1]; None without such a mask."""
    kept: Kept | None
    """The source's latents, for a mask on a base without mask input; else None."""
    index: int = 0
    """Number of steps that were made."""
    nfe: int = 0
    """Transformer evaluations so far: rows of batches, one per step, expert and guidance branch."""
    velocity: Tensor | None = None
    """The velocity of the last step, tokens [1, T, C], so that a preview costs no evaluation; None before the first."""
    evaluated: tuple[int, Tensor, Tensor | None] | None = None
    """With a step cache: the last evaluated step, its velocity, and the velocity's change per step (None at first)."""
    cancelled: bool = False
    """Whether the edit was cancelled; set by `cancel`."""

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return self.index == self.schedule.steps

    @property
    def needs_evaluation(self) -> bool:
        """Whether the next step evaluates the transformer, rather than extrapolating."""
        cache = self.job.step_cache
        return cache is None or cache.evaluates(self.index)

    @property
    def live(self) -> bool:
        """Whether `Engine.step` would advance it."""
        return not (self.done or self.cancelled)

    @property
    def sigma(self) -> float:
        """Noise level of `latents`, 1 (noise) to 0 (clean)."""
        return float(self.schedule.sigmas[self.index])

    def move(self, velocity: Tensor) -> None:
        """Make one step along `velocity`, tokens [1, T, C]."""
        latents = self.schedule.advance(self.latents, velocity, self.index)
        self.index += 1
        if self.kept is not None:
            latents = self.kept.restore(latents, self.schedule.sigmas[self.index])
        self.latents, self.velocity = latents, velocity

    def note(self, velocity: Tensor) -> None:
        """Keep an evaluated velocity for the steps that extrapolate from it."""
        if self.job.step_cache is not None:
            slope = None
            if self.evaluated is not None:
                step, before, _ = self.evaluated
                slope = (velocity - before) / (self.index - step)
            self.evaluated = (self.index, velocity, slope)

    def extrapolated(self) -> Tensor:
        """The velocity of a step that is not evaluated: v(a) + (k - a) * (v(a) - v(b)) / (a - b)."""
        assert self.evaluated is not None  # a step cache evaluates the first steps
        step, velocity, slope = self.evaluated
        return velocity if slope is None else velocity + slope * (self.index - step)

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


class StageClock:
    """Seconds per stage; the seconds in which other edits had the engine are the stage "queue"."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._laps: dict[str, float] = {}
        self._last = time.perf_counter() - (stepper.waited or 0.0)

    def lap(self, stage: str) -> None:
        """End a stage: it took the seconds since the last one ended."""
        now = time.perf_counter() - (self._stepper.waited or 0.0)
        self._laps[stage], self._last = now - self._last, now

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage that ended, and of "queue"."""
        queue = {} if self._stepper.waited is None else {"queue": self._stepper.waited}
        return {**queue, **self._laps}
