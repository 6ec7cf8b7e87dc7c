"""`careedit eval compare`: two sets of a run, or two runs of different nights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.files import check_outputs
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note
from careedit.errors import InputError
from careedit.files import is_url
from careedit_eval.cli.work import DEFAULT_OUT, find_run
from careedit_eval.compare import Preference
from careedit_eval.compare.words import ends, signed
from careedit_eval.joined import join_runs
from careedit_eval.report import Analysis, analyse, write_report
from careedit_eval.report.analysis import document
from careedit_eval.runs import RUN_FILE
from careedit_eval.viewer import ViewedRun


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="The set in use, or a run (folder, id in --out, s3://).")],
    second: Annotated[str, typer.Argument(metavar="B", help="The set that may replace it, or another run.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="The run of two sets; default: the latest in --out.")
    ] = None,
    set_a: Annotated[
        str | None, typer.Option("--set-a", help="The set of run A; default: the same as of run B.")
    ] = None,
    set_b: Annotated[
        str | None, typer.Option("--set-b", help="The set of run B; default: the one that its gate judges.")
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare only the rows, seeds and numbers that both runs have.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE.html", help="Also write the page of two runs.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations.")] = DEFAULT_OUT,
    as_json: JsonOption = False,
) -> None:
    """Compare two sets (or rows, such as unified) of a run, or two runs of different nights, paired on sample and seed.

    Two runs are judged by the gate of run B: exit code 0 if it passes, 1 if B is worse, 3 if inconclusive. Other rows, seeds,
    judges or versions of a metric are refused by name with exit code 2, or left out with --common.
    """
    places = [_run_at(name, out) for name in (first, second)]
    if None not in places:
        if run is not None:
            raise InputError("--run is for two sets of one run, but A and B are runs; leave it out.")
        check_outputs([html] if html is not None else [], [])
        _compare_runs(str(places[0]), str(places[1]), (set_a, set_b), common, html, as_json)
        return
    if any(places):
        other = second if places[0] else first
        raise InputError(f"{other!r} is not a finished run; give two runs, or two sets of one run.")
    if set_a or set_b or common or html:
        raise InputError("--set-a, --set-b, --common and --html are for two runs, but A and B are sets; give two runs.")
    found = analyse(find_run(run, out), pairs=((first, second),))
    if as_json:
        emit_json(document(found)["comparisons"][0])
    else:
        show_comparisons(found)


def _run_at(name: str, out: Path) -> str | None:
    """The folder or address of a run, given as such or by its id in `out`; None for the name of a set."""
    if is_url(name):
        return name
    folders = [Path(name), *([out / "runs" / name] if Path(name).name == name else [])]
    return next((str(folder) for folder in folders if (folder / RUN_FILE).is_file()), None)


def _compare_runs(
    first: str, second: str, sets: tuple[str | None, str | None], common: bool, html: Path | None, as_json: bool
) -> None:
    opened = [ViewedRun(address) for address in (first, second)]  # they hold the copies of remote tables
    joined = join_runs(opened[0].run, opened[1].run, sets=sets, common=common)
    found = analyse(joined.run)
    verdict = found.verdict
    if html is not None:
        write_report(joined.run, found, html)
    if as_json:
        gate = {} if verdict is None else {"gate": verdict.document()}
        emit_json({"remarks": joined.remarks, **document(found)["comparisons"][0], **gate})
    else:
        show_comparisons(found)
        for remark in joined.remarks:
            note(remark)
        if verdict is not None:
            emit(verdict.line)
    if verdict is not None and not verdict.passed:
        raise typer.Exit(verdict.exit_code)


def show_comparisons(analysis: Analysis) -> None:
    """Print every comparison as a table, with the preferences of pairwise judges."""
    for one in analysis.compared:
        rows = []
        for two in one.differences:
            if two.kind != "all" or two.difference is None:
                continue
            interval = ends(two.interval)
            p = "-" if two.p_adjusted is None else f"{two.p_adjusted:.3g}"
            figures = (
                signed(two.difference),
                interval,
                p,
                f"{two.wins}/{two.ties}/{two.losses}",
                two.pairs,
                two.verdict,
            )
            rows.append((two.output, *figures))
        columns = (f"{one.b} - {one.a}", "difference", "95 % interval", "p", "win/tie/loss", "n", "verdict")
        emit_table(columns, rows)
        _show_preferences(one.preferences)
    _show_preferences(analysis.preferences)


def _show_preferences(found: Sequence[Preference]) -> None:
    for one in found:
        emit(one.line)
        if one.warning is not None:
            note(f"warning: {one.warning}")
