"""A batch from its rows to its results: what is missing or has changed is edited, here or in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from careedit import plugins
from careedit.batches.results import NAME, Result, Results
from careedit.batches.rows import Batch, Rows, Task
from careedit.batches.work import EditRows, Made, failed
from careedit.errors import InputError
from careedit.experts import load_expert_set

Progress = Callable[[str, int, int, int], None]
"""Called with what is done now ("reading", "editing"), the finished rows, all rows, and the failed images."""

SHOWN = 5
"""The number of failures that a summary repeats."""


class Runner(Protocol):
    """Runs work in several processes; an entry point of `careedit.runners`."""

    def __call__(
        self, name: str, make: Callable[[], EditRows], items: Sequence[Task], *, workers: int, gpu: bool | None
    ) -> Iterator[list[Made]]:
        """Results as they are finished. `gpu`: a GPU for each worker (None: if there are any).

        Raises `InputError` if so many workers do not fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a batch, counted in images."""

    total: int
    """The images that the rows ask for."""
    kept: int
    """Those that earlier runs had made."""
    made: int
    """Those that this run made."""
    failed: int
    """Those that failed in this run."""
    results: Path
    """The file with a row per image."""
    failures: tuple[Result, ...] = ()
    """The first `SHOWN` of those that failed."""

    @property
    def missing(self) -> int:
        """The images that do not exist: failed, or not begun because the run was interrupted."""
        return self.total - self.kept - self.made


class InterruptedBatch(KeyboardInterrupt):
    """The user interrupted a batch. What was finished is stored."""

    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self.summary = summary
        """What was done until then."""


def run_batch(rows: Rows, out: Path, *, workers: int = 1, report: Progress = lambda *_: None) -> Summary:
    """Edit the rows whose images do not exist yet or were made from other rows; write images and results to `out`.

    Raises `InputError` or `ExpertError` before anything is edited, and `InterruptedBatch` after Ctrl-C. An error of a row is
    in its result only.
    """
    batch = rows.batch
    runner = None if workers == 1 else _runner(batch)
    planned, unreadable = _plan(rows)
    _check_outputs(rows, planned, out)
    sets = {name: load_expert_set(name).sha256 for name in dict.fromkeys(task.expert_set for task, _ in planned)}
    results = Results(out)
    todo: list[Task] = []
    failures: list[Result] = []
    kept = made = bad = 0
    for number, (task, error) in enumerate(planned):
        report("reading", number, len(planned), 0)
        if error is not None:
            continue
        if _is_done(rows, task, results, sets[task.expert_set]):
            kept += len(task.outputs)
        else:
            todo.append(task)
    places = {output: rows.table.where(task.index) for task, _ in planned for output in task.outputs}

    def summary() -> Summary:
        return Summary(len(places), kept, made, bad, out / NAME, tuple(failures))

    def store(row: Made) -> None:
        nonlocal made, bad
        for result, image in row:
            results.put(result, image)
            made, bad = made + result.done, bad + (not result.done)
            if not result.done and len(failures) < SHOWN:
                failures.append(result)

    finished = 0
    try:
        for one in unreadable:
            store(one)
        report("editing", 0, len(todo), bad)
        # Rows of one set follow each other, because another set replaces the loaded one.
        todo.sort(key=lambda task: list(sets).index(task.expert_set))
        for block in _results(batch, todo, workers, runner):
            for one in block:
                store(one)
            finished += len(block)
            report("editing", finished, len(todo), bad)
    except KeyboardInterrupt:
        raise InterruptedBatch(summary()) from None
    finally:
        results.finish(places, parquet=rows.is_parquet)
    return summary()


def _plan(rows: Rows) -> tuple[list[tuple[Task, str | None]], list[Made]]:
    """Every row as a task, with the reason if it cannot be read; and the results of those. Raises `InputError`."""
    planned: list[tuple[Task, str | None]] = []
    unreadable: list[Made] = []
    seen: dict[str, str] = {}
    for index in range(len(rows.table)):
        try:
            task, error = rows.task(index), None
        except InputError as problem:
            task, error = Task(index, (rows.name(index),), rows.batch.expert_set), str(problem)
            unreadable.append(failed(rows, task, error))
        planned.append((task, error))
        for output in task.outputs:
            where = rows.table.where(index)
            if (first := seen.setdefault(output.casefold(), where)) != where or task.outputs.count(output) > 1:
                raise InputError(f"{first} and {where} have the same output {output!r}; give each row another one.")
    return planned, unreadable


def _check_outputs(rows: Rows, planned: Sequence[tuple[Task, str | None]], out: Path) -> None:
    """Raises `InputError` if a result would replace a source or the table, or be a source of the next run."""
    place, folder = rows.batch.place.resolve(), out.resolve()
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file; name a folder.")
    if place.is_dir() and folder.is_relative_to(place):
        raise InputError(f"The folder {str(out)!r} is inside {str(rows.batch.place)!r}; choose one outside of it.")
    if place == folder / NAME:
        raise InputError(f"The results would replace the table {str(rows.batch.place)!r}; choose another folder.")
    outputs = {str(folder / output) for task, _ in planned for output in task.outputs}
    for task, _ in planned:
        source = rows.source(task.index)
        if source and str((rows.table.root / source).resolve()) in outputs:
            raise InputError(f"An output would replace the source {source!r}; choose another folder.")


def _is_done(rows: Rows, task: Task, results: Results, set_sha256: str) -> bool:
    """Whether all images of a row exist and were made from the same row."""
    known = [results.get(output) for output in task.outputs]
    keys = {one.key for one in known if one is not None and one.done}
    if len(keys) != 1 or not all(one is not None and one.done for one in known):
        return False
    try:
        return keys == {rows.key(task.index, set_sha256)}
    except InputError:
        return False  # its files cannot be read now, so it fails with that reason


def _results(batch: Batch, todo: Sequence[Task], workers: int, runner: Runner | None) -> Iterator[list[Made]]:
    """The results of the tasks, block by block."""
    if not todo:
        return
    if runner is not None:
        device = batch.options.get("device")
        gpu = None if device is None else str(device).startswith("cuda")
        yield from runner("editing", partial(EditRows, batch), todo, workers=workers, gpu=gpu)
        return
    work = EditRows(batch)
    for task in todo:
        yield work([task])


def _runner(batch: Batch) -> Runner:
    """The installed runner for several processes. Raises `InputError`."""
    if ":" in str(batch.options.get("device") or ""):
        raise InputError("With several workers each gets a GPU of its own; give --device cuda without a number.")
    runner: Runner | None = plugins.load(plugins.RUNNERS, "ray", error=InputError)
    if runner is None:
        raise InputError("More than one worker needs Ray; install it with: pip install 'careedit[eval]'.")
    return runner
