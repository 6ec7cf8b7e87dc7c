"""What a metric is given: one edit with its sample, every picture decoded once however many metrics look at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from PIL import Image

from careedit.errors import CareEditError
from careedit.images import decode_image
from careedit_eval.alignment import Pictures, load_pictures
from careedit_eval.errors import MetricError
from careedit_eval.records import EditRow, Measurement, Sample


class ScoreItem:
    """One edit to be measured. Pictures are decoded when they are asked for; a damaged one raises a `CareEditError`."""

    def __init__(self, sample: Sample, edit: EditRow, edited: bytes, rival: bytes | None = None) -> None:
        """`edited` is the file that `edit.picture` names; `rival` another edit of the same sample and seed."""
        self.sample, self.edit = sample, edit
        self._edited, self._rival = edited, rival

    @cached_property
    def pictures(self) -> Pictures:
        """The sample's images, decoded; the source is placed on the target's canvas."""
        return load_pictures(self.sample)

    @cached_property
    def edited(self) -> Image.Image:
        """The edited picture, RGB, of the editor's size."""
        return decode_image(self._edited)

    def edited_at(self, size: tuple[int, int]) -> Image.Image:
        """The edited picture at `size` (width, height), as a protocol wants it; `resizing` is the note for that."""
        return resized(self.edited, size)

    def resizing(self, size: tuple[int, int]) -> tuple[str, ...]:
        """A note where `edited_at(size)` is not the edit as it came, else nothing."""
        if self.edited.size == size:
            return ()
        return (f"the edit is {size_of(self.edited)}, resized to {size[0]}x{size[1]}",)

    @property
    def target(self) -> Image.Image:
        """The target, RGB; raises `MetricError` where the sample has none."""
        if self.pictures.target is None:
            raise MetricError(f"Sample {self.sample.id!r} has no target; this metric does not apply to it.")
        return self.pictures.target

    @cached_property
    def rival(self) -> Image.Image:
        """The other edit, RGB; raises `MetricError` where none was given."""
        if self._rival is None:
            raise MetricError("The edit has no other edit to be compared with; add a second expert set to the suite.")
        return decode_image(self._rival)


class NotApplicableError(MetricError):
    """A sample of which a metric can say nothing, whatever the edit is; `one_by_one` makes it a `not_applicable`."""


def one_by_one(batch: Sequence[ScoreItem], measure: Callable[[ScoreItem], Measurement]) -> list[Measurement]:
    """Measures item after item; what is wrong with one item becomes the error of that item only."""
    found = []
    for item in batch:
        try:
            found.append(measure(item))
        except NotApplicableError as error:
            found.append(Measurement(not_applicable=str(error)))
        except CareEditError as error:
            found.append(Measurement(error=str(error)))
    return found


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`image` at `size` (width, height) by Pillow's default, bicubic, as MagicBrush's script does; equal size: equal bits."""
    return image if image.size == size else image.resize(size)


def size_of(image: Image.Image) -> str:
    """Width and height, as in "512x512"."""
    return f"{image.width}x{image.height}"
