"""The sub-commands for planning: how many images the margins of a gate need, and whether the statistics are valid."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit.errors import InputError
from careedit_eval.bench.statistics import check_statistics
from careedit_eval.cli.work import DEFAULT_OUT, SuiteArgument, all_runs, find_suite
from careedit_eval.gate import EXIT_CODES
from careedit_eval.gate.size import POWERS, plan_size
from careedit_eval.runs import Run
from careedit_eval.stats import assumed_spread
from careedit_eval.suite import Gate, load_suite


def plan_size_of(
    suite: SuiteArgument,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin", metavar="NUMBER=MARGIN", help="The option may be repeated; default: the gate's margins."
        ),
    ] = None,
    flips: Annotated[
        float | None, typer.Option("--flips", help="Assume that this share of pass/fail pairs changes, half each way.")
    ] = None,
    deviation: Annotated[
        float | None, typer.Option("--sd", help="Assume this standard deviation of an image's difference.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations, with earlier runs.")
    ] = DEFAULT_OUT,
    as_json: JsonOption = False,
) -> None:
    """Show how many source images the margins of a gate need, how many the suite has, and how long the edits take.

    Spreads and seconds are taken from the suite's latest run in --out. The exit code is 0 if the suite has enough images
    for a power of 80 %, and 3 if not.
    """
    wanted = load_suite(find_suite(suite))
    given = dict(map(_margin, margin or ())) or (wanted.gate.margins if wanted.gate is not None else {})
    if not given:
        raise InputError("The suite's gate has no margins; give one, for example --margin oracle_compliant=0.03.")
    assumed = None if flips is None and deviation is None else assumed_spread(flips=flips, deviation=deviation)
    run = _last_run(out, wanted.name)
    needs = plan_size(wanted, given, run=run, assumed=assumed)
    enough = all(need.enough for need in needs)
    if as_json:
        rows = [asdict(need) | {"enough": need.enough} for need in needs]
        emit_json({"version": 1, "powers": POWERS, "needs": rows, "enough": enough})
    else:
        columns = [f"needs, power {power:.0%}" for power in POWERS] + [f"hours, power {power:.0%}" for power in POWERS]
        emit_table(
            ("number", "kind", "benchmark", "margin", "has", *columns, "enough"),
            [
                (
                    need.output, need.kind, need.benchmark, f"{need.margin:g}", need.has,
                    *("never" if one is None else f"{one:,}" for one in need.images),
                    *("-" if one is None else f"{one:.2f}" for one in need.hours), "yes" if need.enough else "no",
                )
                for need in needs
            ],
        )  # fmt: skip
        source = "an assumption" if assumed is not None else f"the run {run.record.id}" if run is not None else ""
        note(f"Numbers are source images. Their spread is taken from {source}; B is assumed to be as good as A.")
    if assumed is None and run is not None:
        seen, fewest = len({line.group for line in run.table.edits}), (wanted.gate or Gate()).min_images
        if seen < fewest:
            note(
                f"warning: that run has {seen} source images, too few to estimate the spread; make a run with {fewest} or more, "
                "or assume the spread with --flips or --sd."
            )
    if not enough:
        raise typer.Exit(EXIT_CODES["inconclusive"])


def check(
    draws: Annotated[int, typer.Option("--draws", min=100, help="The number of simulated runs per case.")] = 2000,
    as_json: JsonOption = False,
) -> None:
    """Simulate how often intervals contain the true value, gates pass a worse set, and verdicts contradict each other.

    The exit code is 1 if a goal is missed.
    """
    with progress("Simulating"):
        found = check_statistics(draws)
    missed = [line for line in found if not line.met]
    if as_json:
        emit_json({"version": 1, "draws": draws, "lines": [asdict(line) | {"met": line.met} for line in found]})
    else:
        rows = [
            (line.what, line.case, line.pictures, f"{line.value:.4f}", line.goal, "yes" if line.met else "no")
            for line in found
        ]
        emit_table(("figure", "case", "pictures", "value", "goal", "met"), rows)
        emit(f"{len(found) - len(missed)} of {len(found)} goals are met, {draws} draws each.")
    if missed:
        raise typer.Exit(1)


def _margin(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        margin = float(value)
    except ValueError:
        margin = math.nan
    if not name or not equals or not math.isfinite(margin) or margin < 0:
        raise InputError(f"--margin {text!r} is not a margin; write NUMBER=MARGIN, for example oracle_compliant=0.03.")
    return name, margin


def _last_run(out: Path, suite: str) -> Run | None:
    """The latest run of the suite `suite` with all of its sets."""
    for run in reversed(all_runs(out)):
        narrowed = run.record.narrowed
        if run.record.suite.name == suite and not (narrowed is not None and narrowed.sets):
            return run
    return None
