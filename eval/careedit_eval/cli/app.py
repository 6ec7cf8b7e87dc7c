"""Evaluate expert sets on benchmarks: run suites, compare, check gates, report, log, promote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.files import check_outputs
from careedit.cli.lazy import lazy_group
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit.errors import InputError
from careedit.plugins import EVAL
from careedit_eval.cli import comparing, judging, planning, registry, view, voting
from careedit_eval.cli.work import (
    DEFAULT_OUT,
    RunnerName,
    SuiteArgument,
    all_runs,
    check_judge_of,
    find_run,
    finish_run,
    run_suite,
    tracked,
)
from careedit_eval.compare import Mean
from careedit_eval.compare.words import ends, number, signed
from careedit_eval.errors import TrackingError
from careedit_eval.gate import advice_of, freeze, judge_run
from careedit_eval.report import Analysis
from careedit_eval.report.analysis import document
from careedit_eval.runs import Run
from careedit_eval.stats import Strength
from careedit_eval.tracking.edits import SAMPLES
from careedit_eval.votes_file import read_votes

app = typer.Typer(
    cls=lazy_group(EVAL),
    no_args_is_help=True,
    epilog="Exit codes: 0 = done, or pass; 1 = failed, or worse; 2 = the input is wrong; 3 = inconclusive.",
)
app.command("plan-size")(planning.plan_size_of)
app.command("check-statistics")(planning.check)
app.command("compare")(comparing.compare)
app.command("view")(view.view)
app.command("vote")(voting.vote)
app.command("votes")(voting.votes)
app.command("judge-check")(judging.judge_check)
app.command("promote")(registry.promote_run)
app.command("rollback")(registry.roll_back_champion)
app.command("champion")(registry.champion)

Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Only this set of the suite; the option may be repeated.")
]
Out = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations, with the store and the runs.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="The number of workers of each stage; default: as many as fit.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first samples of each benchmark.")]
Runner = Annotated[RunnerName, typer.Option("--runner", help="Run in a plain loop in this process, or with Ray Data.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder, or id in --out, of a finished run.")]


@app.callback()
def evaluation() -> None:
    """Evaluate expert sets on benchmarks, compare them, and decide."""


@app.command("run")
def run(
    suite: SuiteArgument,
    sets: Sets = None,
    runner: Runner = RunnerName.local,
    limit: Limit = None,
    workers: Workers = None,
    out: Out = DEFAULT_OUT,
    as_json: JsonOption = False,
) -> None:
    """Edit and measure what is missing, and write tables, comparison and report into the folder of a new run.

    Run the same command again to resume a killed run and to repeat what failed.
    """
    made = run_suite(suite, out=out, runner=runner, sets=sets, limit=limit, workers=workers)
    analysis = finish_run(made)
    _show(made, analysis, as_json)


@app.command("rescore")
def rescore(
    suite: SuiteArgument,
    sets: Sets = None,
    runner: Runner = RunnerName.local,
    limit: Limit = None,
    workers: Workers = None,
    out: Out = DEFAULT_OUT,
    as_json: JsonOption = False,
) -> None:
    """Measure existing edits whose scores are missing; nothing is edited."""
    made = run_suite(suite, out=out, runner=runner, sets=sets, limit=limit, workers=workers, edit=False)
    analysis = finish_run(made)
    _show(made, analysis, as_json)


@app.command("nightly")
def nightly(
    suite: Annotated[str, typer.Option("--suite", help="A suite file, or the name of a packaged suite.")] = "nightly",
    runner: Runner = RunnerName.local,
    limit: Limit = None,
    workers: Workers = None,
    out: Out = DEFAULT_OUT,
    tracking: Annotated[bool, typer.Option("--log/--no-log", help="Whether the run is logged to MLflow.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Run, compare, gate, report and log; exit code 0 if the gate passes, 1 if B is worse, 3 if inconclusive.

    If MLflow is down, the command does not fail: the run is kept, and `careedit eval log` logs it later.
    """
    made = run_suite(suite, out=out, runner=runner, limit=limit, workers=workers, trigger="nightly")
    if made.record.suite.gate is None:
        raise InputError(f"The suite {made.record.suite.name!r} has no gate, so no verdict is possible; add a gate.")
    analysis = finish_run(made)
    if tracking:
        try:
            note(f"Logged to MLflow as run {tracked(made, analysis.verdict)}.")
        except TrackingError as error:
            note(f"warning: {error}")
    _show(made, analysis, as_json)
    if analysis.verdict is not None and not analysis.verdict.passed:
        raise typer.Exit(analysis.verdict.exit_code)


@app.command("gate")
def gate(run: RunFolder, out: Out = DEFAULT_OUT, as_json: JsonOption = False) -> None:
    """Check a run with the gate of its suite.

    Exit code 0 if it passes, 1 if B is worse, 3 if the run is inconclusive, 2 if they cannot be compared.
    """
    found = find_run(run, out)
    check_judge_of(found)
    with progress("Comparing"):
        verdict = judge_run(found)
    if as_json:
        emit_json(verdict.document())
    else:
        emit(verdict.line)
        for check in verdict.checks:
            emit(f"{check.outcome}: {check.sentence}")
    if not verdict.passed:
        raise typer.Exit(verdict.exit_code)


