"""An evaluation from suite to table: edit what is missing, measure what is missing, look everything up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from careedit_eval.pipeline.base import Runner, Stage
from careedit_eval.pipeline.plan import Plan
from careedit_eval.pipeline.rows import derived_rows
from careedit_eval.pipeline.store import Store, present, remove_leftovers
from careedit_eval.pipeline.table import build_table, rival_pairs
from careedit_eval.pipeline.tasks import EditTask, ScoreTask
from careedit_eval.pipeline.timing import time_pairs
from careedit_eval.pipeline.workers import EditWorker, Made, ScoreWorker
from careedit_eval.records import EditRow, Metric, Sample, lacking, score_key
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
    edited = 0
    if edit:
        edited = sum(1 for _ in _edit(plan, store, runner, edits, done))
    measured = _measure(plan, store, runner, edits, done)
    table = derived_rows(plan, build_table(plan, edits, store.scores()))
    timing = time_pairs(plan, table, runner, done) if edit else None
    return Evaluation(plan, table, edited, measured, timing)


def _edit(plan: Plan, store: Store, runner: Runner, edits: dict[str, EditRow], done: Progress) -> Iterator[EditRow]:
    """Make and store the missing edits; `edits` is updated."""
    have = present(edits) & {row.edit_key for row in edits.values() if store.path(row).is_file()}
    todo = [task for task in plan.tasks if not have.issuperset(task.keys)]
    total, finished = sum(len(task.keys) for task in todo), 0
    done("editing", 0, total)
    for stage, tasks in _edit_stages(plan.suite.workers, todo):
        for batch in runner.run(stage, tasks):
            made: list[Made] = [(row, data) for row, data in batch if row.edit_key not in have]
            store.put_edits(made)
            edits.update((row.edit_key, row) for row, _ in made)
            finished += len(batch)
            done("editing", finished, total)
            yield from (row for row, _ in made)


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


def _measure(plan: Plan, store: Store, runner: Runner, edits: Mapping[str, EditRow], done: Progress) -> int:
    """Make and store the missing scores. Returns their number."""
    have = present(store.scores())
    todo = list(_score_tasks(plan, store, edits, have))
    total, finished, made = len(todo), 0, 0
    done("measuring", 0, total)
    workers = plan.suite.workers
    parts: tuple[Part, ...] = (*plan.suite.metrics, *plan.suite.pairwise)
    stage = Stage(
        "measuring",
        partial(ScoreWorker, parts),
        workers.score_batch,
        workers.score,
        workers.score_num_gpus,
        workers.stall_timeout_s,
    )
    for batch in runner.run(stage, todo):
        store.put_scores(batch)
        made += len(batch)
        finished += len({(row.edit_key, row.rival) for row in batch})
        done("measuring", finished, total)
    return made


def _score_tasks(plan: Plan, store: Store, edits: Mapping[str, EditRow], have: set[str]) -> Iterator[ScoreTask]:
    """Every edit without some score, with the metrics that are missing."""
    alone = range(len(plan.metrics))
    paired = range(len(plan.metrics), len(plan.metrics) + len(plan.pairwise))
    metrics = (*plan.metrics, *plan.pairwise)
    pick = [i for i in alone if any(one.name == plan.suite.primary for one in metrics[i].spec.outputs)]
    for sample, row in wanted_edits(plan, edits):
        # Edits with the seed for choosing experts get only the number that chooses.
        lacks = _lacking(metrics, alone if row.seed in plan.suite.seeds else pick, sample, row, have)
        if lacks:
            yield ScoreTask(sample, row, str(store.path(row)), lacks)
    for sample, row, rival in rival_pairs(plan, edits):
        lacks = _lacking(metrics, paired, sample, row, have, rival.edit_key)
        if lacks:
            yield ScoreTask(sample, row, str(store.path(row)), lacks, rival.edit_key, str(store.path(rival)))


def wanted_edits(plan: Plan, edits: Mapping[str, EditRow]) -> Iterator[tuple[Sample, EditRow]]:
    """Every existing edit to be measured, under the current names of its sample and set."""
    for task in plan.tasks:
        for sample, key in zip(task.samples, task.keys, strict=True):
            row = edits.get(key)
            if sample.scored and row is not None and row.error is None:
                yield sample, renamed(row, sample, task)


def renamed(row: EditRow, sample: Sample, task: EditTask) -> EditRow:
    """A stored edit under the current names. Another name of a set or kind does not make another edit."""
    return row.model_copy(update={"arm": task.arm.name, "kind": sample.kind, "group": sample.group})


def _lacking(
    metrics: Sequence[Metric],
    indices: Sequence[int],
    sample: Sample,
    row: EditRow,
    have: set[str],
    rival: str | None = None,
) -> tuple[int, ...]:
    return tuple(
        i
        for i in indices
        if not lacking(metrics[i], sample, rival=rival is not None)
        and score_key(row.edit_key, metrics[i].spec, rival) not in have
    )
