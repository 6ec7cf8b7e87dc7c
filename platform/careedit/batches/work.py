"""The work of one process of a batch: edits tasks. What is wrong with one row becomes the error of that row only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from careedit.batches.results import Result
from careedit.batches.rows import Batch, Rows, Task
from careedit.errors import sentence
from careedit.experts import ExpertSet, load_expert_set
from careedit.images.save import image_bytes
from careedit.records import EditRequest, EditResult

if TYPE_CHECKING:
    from careedit.editor import Editor

Made = list[tuple[Result, bytes | None]]
"""The results of a row, each with the file of its image."""


class EditRows:
    """Edits tasks. It keeps the editor of the latest expert set, which is loaded at its first edit."""

    def __init__(self, batch: Batch) -> None:
        self._batch, self._rows = batch, Rows(batch)
        self._editors: dict[str, Editor] = {}

    def __call__(self, tasks: Sequence[Task]) -> list[Made]:
        """The results of each task. Raises `CareEditError` only if an expert set or a judge cannot be loaded."""
        return [self._edit(task) for task in tasks]

    def _edit(self, task: Task) -> Made:
        editor = self._editor(task.expert_set)
        loaded = editor.expert_set
        key = ""
        try:
            key = self._rows.key(task.index, loaded.sha256)
            fields = self._rows.fields(task.index)
            request = EditRequest(**fields)
            started = time.perf_counter()
            result = editor.edit(request)
            seconds = (time.perf_counter() - started) / len(result.images)
            files, edit, notes = self._files(task, result, fields["image"], loaded)
        except Exception as error:  # noqa: BLE001 - every error of a row is the row's
            return failed(self._rows, task, sentence(error), key)
        made = [
            Result(
                row=self._rows.table.where(task.index),
                output=output,
                status="done",
                source=self._rows.source(task.index),
                instruction=trace.instruction,
                seed=trace.seed,
                experts=trace.routing.weights,
                expert_set=f"{trace.expert_set} {trace.expert_set_sha256[:12]}",
                seconds=seconds,
                edit=edit,
                notes=" ".join(dict.fromkeys((*(f"{line}." for line in trace.degradations), *notes))),
                key=key,
            )
            for output, trace in zip(task.outputs, result.traces, strict=True)
        ]
        return list(zip(made, files, strict=True))

    def _files(
        self, task: Task, result: EditResult, source: Path | bytes, loaded: ExpertSet
    ) -> tuple[list[bytes], str, list[str]]:
        """The files of a task's images, the id that their marks name, and notes."""
        outputs = [Path(output) for output in task.outputs]
        if self._batch.mark is not None:
            data = source if isinstance(source, bytes) else source.read_bytes()
            return self._batch.mark(outputs, result, data, loaded)
        return [image_bytes(image, path.suffix) for image, path in zip(result.images, outputs, strict=True)], "", []

    def _editor(self, name: str) -> Editor:
        if name not in self._editors:
            from careedit.editor import Editor
            from careedit.scoring.vlm import load_judge

            self._editors.clear()  # two bases may not fit
            scorer = None
            if "early_filter" in self._batch.defaults:
                scorer = load_judge(self._batch.judge, device=self._batch.options.get("device"))
            self._editors[name] = Editor(load_expert_set(name), **self._batch.options, scorer=scorer)
        return self._editors[name]


def failed(rows: Rows, task: Task, error: str, key: str = "") -> Made:
    """The results of a task that failed."""
    row, source, instruction = rows.table.where(task.index), rows.source(task.index), rows.instruction(task.index)
    return [(Result(row, output, "failed", error, source, instruction, key=key), None) for output in task.outputs]
