"""`careedit eval judge-check`: whether a judge agrees with people and with itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from careedit.cli.files import check_outputs
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit.errors import InputError
from careedit_eval.cli.work import DEFAULT_OUT, SuiteArgument, find_run, find_suite
from careedit_eval.gate import EXIT_CODES
from careedit_eval.judges import (
    JudgeCheck,
    Rated,
    check_judge,
    file_of,
    judge_of,
    rated_votes,
    read_published,
    ruling_of,
)
from careedit_eval.judges.figures import ABOUT
from careedit_eval.suite import load_suite


def judge_check(
    suite: SuiteArgument,
    number: Annotated[
        str | None, typer.Option("--number", help="The judge's number; default: the suite's primary number.")
    ] = None,
    votes: Annotated[
        Path | None, typer.Option("--votes", metavar="FILE.jsonl", help="Votes of people, as `eval vote` exports them.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="The run that was voted on, by folder or id in --out; default: the latest in --out.",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs", metavar="PATH", help="Or a published benchmark for judges: EditReward-Bench or VCReward-Bench."
        ),
    ] = None,
    dimension: Annotated[str, typer.Option("--dimension", help="The dimension of EditScore's benchmark.")] = "overall",
    retest: Annotated[
        int, typer.Option("--retest", min=0, help="The number of pairs about which the judge is asked again.")
    ] = 50,
    tie: Annotated[
        float, typer.Option("--tie", min=0, help="The largest difference of two scores that counts as no preference.")
    ] = 0.0,
    own: Annotated[
        list[str] | None,
        typer.Option("--own", help="A set or model whose edits are the judge's own; the option may be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first pairs.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations.")] = DEFAULT_OUT,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE.json", help="The file of the check; default: in the folder `judges` of --out."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the judge of a suite's number with people, with itself in the other order, and with itself a second time.

    Exit code 0 if the suite states no floors or all are met, 1 if a figure is below its floor, 3 if one has too few groups.
    """
    if (votes is None) == (pairs is None):
        raise InputError(
            "Give either --votes (with --run) or --pairs: the verdicts of people that the judge is compared with."
        )
    if run is not None and pairs is not None:
        raise InputError("--run is for --votes, because a published benchmark has its own images; leave it out.")
    if not math.isfinite(tie):
        raise InputError(f"--tie {tie} is not a difference of two scores; give a finite number.")
    if to is not None:
        check_outputs([to], [])
    wanted = load_suite(find_suite(suite))
    with progress("Reading"):
        rated = read_published(pairs, dimension=dimension) if pairs is not None else _votes(votes, run, out)
        if limit is not None:
            rated = Rated(f"{rated.name}, the first {limit} pairs", rated.pairs[:limit], rated.unusable)
        metric, output = judge_of(wanted, number)
    with progress("Asking", len(rated.pairs) + min(retest, len(rated.pairs))) as bar:
        asked = 0

        def done(count: int, _: int) -> None:
            nonlocal asked
            bar.advance(count - asked)
            asked = count

        check = check_judge(metric, output, rated, retest=retest, tie=tie, own=own or (), done=done)
    file = to or file_of(out, check.metric_key, check.number)
    check.write(file)
    rule = wanted.judge if output.name == wanted.primary else None
    ruling = None if rule is None else ruling_of(rule, check)
    if as_json:
        emit_json(
            check.model_dump(mode="json")
            | ({} if ruling is None else {"outcome": ruling.outcome, "reason": ruling.reason})
        )
    else:
        _show(check, {} if rule is None else rule.floors)
        note(f"The check: {file}")
        if ruling is not None:
            emit(f"{ruling.outcome.upper()}: {ruling.reason or 'every floor is met'}.")
    if ruling is not None and ruling.outcome != "pass":
        raise typer.Exit(1 if ruling.outcome == "below" else EXIT_CODES["inconclusive"])


def _votes(file: Path | None, run: Path | None, out: Path) -> Rated:
    assert file is not None, "either votes or published pairs are given"
    return rated_votes(file, find_run(run, out))


def _show(check: JudgeCheck, floors: Mapping[Any, float]) -> None:
    rows = []
    for name, figure in check.figures.items():
        value = "-" if figure.value is None else f"{figure.value:.3f}"
        ends = "-" if figure.low is None else f"{figure.low:.3f} to {figure.high:.3f}"
        floor = f"{floors[name]:g}" if name in floors else "-"
        rows.append((name, value, ends, figure.n, figure.groups, floor, figure.note or ABOUT[name]))
    emit_table((check.number, "value", "95 % interval", "n", "groups", "floor", "what it is"), rows)
    people = {0: "published verdicts", 1: "1 person"}.get(check.raters, f"{check.raters} people")
    note(f"{check.metric.backbone}: {check.pairs} pairs in {check.groups} groups, {people} ({check.source}).")
    if check.errors:
        note(f"{check.errors} pairs have no answer of the judge and count as wrong; the first: {check.first_error}")
    if check.unusable:
        note(f"{len(check.unusable)} rows cannot be used; the first: {check.unusable[0]}")
