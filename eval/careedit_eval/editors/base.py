"""The interface of an editor, and the two editors without a model: no edit at all, and the right result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from careedit.errors import CareEditError


class EditFailed(CareEditError):
    """An edit failed. The message becomes the error of its row."""


@dataclass(frozen=True, slots=True)
class EditWork:
    """One edit to be made, with decoded images."""

    sample_id: str
    """The id of the sample."""
    source: Image.Image
    """The image to edit, RGB; for a later turn the result of the turn before."""
    instruction: str
    """The instruction that says what to change."""
    mask: Image.Image | None
    """The mask, mode "L", 255 = edit; None if the editor does not see a mask."""
    references: tuple[Image.Image, ...]
    """The reference images, RGB, in the sample's order."""
    target: Image.Image | None
    """The right result, RGB; only the row "truth" may use it. None if the sample has no usable target."""
    seed: int
    """The seed of the noise."""


@dataclass(frozen=True, slots=True)
class Edited:
    """The result of an editor."""

    image: Image.Image
    """The edited image, RGB. The arm's `other_size` decides whether its size may differ from the source's."""
    seconds: float | None = None
    """Wall-clock seconds of the edit alone; None if they are not known."""
    nfe: int | None = None
    """The number of evaluations of the transformer; None if it is not known."""
    judge_calls: int | None = None
    """The number of questions that an early filter asked the judge; None if it is not known."""
    trace: str | None = None
    """The `EditTrace` as JSON; None if the editor has no trace."""


class SampleEditor(Protocol):
    """Edits one sample at a time. A result must not depend on other edits."""

    @property
    def concurrency(self) -> int:
        """The number of edits that may run at once, from threads."""
        ...

    def edit(self, work: EditWork) -> Edited:
        """Make one edit. Any exception becomes the error of this row only."""
        ...


class Identity:
    """Returns the source: the lower bound for every number."""

    concurrency = 1

    def edit(self, work: EditWork) -> Edited:
        """Return the source."""
        return Edited(work.source, seconds=0.0, nfe=0)


class Truth:
    """Returns the target: what a metric gives for a perfect edit."""

    concurrency = 1

    def edit(self, work: EditWork) -> Edited:
        """Return the target in its own size. Raises `EditFailed` if the benchmark has none."""
        if work.target is None:
            raise EditFailed("The benchmark has no target for this sample; leave the truth row out.")
        # Of its own size, which may not be the source's: resized to it and back it would differ from itself.
        return Edited(work.target, seconds=0.0, nfe=0)
