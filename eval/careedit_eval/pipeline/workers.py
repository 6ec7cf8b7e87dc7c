"""The work of a worker: edit and measure. What is wrong with one row becomes the error of that row only."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.errors import CareEditError, sentence
from careedit.files import png_bytes
from careedit_eval.alignment import load_pictures
from careedit_eval.editors import Edited, EditFailed, EditWork, SampleEditor, make_editor
from careedit_eval.editors.base import Truth
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, resized, size_of
from careedit_eval.pipeline.tasks import EditTask, ScoreTask
from careedit_eval.records import EditFacts, EditRow, Measurement, Metric, Sample, ScoreRow, score_key
from careedit_eval.suite import Arm, Part, make_metric

logger = logging.getLogger(__name__)

Made = tuple[EditRow, bytes | None]
"""An edit and the file of its image."""


class EditWorker:
    """Edits tasks. It keeps the editor of the latest arm."""

    def __init__(self) -> None:
        self._arm: Arm | None = None
        self._editor: SampleEditor | None = None

    def __call__(self, tasks: Sequence[EditTask]) -> list[Made]:
        """The edits of the samples of all tasks. Tasks of a service run at once, as many as its arm allows."""
        return [one for _, alike in groupby(tasks, lambda task: task.arm) for one in self._edit_alike(list(alike))]

    def _edit_alike(self, tasks: Sequence[EditTask]) -> list[Made]:
        if self._editor is None or self._arm != tasks[0].arm:
            self._editor, self._arm = make_editor(tasks[0].arm), tasks[0].arm
        editor = self._editor
        if editor.concurrency == 1 or len(tasks) == 1:
            return [one for task in tasks for one in edit_task(editor, task)]
        with ThreadPoolExecutor(editor.concurrency) as pool:
            return [one for made in pool.map(lambda task: edit_task(editor, task), tasks) for one in made]


def edit_task(editor: SampleEditor, task: EditTask) -> list[Made]:
    """The edits of one task in order. A turn whose predecessor failed fails too, with that reason."""
    pictures: dict[str, Image.Image] = {}
    failed: dict[str, str] = {}
    made: list[Made] = []
    for sample, key in zip(task.samples, task.keys, strict=True):
        try:
            if sample.problem is not None:
                raise EditFailed(sample.problem)
            if sample.previous in failed:
                raise EditFailed(f"The turn before, {sample.previous}, has no picture: {failed[sample.previous]}")
            edited, alignment, notes = _edit(editor, task, sample, pictures)
            data = png_bytes(edited.image.convert("RGB"))
        except Exception as error:
            logger.debug("sample %s failed", sample.id, exc_info=True)
            why = sentence(error)
            made.append((_edit_row(task, sample, key, error=why), None))
            # The truth of a later turn is its own target, so a bad target of this one does not end the session.
            if not isinstance(editor, Truth) or sample.problem is not None or sample.previous in failed:
                failed[sample.id] = why
            continue
        pictures[sample.id] = edited.image
        row = _edit_row(
            task,
            sample,
            key,
            picture=f"pictures/{key[:2]}/{key}.png",
            picture_sha256=hashlib.sha256(data).hexdigest(),
            alignment=alignment,
            seconds=edited.seconds,
            nfe=edited.nfe,
            judge_calls=edited.judge_calls,
            trace=edited.trace,
            notes=notes,
        )
        made.append((row, data))
    return made


def _edit_row(task: EditTask, sample: Sample, key: str, **found: Any) -> EditRow:
    return EditRow(
        edit_key=key,
        sample_id=sample.id,
        kind=sample.kind,
        group=sample.group,
        arm=task.arm.name,
        seed=task.seed,
        **found,
    )


def _edit(
    editor: SampleEditor, task: EditTask, sample: Sample, pictures: Mapping[str, Image.Image]
) -> tuple[Edited, str, tuple[str, ...]]:
    """One edit, how its source is placed on the canvas, and notes. Raises any error of it."""
    loaded = load_pictures(sample)
    notes: list[str] = []
    truth = isinstance(editor, Truth)
    target = loaded.target if truth else loaded.known("target")
    before = None if sample.previous is None else pictures.get(sample.previous, target)
    source = loaded.source if before is None else before
    mask = loaded.mask if sample.mask_given else None
    if mask is not None and mask.size != source.size:  # a later turn; the mask was drawn on the benchmark's own picture
        notes.append(f"the picture of the turn before is {size_of(source)}, resized to its mask's {size_of(mask)}")
        source = resized(source, mask.size)
    edited = editor.edit(EditWork(sample.id, source, sample.instruction, mask, loaded.references, target, task.seed))
    if not isinstance(getattr(edited, "image", None), Image.Image):  # a user's own editor may return anything
        raise EditFailed("The editor returned no picture.")
    if edited.image.size != source.size and not truth:
        if not task.arm.keeps_other_sizes:
            raise EditFailed(
                f"The editor returned {size_of(edited.image)} for a source of {size_of(source)}; mend it, or measure its "
                f"edits as they come with other_size: keep in the set {task.arm.name!r}."
            )
        notes.append(f"the edit is {size_of(edited.image)}, its source {size_of(source)}")
    return edited, loaded.alignment, tuple(notes)


class ScoreWorker:
    """Measures tasks. Metrics are made once, at the first task that needs them."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)

    @cached_property
    def _metrics(self) -> tuple[Metric, ...]:
        return tuple(make_metric(part) for part in self._parts)

    def __call__(self, tasks: Sequence[ScoreTask]) -> list[ScoreRow]:
        """The measurements of every task by every metric that is missing."""
        items = [_item(task) for task in tasks]
        rows: list[ScoreRow] = []
        for index, metric in enumerate(self._metrics):
            wanted = [(task, item) for task, item in zip(tasks, items, strict=True) if index in task.metrics]
            if not wanted:
                continue
            readable = [item for _, item in wanted if isinstance(item, ScoreItem)]
            measured = iter(measure(metric, readable))
            for task, item in wanted:
                found = next(measured) if isinstance(item, ScoreItem) else Measurement(error=item)
                rows.append(_row(task, metric, found))
        return rows


