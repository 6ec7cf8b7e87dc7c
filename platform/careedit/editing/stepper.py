"""What the edit loop needs from the engine that makes its steps: its own, or a share of one that others use too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from PIL import Image

from careedit.editing.state import EditJob, EditState

OnSteps = Callable[[int], None]
"""Called after each step with the number of states that made it. What it raises ends the edit."""


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
