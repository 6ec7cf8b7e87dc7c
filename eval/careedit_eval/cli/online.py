"""Compare the arms of an A/B test in traffic, from an export, with intervals that are valid however often one looks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit_json, emit_table, note
from careedit_eval.compare.words import number, signed
from careedit_eval.online import OnlineReport, analyse_traffic, read_export

app = typer.Typer(add_completion=False)


@app.command("report")
def ab_report(
    export: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="The file that `careedit ab export` wrote.")],
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ARM", help="The arm in use; default: the arm with the largest weight."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the arms of an A/B test in traffic. The intervals are valid however often you look.

    The exit code is 1 if the split of the traffic shows that the assignment is broken.
    """
    report = analyse_traffic(read_export(export), against)
    if as_json:
        rows = [{**asdict(one), "verdict": one.verdict} for one in report.differences]
        emit_json({"version": 1, **asdict(report), "differences": rows, "broken": report.broken})
    else:
        _show(report)
    if report.broken:
        raise typer.Exit(1)


def _show(report: OnlineReport) -> None:
    columns = ("arm", "set", "weight", "users", "edits", "left out")
    emit_table(
        columns,
        [(one.arm, one.expert_set, f"{one.weight:g}", one.units, one.edits, one.others) for one in report.arms],
    )
    rows = []
    for one in report.differences:
        interval = "-" if one.interval is None else f"{signed(one.interval.low)} to {signed(one.interval.high)}"
        rows.append(
            (
                f"{one.b} - {one.a}",
                one.output,
                f"{number(one.mean_a)} / {number(one.mean_b)}",
                signed(one.difference),
                interval,
                "-" if one.p_adjusted is None else f"{one.p_adjusted:.3g}",
                f"{one.units_a} / {one.units_b}",
                one.verdict,
            )
        )
    emit_table(("arms", "number", "A / B", "difference", "interval", "p (Holm)", "users", "verdict"), rows)
    note(f"Split of the traffic: p = {report.split_p:.3g}; of all assigned users: p = {report.assigned_p:.3g}.")
    for line in report.notes:
        note(line)
