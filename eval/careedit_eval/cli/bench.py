"""Measure the evaluation: what its pipeline costs in addition to edits and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from careedit.cli.files import check_outputs, write_report
from careedit.cli.output import JsonOption, emit_table, note, progress
from careedit_eval.bench.document import FULL, QUICK, bench_eval

app = typer.Typer(add_completion=False)

PARTS = 8
"""How often `bench_eval` reports its progress."""


@app.command("eval")
def eval_(
    quick: Annotated[
        bool, typer.Option("--quick", help="Use a few rows only, to see that it runs; the figures are not meaningful.")
    ] = False,
    expert_set: Annotated[
        str, typer.Option("--expert-set", help="Name, folder or address of the set that edits.")
    ] = "tiny",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="Also write the JSON to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure workers against a plain loop, metrics against a script, a resumed run, and memory over rows.

    A goal that is not met is reported; the exit code is 0.
    """
    if out is not None:
        check_outputs([out], [])
    with progress("Measuring", PARTS) as bar:

        def done(part: str) -> None:
            bar.describe(f"Measured: {part}")
            bar.advance()

        document = bench_eval(QUICK if quick else FULL, expert_set=expert_set, done=done)
    write_report(document, lambda: _show(document), out=out, as_json=as_json)


def _show(document: dict[str, Any]) -> None:
    facts, parts = document["environment"], document["details"]
    rows = [
        (f"edits per second, {workers} x worker over loop", f"{rate:.2f}", _rates(parts["editing"][workers]))
        for workers, rate in document["edit_throughput_per_worker"].items()
    ]
    rows += [
        (f"scores per second, {sets} x set over script", f"{one['ratio']:.2f}", _rates(one))
        for sets, one in parts["measuring"].items()
    ]
    few, many = (parts["growth"][name] for name in ("few", "many"))
    rows.append(("resume, seconds", f"{document['resume_seconds']:.2f}", f"{many['rows']} rows"))
    peaks = " over ".join(f"{one['peak_bytes'] / 1e6:.0f} MB" for one in (many, few))
    rows.append(
        ("peak memory", f"{document['memory_growth_ratio']:.3f}", f"{peaks}, {many['rows']} and {few['rows']} rows")
    )
    rows += [
        (
            f"editor's busy share, {name} judge",
            f"{one['busy']:.2f}",
            f"all in {one['over_ideal']:.2f} of the longer stage",
        )
        for name, one in parts["overlap"].items()
    ]
    emit_table(("figure", "value", "made of"), rows)
    for name, goal in document["goals"].items():
        note(f"{name}: {goal['goal']}: {'met' if goal['met'] else 'not met'}.")
    note(f"Expert set {facts['expert_set']}, {facts['cores']} cores, torch {facts['torch']}, ray {facts['ray']}.")


def _rates(one: dict[str, Any]) -> str:
    other = one.get("loop_per_second", one.get("script_per_second"))
    return f"{one['per_second']:.2f} over {other:.2f} per second"
