"""The input of a metric: one edit with its sample. Each image is decoded once, for all metrics."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Literal, TypeVar

from PIL import Image

from careedit.errors import CareEditError
from careedit.files import png_bytes
from careedit.images import decode_image
from careedit_eval.alignment import Pictures, place_on_canvas
from careedit_eval.errors import MetricError
from careedit_eval.records import EditRow, Measurement, Metric, Sample, lacking

Question = TypeVar("Question")


class ScoreItem:
    """One edit to be measured. Images are decoded on first use; a damaged one raises a `CareEditError`."""

    def __init__(self, sample: Sample, edit: EditRow, edited: bytes, rival: bytes | None = None) -> None:
        """`edited` is the content of the file `edit.picture`, `rival` that of another edit of the same sample and seed."""
        self.sample, self.edit = sample, edit
        self._edited, self._rival = edited, rival
        self._script: dict[str, Image.Image] = {}

    @cached_property
    def pictures(self) -> Pictures:
        """The sample's images; the source is placed on the target's canvas."""
        return Pictures(self.sample)

    @cached_property
    def edited(self) -> Image.Image:
        """The edited image, RGB, in the size that the editor returned."""
        return decode_image(self._edited)

    def edited_at(self, size: tuple[int, int]) -> Image.Image:
        """The edited image at `size` (width, height), as the protocol requires; `resizing` is the note about it."""
        return resized(self.edited, size)

    def resizing(self, size: tuple[int, int]) -> tuple[str, ...]:
        """A note if `edited_at(size)` changes the size of the edit; else nothing."""
        if self.edited.size == size:
            return ()
        return (f"the edit is {size_of(self.edited)}, resized to {size[0]}x{size[1]}",)

    @property
    def target(self) -> Image.Image:
        """The target, RGB. Raises `MetricError` if the sample has none."""
        if self.pictures.target is None:
            raise MetricError(f"Sample {self.sample.id!r} has no target; this metric does not apply to it.")
        return self.pictures.target

    def as_script(self, role: Literal["source", "target"]) -> Image.Image:
        """An image as MagicBrush's script decodes it: by Pillow alone, without profile, turn or background.

        The source is placed on the target's canvas as usual. Raises what `pictures` and `target` raise.
        """
        if role not in self._script:
            managed = self.target if role == "target" else self.pictures.source  # checks the limits before Pillow reads
            reference = self.sample.target if role == "target" else self.sample.source
            assert reference is not None, "a decoded image has a reference"
            with Image.open(io.BytesIO(reference.read())) as opened:
                seen = opened.convert("RGB")
            if role == "source" and self.sample.align == "canvas":
                seen = place_on_canvas(seen, managed.size, self.pictures.alignment)
            self._script[role] = seen
        return self._script[role]

    @cached_property
    def rival(self) -> Image.Image:
        """The other edit, RGB. Raises `MetricError` if none was given."""
        if self._rival is None:
            raise MetricError("The edit has no other edit to be compared with; add a second expert set to the suite.")
        return decode_image(self._rival)


class NotApplicableError(MetricError):
    """The metric does not apply to this sample, whatever the edit is; `one_by_one` reports it as `not_applicable`."""


def measure_image(metric: Metric, sample: Sample, image: Image.Image) -> Measurement:
    """Measure one edited image, RGB, that no run made. A metric that needs more of a run, such as seconds, gives an error."""
    if missing := lacking(metric, sample):
        return Measurement(not_applicable=f"The metric needs {' and '.join(missing)}, which the sample does not have.")
    data = png_bytes(image)
    digest = hashlib.sha256(data).hexdigest()
    row = EditRow(
        edit_key=digest,
        sample_id=sample.id,
        kind=sample.kind,
        group=sample.group,
        arm="",
        seed=0,
        picture=f"{digest}.png",
        picture_sha256=digest,
    )
    return metric.score([ScoreItem(sample, row, data)])[0]


def one_by_one(batch: Sequence[ScoreItem], measure: Callable[[ScoreItem], Measurement]) -> list[Measurement]:
    """Measure item after item. A failure becomes the error of that item only."""
    found = []
    for item in batch:
        try:
            found.append(measure(item))
        except NotApplicableError as error:
            found.append(Measurement(not_applicable=str(error)))
        except CareEditError as error:
            found.append(Measurement(error=str(error)))
    return found


def ask_about(
    batch: Sequence[ScoreItem],
    prepare: Callable[[ScoreItem], Question],
    ask: Callable[[list[Question]], Iterable[Measurement]],
    *,
    alone: bool = False,
    resizes: bool = True,
) -> list[Measurement]:
    """Measure a batch by a judge: all items together, or one by one if `alone`.

    An item that `prepare` cannot turn into a question gets that error. If `resizes`, a note says if an edit is resized to its
    source.
    """
    found: dict[int, Measurement] = {}
    questions: dict[int, Question] = {}
    for index, item in enumerate(batch):
        try:
            questions[index] = prepare(item)
        except NotApplicableError as error:
            found[index] = Measurement(not_applicable=str(error))
        except CareEditError as error:
            found[index] = Measurement(error=str(error))
    parts = [[index] for index in questions] if alone else [list(questions)] if questions else []
    for part in parts:
        for index, one in zip(part, ask([questions[i] for i in part]), strict=True):
            sized = resizes and one.error is None
            notes = batch[index].resizing(batch[index].pictures.source.size) if sized else ()
            found[index] = one.model_copy(update={"notes": (*one.notes, *notes)})
    return [found[index] for index in range(len(batch))]


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`image` at `size` (width, height), by Pillow's default (bicubic) as in MagicBrush's script. An equal size changes no bit."""
    return image if image.size == size else image.resize(size)


def size_of(image: Image.Image) -> str:
    """Width and height, as in "512x512"."""
    return f"{image.width}x{image.height}"
