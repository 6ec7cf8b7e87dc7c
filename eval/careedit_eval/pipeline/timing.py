"""The timing stage: which sets are timed, on which samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from careedit_eval.editors import Resolved
from careedit_eval.editors.local import keep_open
from careedit_eval.pipeline.base import Runner, Stage
from careedit_eval.pipeline.plan import Plan
from careedit_eval.pipeline.timing_worker import Timed, TimingTask, TimingWorker
from careedit_eval.records import Sample
from careedit_eval.results import Table
from careedit_eval.suite import Suite, Timing
from careedit_eval.timing import TimedPair, TimingRecord


def time_pairs(
    plan: Plan, table: Table, runner: Runner, done: Callable[[str, int, int], None] = lambda *_: None
) -> TimingRecord | None:
    """Time the requested pairs of a plan's sets, on samples that both edited; None if no timing is requested.

    Raises `RunError` if the runner cannot continue. If a set cannot be timed, its pair has the reason.
    """
    wanted, pairs = plan.suite.timing or Timing(), pairs_of(plan.suite, asked=_is_asked(plan))
    if not pairs or not wanted.samples:
        return None
    arms = {arm.name: arm for arm in plan.arms}
    found: list[TimedPair] = []
    tasks: list[TimingTask] = []
    for a, b in pairs:
        missing = _missing(arms, a, b)
        found.append(TimedPair(a=a, b=b, missing=missing))
        if missing is None:
            tasks += _tasks(plan, table, arms[a], arms[b], len(found) - 1, wanted)
    timed = _run(plan, runner, tasks, done)
    filled = tuple(_filled(pair, index, tasks, timed) for index, pair in enumerate(found))
    return TimingRecord(rounds=wanted.rounds, pairs=filled)


def pairs_of(suite: Suite, *, asked: bool) -> list[tuple[str, str]]:
    """The pairs to be timed: the suite's comparisons if time matters, and the gate's baseline with its candidate."""
    pairs = [(one.a, one.b) for one in suite.compare] if asked else []
    gate = suite.gate
    if gate is not None and gate.max_slowdown is not None and suite.compare:
        pairs.append((suite.compare[0].a, gate.set or suite.compare[0].b))
    return [(a, b) for a, b in dict.fromkeys(pairs) if a != b]


def _is_asked(plan: Plan) -> bool:
    suite = plan.suite
    gated = suite.gate is not None and suite.gate.max_slowdown is not None
    return suite.timing is not None or gated or any(output.information for output in plan.outputs.values())


def _missing(arms: dict[str, Resolved], *names: str) -> str | None:
    """Why a pair cannot be timed; None if it can."""
    for name in names:
        if name not in arms:
            return f"{name} is looked up among the edits of others and makes none itself."
        if arms[name].arm.kind in ("identity", "truth"):
            return f"{name} makes no edit that takes time."
    return None


def _tasks(plan: Plan, table: Table, a: Resolved, b: Resolved, pair: int, wanted: Timing) -> list[TimingTask]:
    """Samples that are evenly spread over each benchmark, so that all kinds are among them."""
    tasks = []
    for rows in plan.benchmarks:
        good = [sample for sample in rows.scored if sample.previous is None and _edited(table, rows.name, sample, a, b)]
        count = min(wanted.samples, len(good))
        chosen = [good[i * len(good) // count] for i in range(count)]
        tasks += [TimingTask(pair, a.arm, b.arm, sample, rows.name, wanted.rounds) for sample in chosen]
    return tasks


def _edited(table: Table, benchmark: str, sample: Sample, *arms: Resolved) -> bool:
    """Whether every set edited the sample with every seed that has a line."""
    lines = [
        line for arm in arms for (name, _), line in table.edits_of(benchmark, arm.name).items() if name == sample.id
    ]
    return bool(lines) and all(line.error is None for line in lines)


def _run(plan: Plan, runner: Runner, tasks: Sequence[TimingTask], done: Callable[[str, int, int], None]) -> list[Timed]:
    """All tasks by one worker, one after the other. Sets that edit at the same time would slow each other down."""
    workers = plan.suite.workers
    stage = Stage("timing", TimingWorker, 1, 1, workers.num_gpus, workers.stall_timeout_s)
    timed: list[Timed] = []
    done("timing", 0, len(tasks))
    try:
        for batch in runner.run(stage, tasks):
            timed += batch
            done("timing", len(timed), len(tasks))
    finally:
        keep_open(1)  # of this process, where the worker ran in it
    return timed


def _filled(pair: TimedPair, index: int, tasks: Sequence[TimingTask], timed: Sequence[Timed]) -> TimedPair:
    """The pair with its samples, in the order of the tasks."""
    here = {(one.sample.benchmark, one.sample.sample_id): one for one in timed if one.pair == index}
    wanted = [(task.benchmark, task.sample.id) for task in tasks if task.pair == index]
    if pair.missing is None and not wanted:
        return pair.model_copy(update={"missing": f"No sample was edited by both {pair.a} and {pair.b}."})
    samples = tuple(here[one].sample for one in wanted if one in here)
    machine = next((one.machine for one in here.values()), {})
    return pair.model_copy(update={"samples": samples, "machine": machine})