@app.command("baseline")
def baseline(
    run: RunFolder,
    file: Annotated[Path, typer.Option("--to", metavar="FILE.json", help="The file, to be committed with the suite.")],
    name: Annotated[str | None, typer.Option("--set", help="The set; default: the first of the suite.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Freeze a set's gated numbers as the baseline that later runs are compared with."""
    check_outputs([file], [])
    found = find_run(run, out)
    suite = found.record.suite
    margins = suite.gate.margins if suite.gate is not None else {suite.primary: 0.0}
    freeze(found, name or suite.sets[0].name, [one.partition("/")[0] for one in margins]).write(file)
    note(f"Frozen in {file}; name this file in the suite's gate and commit it.")


@app.command("report")
def report(run: RunFolder, out: Out = DEFAULT_OUT) -> None:
    """Write a run's comparison and page again."""
    found = find_run(run, out)
    finish_run(found)
    emit(str(found.folder / "report.html"))


@app.command("log")
def log(
    run: RunFolder,
    traces: Annotated[
        int, typer.Option(min=0, help="The number of samples per benchmark whose edits become traces.")
    ] = SAMPLES,
    votes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Votes on the run's edits, as JSON lines; they are added.")
    ] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Log a run to MLflow (`MLFLOW_TRACKING_URI`, else a SQLite file next to the runs), if it is not there yet."""
    found = find_run(run, out)
    verdict = judge_run(found) if found.record.suite.gate is not None else None
    emit(
        tracked(
            found,
            verdict,
            samples=traces,
            votes=() if votes is None else tuple(read_votes(votes, found.record.id).values()),
        )
    )


@app.command("list")
def list_runs(out: Out = DEFAULT_OUT) -> None:
    """List the runs in the folder of evaluations, oldest first."""
    rows = []
    for record in (run.record for run in all_runs(out)):
        sets = ", ".join(arm.name for arm in record.suite.sets)
        rows.append((record.id, record.suite.name, sets, record.finished, str(sum(b.rows for b in record.benchmarks))))
    emit_table(("run", "suite", "sets", "finished", "rows"), rows)


def _show(run: Run, analysis: Analysis, as_json: bool) -> None:
    if as_json:
        head = {"run": str(run.folder), "edited": run.record.edited, "measured": run.record.measured}
        emit_json(
            head | document(analysis) | ({} if analysis.verdict is None else {"gate": analysis.verdict.document()})
        )
        return
    _show_means(run, analysis)
    comparing.show_comparisons(analysis)
    _show_remarks(analysis)
    for facts in run.record.benchmarks:
        for name, why in list(facts.unusable.items())[:1]:
            note(
                f"{facts.name}: rows that lack something that they need: {len(facts.unusable)}; the first, {name}: {why}"
            )
    for row, why in run.record.missing.items():
        note(f"The row {row} is missing: {why}")
    note(
        f"{run.record.edited} edits and {run.record.measured} scores were made; the page: {run.folder / 'report.html'}"
    )
    for output, found in analysis.rankings.items():
        note(
            f"Strength by {output}: {', '.join(_strength(one) for one in found.strengths)}; tie parameter {found.tie:.2f}."
        )
    narrowed = run.record.narrowed
    if analysis.verdict is not None and narrowed is not None and narrowed.reason is not None:
        note(f"Not the whole suite ({narrowed.reason}): this run makes no champion.")
    if analysis.verdict is not None:
        note(f"Next: {advice_of(analysis.verdict, narrowed.reason if narrowed is not None else None)}")
        emit(analysis.verdict.line)


def _show_remarks(analysis: Analysis) -> None:
    """Print errors, what does not apply, notes, and times: a few of each; the page has all."""
    for title, rows in (
        ("error", analysis.errors),
        ("does not apply", analysis.not_applicable),
        ("note", analysis.notes),
    ):
        for one in rows[:5]:
            note(f"{one.times} x {title}: {one.what} ({one.where})")
        if len(rows) > 5:
            note(f"and {len(rows) - 5} more of this kind; see the page")
    for speed in analysis.speed:
        note(f"time: {speed.sentence}" + (f" ({speed.where})" if speed.where else ""))


def _strength(one: Strength) -> str:
    where = "" if one.interval is None else f" ({ends(one.interval, 2)})"
    return f"{one.name} {signed(one.strength, 2)}{where}"


def _show_means(run: Run, analysis: Analysis) -> None:
    for benchmark in run.table.benchmarks:
        here = {
            (one.arm, one.output): one for one in analysis.means if one.benchmark == benchmark and one.kind == "all"
        }
        outputs = [output for output in run.record.outputs if any(key[1] == output for key in here)]
        counts = {output: {one.n for key, one in here.items() if key[1] == output} for output in outputs}
        rows = []
        for arm in run.table.arms(benchmark):
            cells = [here.get((arm, output)) for output in outputs]
            errors = sum(cell.errors for cell in cells if cell is not None)
            # An error leaves a set's mean, so means of unequal rows do not compare.
            shown = ["-" if cell is None else _mean(cell, with_n=len(counts[cell.output]) > 1) for cell in cells]
            rows.append((arm, *shown, str(errors)))
            unread = sum(cell.unread for cell in cells if cell is not None)
            if unread:
                note(f"{benchmark}, {arm}: numbers without a mark, because the judge's reply cannot be read: {unread}")
        titles = [f"{output} (information)" if run.record.outputs[output].information else output for output in outputs]
        emit_table((benchmark, *titles, "errors"), rows)


def _mean(cell: Mean, *, with_n: bool) -> str:
    """The mean over samples; of several kinds also the mean over kinds."""
    macro = f", macro {number(cell.macro)}" if cell.kinds > 1 else ""
    return f"{number(cell.mean)}{macro}" + (f" (n={cell.n})" if with_n else "")
