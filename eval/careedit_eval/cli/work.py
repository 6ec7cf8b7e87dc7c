"""Shared by the sub-commands: find a suite, run it, analyse a run, log it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import Bar, keeping, note, progress
from careedit.errors import InputError
from careedit_eval.gate import Verdict, load_baseline
from careedit_eval.judges import require_judge
from careedit_eval.pipeline import LocalRunner, Runner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.report import Analysis, analyse, write_analysis, write_report
from careedit_eval.runs import Narrowed, Run, Trigger, load_run, save_run
from careedit_eval.suite import Suite, load_suite
from careedit_eval.tracking import default_uri
from careedit_eval.tracking.edits import SAMPLES
from careedit_eval.votes_file import ExportedVote

SUITES = next(
    (
        folder
        for folder in (Path(__file__).parents[1] / "suites", Path(__file__).parents[2] / "suites")
        if folder.is_dir()
    ),
    Path("suites"),
)
"""The packaged suites: inside the package of an installed wheel, next to it in a checkout."""

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a packaged suite.")]
DEFAULT_OUT = Path("eval-runs")
"""The default folder of evaluations."""


class RunnerName(StrEnum):
    """How the stages of an evaluation are run."""

    local = "local"
    ray = "ray"


def find_suite(name: str) -> Path:
    """The file of a suite, given by its path or the name of a packaged suite. Raises `InputError`."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = SUITES / f"{name}.yaml"
    if path.suffix or not shipped.is_file():
        known = ", ".join(sorted(file.stem for file in SUITES.glob("*.yaml"))) or "none"
        raise InputError(f"The suite {name!r} does not exist; give a file, or a packaged suite: {known}.")
    return shipped


def run_suite(
    name: str,
    *,
    out: Path,
    runner: RunnerName,
    sets: Sequence[str] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    trigger: Trigger = "manual",
    edit: bool = True,
) -> Run:
    """Evaluate a suite and write the run's folder. Raises `InputError`, `ExpertError` or `RunError`."""
    path = find_suite(name)
    suite = _narrowed(load_suite(path), sets)
    if workers is not None:
        wanted = suite.workers.model_copy(update={"edit": workers, "score": workers})
        suite = suite.model_copy(update={"workers": wanted})
    started = time.perf_counter()
    hands = _runner(runner)
    with progress("Reading"):
        plan = make_plan(suite, limit=limit, gpus=hands.has_gpus, registry=default_uri(out))
        require_judge(suite, plan.specs, folder=path.resolve().parent, out=out)
        store = Store(out / "store")
        if suite.gate is not None and suite.gate.baseline is not None:
            load_baseline(
                path.resolve().parent / suite.gate.baseline
            )  # an unreadable baseline is refused before the run
    again = f"the edits and scores made until now are in {store.folder}; run the same command again to go on."
    with keeping(lambda: again), progress("Working", 1) as bar:
        found = evaluate(plan, store, hands, edit=edit, done=Shown(bar))
    narrowed = Narrowed(limit=limit, sets=tuple(sets or ()))
    folder = out / "runs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{suite.name}"
    seconds = time.perf_counter() - started
    return save_run(
        folder, found, store=store.folder, suite_folder=path.resolve().parent, trigger=trigger, seconds=seconds,
        narrowed=narrowed,
    )  # fmt: skip


def finish_run(run: Run) -> Analysis:
    """Analyse a run and write comparison, verdict and page."""
    with progress("Comparing"):
        analysis = analyse(run)
        write_analysis(run, analysis)
        write_report(run, analysis)
    return analysis


def tracked(run: Run, verdict: Verdict | None, *, samples: int = SAMPLES, votes: Sequence[ExportedVote] = ()) -> str:
    """Log a run to MLflow and return its run id there. Raises `TrackingError`."""
    from careedit_eval.tracking import log_run

    with progress("Logging"):
        return log_run(run, default_uri(workspace_of(run)), verdict, samples=samples, votes=votes)


def check_judge_of(run: Run) -> None:
    """Raise `InputError` unless the judge of a run's primary number meets the rule of its suite, if it has one."""
    record = run.record
    folder = (run.folder / record.suite_folder).resolve()
    require_judge(record.suite, record.metrics, folder=folder, out=workspace_of(run))


def workspace_of(run: Run) -> Path:
    """The folder of evaluations that contains a run."""
    return run.folder.resolve().parents[1]


def all_runs(out: Path) -> list[Run]:
    """The runs in the folder of evaluations, oldest first. A run that cannot be read causes a warning."""
    found = []
    for file in sorted((out / "runs").glob("*/run.json")):
        try:
            found.append(load_run(file.parent))
        except InputError as error:
            note(f"warning: {error}")
    return found


def find_run(run: Path | None, out: Path) -> Run:
    """The run in the folder `run` or with this id in `out`, or the latest run in `out` if it is None. Raises `InputError`."""
    if run is not None:
        inside = out / "runs" / run.name
        by_id = not run.is_dir() and run == Path(run.name) and inside.is_dir()
        return load_run(inside if by_id else run)
    found = sorted((out / "runs").glob("*/run.json"))
    if not found:
        raise InputError(f"{out} has no runs; make one with `careedit eval run`, or give the folder of a run.")
    return load_run(found[-1].parent)


class Shown:
    """Shows the progress of a stage and its rate."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._stage, self._share, self._started = bar, "", 0.0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `careedit_eval.pipeline.Progress`."""
        if stage != self._stage:
            self._bar.advance(-self._share)
            self._stage, self._share, self._started = stage, 0.0, time.perf_counter()
        share = done / total if total else 1.0
        rate = done / max(1e-9, time.perf_counter() - self._started)
        self._bar.describe(f"{stage}: {done} of {total}, {rate:.1f} per second")
        self._bar.advance(share - self._share)
        self._share = share


def _narrowed(suite: Suite, sets: Sequence[str] | None) -> Suite:
    """The suite with only these sets and the comparisons between them."""
    if not sets:
        return suite
    names = {arm.name for arm in suite.sets}
    for name in sets:
        if name not in names:
            raise InputError(f"The suite has no set {name!r}; its sets are {', '.join(sorted(names))}.")
    kept = [arm for arm in suite.sets if arm.name in sets]
    there = {arm.name for arm in kept} | set(suite.rows)
    compare = [one for one in suite.compare if one.a in there and one.b in there]
    gate = suite.gate
    if gate is not None and ((gate.set or kept[0].name) not in there or (gate.baseline is None and not compare)):
        gate = None
    return suite.model_copy(update={"sets": tuple(kept), "compare": tuple(compare), "gate": gate})


def _runner(name: RunnerName) -> Runner:
    if name is RunnerName.local:
        return LocalRunner()
    try:
        from careedit_eval.pipeline.ray_data import RayRunner
    except ModuleNotFoundError as error:
        raise InputError("Ray is not installed; run pip install 'careedit[eval]' or use --runner local.") from error
    return RayRunner()
