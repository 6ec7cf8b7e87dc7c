"""What an evaluation wants of an editor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from careedit.errors import CareEditError


class EditFailed(CareEditError):
    """An edit that came to nothing; the message is the error of its row."""


@dataclass(frozen=True, slots=True)
class EditWork:
    """One edit to be made, its pictures decoded."""

    sample_id: str
    """The id of the sample."""
    source: Image.Image
    """RGB; of a later turn the picture that the turn before made."""
    instruction: str
    """The instruction that says what to change."""
    mask: Image.Image | None
    """"L", 255 = edit; None where the editor is not shown one."""
    references: tuple[Image.Image, ...]
    """The reference images, RGB, in the sample's order."""
    target: Image.Image | None
    """The right result, RGB; only the row "truth" may use it. None if the sample has no usable target."""
    seed: int
    """The seed of the noise."""


@dataclass(frozen=True, slots=True)
class Edited:
    """What an editor made."""

    image: Image.Image
    """RGB; whether it may have another size than the source is the arm's `other_size`."""
    seconds: float | None = None
    """Wall-clock seconds of the edit alone."""
    nfe: int | None = None
    """The number of evaluations of the transformer; None if it is not known."""
    judge_calls: int | None = None
    """Questions that an early filter asked."""
    trace: str | None = None
    """The `EditTrace` as JSON; None if the editor has no trace."""


class SampleEditor(Protocol):
    """Edits one sample at a time: what it makes must not depend on what else is edited."""

    @property
    def concurrency(self) -> int:
        """How many edits may be under way at once, from threads."""
        ...

    def edit(self, work: EditWork) -> Edited:
        """Make one edit; a `CareEditError`, or whatever is raised, becomes the error of that row alone."""
        ...
