"""Edits that are measured while later ones are made: storing and measuring as stages that follow editing.

One worker on the driver's node stores each edit as soon as it is made, so an end of the run costs no more than without
overlap. What the measuring workers get are small tasks, so a slow metric fills no memory and an editor never waits for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from careedit_eval.pipeline.base import Stage, Work
from careedit_eval.pipeline.store import Store
from careedit_eval.pipeline.tasks import EditTask, ScoreTask
from careedit_eval.pipeline.wanted import Wanted, score_task
from careedit_eval.pipeline.workers import Made
from careedit_eval.records import EditRow, ScoreRow

Following = tuple[Wanted, ...]
"""The scores that are wanted of an edit."""


def overlapped(
    editing: Stage, measuring: Stage, folder: Path, tasks: Sequence[EditTask], wanted: Iterable[Wanted]
) -> tuple[Stage, list[tuple[EditTask, dict[str, Following]]]]:
    """Editing, whose edits are stored in `folder` and then measured, and its items. Its results are `EditRow`s and `ScoreRow`s.

    `wanted` are the scores that are made as soon as their edits exist. Edits that the store has are not stored again.
    """
    following: dict[str, list[Wanted]] = defaultdict(list)
    for one in wanted:
        for key in one.keys:
            following[key].append(one)
    items = [(task, {key: tuple(following[key]) for key in task.keys if key in following}) for task in tasks]
    measured = replace(measuring, make=partial(MeasuringWorker, measuring.make))
    storing = Stage("storing", partial(StoringWorker, folder), editing.batch, 1, on_driver=True, then=measured)
    return replace(editing, make=partial(EditingWorker, editing.make), then=storing), items


class EditingWorker:
    """Edits tasks, and passes on what is wanted of each edit."""

    def __init__(self, make: Callable[[], Work]) -> None:
        self._edit = make()

    def __call__(self, items: Sequence[tuple[EditTask, dict[str, Following]]]) -> list[tuple[Made, Following]]:
        """Every edit with the scores that are wanted of it."""
        wanted = {key: scores for _, following in items for key, scores in following.items()}
        return [(made, wanted.get(made[0].edit_key, ())) for made in self._edit([task for task, _ in items])]


class StoringWorker:
    """Stores edits, and gives on their rows and the tasks that measure them."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)
        self._edits = self._store.usable()

    def __call__(self, made: Sequence[tuple[Made, Following]]) -> list[EditRow | ScoreTask]:
        """The rows of the new edits, then a task for each score whose edits now all exist."""
        new = [(one, wanted) for one, wanted in made if one[0].edit_key not in self._edits]
        self._store.put_edits([one for one, _ in new])
        self._edits.update((row.edit_key, row) for (row, _), _ in new if row.error is None)
        possible = {one.keys: one for _, wanted in new for one in wanted}
        tasks = [score_task(one, self._store, self._edits) for one in possible.values()]
        return [*(row for (row, _), _ in new), *(task for task in tasks if task is not None)]


class MeasuringWorker:
    """Measures tasks, and passes on the rows of edits."""

    def __init__(self, make: Callable[[], Work]) -> None:
        self._measure = make()

    def __call__(self, items: Sequence[EditRow | ScoreTask]) -> list[EditRow | ScoreRow]:
        """The rows of edits, then the measurements."""
        rows = [item for item in items if isinstance(item, EditRow)]
        return [*rows, *self._measure([item for item in items if isinstance(item, ScoreTask)])]