def measure(metric: Metric, items: Sequence[ScoreItem]) -> list[Measurement]:
    """One measurement per item. If a batch fails or returns too few, each item is measured alone."""
    if not items:
        return []
    try:
        found = metric.score(items)
        if len(found) == len(items):
            return list(found)
        error: Exception = CareEditError(f"The metric gave {len(found)} measurements for {len(items)} edits.")
    except Exception as raised:
        logger.debug("metric %s failed", metric.spec.name, exc_info=True)
        error = raised
    if len(items) == 1:
        alone = isinstance(error, NotApplicableError)
        return [Measurement(not_applicable=str(error)) if alone else Measurement(error=sentence(error))]
    return [one for item in items for one in measure(metric, [item])]


def _item(task: ScoreTask) -> ScoreItem | str:
    """The item for the metrics, or the reason why its images cannot be read."""
    try:
        rival = None if task.rival_picture is None else Path(task.rival_picture).read_bytes()
        data = Path(task.picture).read_bytes()
    except OSError as error:
        return f"The edit's picture cannot be read ({error.strerror}); workers need the store's folder."
    if hashlib.sha256(data).hexdigest() != task.edit.picture_sha256:
        return "The edit's picture is not the one that was made; remove it from the store and run again."
    return ScoreItem(task.sample, task.edit, data, rival)


def _row(task: ScoreTask, metric: Metric, found: Measurement) -> ScoreRow:
    spec = metric.spec
    return ScoreRow(
        **task.edit.model_dump(include=set(EditFacts.model_fields)),
        **found.model_dump(),
        score_key=score_key(task.edit.edit_key, spec, task.rival),
        metric=spec.name,
        metric_key=spec.key,
        rival=task.rival,
        measured_sha256=task.sample.measured_sha256,
    )
