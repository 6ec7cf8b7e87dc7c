"""Compare the arms of an A/B test in traffic, from an export, with intervals that are valid however often one looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit_json, emit_table, note, progress
from careedit_eval.cli.work import DEFAULT_OUT, find_run
from careedit_eval.compare.words import ends, number, signed
from careedit_eval.online import OnlineReport, analyse_traffic, read_export
from careedit_eval.online.offline import BothWays, both_ways

app = typer.Typer(add_completion=False)


@app.command("report")
def ab_report(
    export: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="The file that `careedit ab export` wrote.")],
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ARM", help="The arm in use; default: the arm with the largest weight."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Also show what this run of `careedit eval` says about the sets that the arms serve.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations, for a run by its id.")
    ] = DEFAULT_OUT,
    as_json: JsonOption = False,
) -> None:
    """Compare the arms of an A/B test in traffic. The intervals are valid however often you look.

    The exit code is 1 if the split of the traffic shows that the assignment is broken.
    """
    with progress("Comparing"):
        report = analyse_traffic(read_export(export), against)
        both = () if run is None else both_ways(report, find_run(run, out))
    if as_json:
        rows = [{**asdict(one), "verdict": one.verdict} for one in report.differences]
        offline = [
            {"a": one.live.a, "b": one.live.b, "live": one.live.output, "set_a": one.set_a, "set_b": one.set_b}
            | asdict(one.offline)
            | {"contradicts": one.contradicts}
            for one in both
        ]
        emit_json({"version": 2, **asdict(report), "differences": rows, "broken": report.broken, "offline": offline})
    else:
        _show(report)
        if both:
            _show_both(both)
    if report.broken:
        raise typer.Exit(1)


def _show(report: OnlineReport) -> None:
    columns = ("arm", "set", "hash", "weight", "users", "edits", "left out")
    emit_table(
        columns,
        [
            (
                one.arm,
                one.expert_set,
                one.expert_set_sha256[:12] or "-",
                f"{one.weight:g}",
                one.units,
                one.edits,
                one.others + one.older,
            )
            for one in report.arms
        ],
    )
    rows = []
    for one in report.differences:
        rows.append(
            (
                f"{one.b} - {one.a}",
                one.output,
                f"{number(one.mean_a)} / {number(one.mean_b)}",
                signed(one.difference),
                ends(one.interval),
                "-" if one.p_adjusted is None else f"{one.p_adjusted:.3g}",
                f"{one.units_a} / {one.units_b}",
                one.verdict,
            )
        )
    emit_table(("arms", "number", "A / B", "difference", "interval", "p (Holm)", "users", "verdict"), rows)
    note(f"Split of the traffic: p = {report.split_p:.3g}; of all assigned users: p = {report.assigned_p:.3g}.")
    for line in report.notes:
        note(line)


def _show_both(both: Sequence[BothWays]) -> None:
    words = {None: "-", False: "no contradiction", True: "contradiction"}
    emit_table(
        ("arms", "number", "in traffic", "interval", "in the run", "interval", "together"),
        [
            (
                f"{one.live.b} - {one.live.a}",
                f"{one.live.output} / {one.offline.output} on {one.offline.benchmark}",
                signed(one.live.difference),
                ends(one.live.interval),
                signed(one.offline.difference),
                ends(one.offline.interval),
                words[one.contradicts],
            )
            for one in both
        ],
    )
    if any(one.contradicts for one in both):
        note(
            "Traffic and run contradict each other: the benchmark has other pictures and instructions than the users. Look at "
            "both before you decide."
        )
