"""An evaluation from suite to table: edit what is missing, measure what is missing, look everything up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from careedit.errors import InputError
from careedit_eval.pipeline.base import Runner, Stage
from careedit_eval.pipeline.overlap import overlapped
from careedit_eval.pipeline.plan import Plan
from careedit_eval.pipeline.rows import derived_rows
from careedit_eval.pipeline.store import Store, remove_leftovers
from careedit_eval.pipeline.table import build_table
from careedit_eval.pipeline.tasks import EditTask
from careedit_eval.pipeline.timing import time_pairs
from careedit_eval.pipeline.wanted import score_task, wanted_scores
from careedit_eval.pipeline.workers import EditWorker, Made, ScoreWorker
from careedit_eval.records import EditRow, ScoreRow
from careedit_eval.results import Table
from careedit_eval.suite import Part, Workers
from careedit_eval.timing import TimingRecord

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the number of finished items, and the number of all items."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    plan: Plan
    """The plan that was carried out."""
    table: Table
    """Every edit and number, including the rows best-single and oracle."""
    edited: int
    """The number of edits made in this run; the others were in the store."""
    measured: int
    """The number of scores made in this run."""
    timing: TimingRecord | None = None
    """How long edits of compared sets take; None if the suite does not ask for it, or nothing was edited."""


def evaluate(
    plan: Plan, store: Store, runner: Runner, *, edit: bool = True, done: Progress = lambda *_: None
) -> Evaluation:
    """Make the missing edits and scores of a plan, and build its table.

    Without `edit`, nothing is edited or timed; only missing scores of existing edits are made. Raises `RunError` if it cannot
    continue; finished work is in the store.
    """
    remove_leftovers(store.folder)
    store.compact()
    edits = store.edits()
    edited, measured = _edit(plan, store, runner, edits, done) if edit else (0, 0)
    measured += _measure(plan, store, runner, edits, done)
    table = derived_rows(plan, build_table(plan, edits, store.scores()))
    timing = time_pairs(plan, table, runner, done) if edit else None
    return Evaluation(plan, table, edited, measured, timing)


def _edit(plan: Plan, store: Store, runner: Runner, edits: dict[str, EditRow], done: Progress) -> tuple[int, int]:
    """Make and store the missing edits. Where that costs the editors nothing, measure them meanwhile.

    `edits` is updated. Returns the number of edits and that of scores.
    """
    have = set(store.usable())
    todo = [task for task in plan.tasks if not have.issuperset(task.keys)]
    total, finished, edited, measured = sum(len(task.keys) for task in todo), 0, 0, 0
    for stage, tasks in _edit_stages(plan.suite.workers, todo):
        measuring, name = _measuring(plan), "editing"
        items: Sequence[Any] = tasks
        both = _overlaps(plan.suite.workers, runner, stage, measuring, tasks)
        if both:
            name = "editing and measuring"
            wanted = wanted_scores(plan, store.scores())
            stage, items = overlapped(stage, measuring, store.folder, tasks, wanted)
        done(name, finished, total)
        for batch in runner.run(stage, items):
            if both:
                rows = [row for row in batch if isinstance(row, EditRow)]
                scores = [row for row in batch if isinstance(row, ScoreRow)]
                store.put_scores(scores)
                finished, measured = finished + len(rows), measured + len(scores)
            else:
                made: list[Made] = [(row, data) for row, data in batch if row.edit_key not in have]
                store.put_edits(made)
                rows, finished = [row for row, _ in made], finished + len(batch)
            edits.update((row.edit_key, row) for row in rows)
            edited += len(rows)
            done(name, finished, total)
        if both:
            # A worker that died after it stored a batch did not pass it on, and its second try found it stored.
            edits.update(store.usable())
    return edited, measured


def _overlaps(workers: Workers, runner: Runner, editing: Stage, measuring: Stage, tasks: Sequence[EditTask]) -> bool:
    """Whether edits are measured while later ones are made. Raises `InputError` if that is asked for without room."""
    if workers.overlap is None:
        # These editors use other devices than the metrics, which would be idle until the last edit.
        return bool(editing.num_gpus or tasks[0].arm.kind == "http") and runner.fits(editing, measuring)
    if workers.overlap and not runner.fits(editing, measuring):
        raise InputError(
            "The suite asks for overlap, but workers that edit and workers that measure do not fit at the same time; use "
            "--runner ray with more CPUs or GPUs, ask for fewer workers, or leave overlap out."
        )
    return workers.overlap


def _edit_stages(workers: Workers, todo: Sequence[EditTask]) -> Iterator[tuple[Stage, list[EditTask]]]:
    """Edit sets on this cluster's workers, then each service from one worker, whose threads make all requests to it."""
    common = {"name": "editing", "make": EditWorker, "stall_timeout_s": workers.stall_timeout_s}
    here = [task for task in todo if task.arm.kind != "http"]
    if here:
        stage = Stage(**common, batch=workers.edit_batch, workers=workers.edit, num_gpus=workers.num_gpus)  # type: ignore[arg-type]
        yield stage, here
    for arm in dict.fromkeys(task.arm.name for task in todo if task.arm.kind == "http"):
        tasks = [task for task in todo if task.arm.name == arm]
        batch = max(workers.edit_batch, 4 * tasks[0].arm.concurrency)
        yield Stage(**common, batch=batch, workers=1), tasks  # type: ignore[arg-type]


def _measuring(plan: Plan) -> Stage:
    workers = plan.suite.workers
    parts: tuple[Part, ...] = (*plan.suite.metrics, *plan.suite.pairwise)
    return Stage(
        "measuring",
        partial(ScoreWorker, parts),
        workers.score_batch,
        workers.score,
        workers.score_num_gpus,
        workers.stall_timeout_s,
    )


def _measure(plan: Plan, store: Store, runner: Runner, edits: Mapping[str, EditRow], done: Progress) -> int:
    """Make and store the missing scores. Returns their number."""
    wanted = wanted_scores(plan, store.scores())
    todo = [task for task in (score_task(one, store, edits) for one in wanted) if task is not None]
    total, finished, made = len(todo), 0, 0
    done("measuring", 0, total)
    for batch in runner.run(_measuring(plan), todo):
        store.put_scores(batch)
        made += len(batch)
        finished += len({(row.edit_key, row.rival) for row in batch})
        done("measuring", finished, total)
    return made
