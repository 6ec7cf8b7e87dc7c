"""`careedit eval vote` and `votes`: collect blind votes on a run in a browser, and say what they say."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.files import check_outputs, write_all
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit.errors import InputError
from careedit.files import is_url
from careedit_eval.cli.view import place_of, serve
from careedit_eval.cli.work import DEFAULT_OUT, workspace_of
from careedit_eval.compare.words import ends, signed
from careedit_eval.online import read_export
from careedit_eval.viewer import ViewedRun
from careedit_eval.voting import (
    Ballots,
    Vote,
    VoteReport,
    VoteTable,
    analyse_votes,
    exported,
    make_vote_server,
    votes_of_traffic,
)

VOTES_FILE = "votes.db"
"""The SQLite file of votes in the folder of evaluations."""
VARIABLE = "CAREEDIT_VOTES"
"""The variable with the address of the database of votes."""
RATERS = 30
"""The maximum number of raters in the table, those with the most votes; each user of a server is a rater."""
SCHEMES = ("sqlite:", "sqlite+", "postgresql:", "postgresql+")
"""The beginnings of an address of a database."""

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations.")]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="ADDRESS",
        envvar=VARIABLE,
        help="The database of votes: sqlite:///FILE or postgresql://USER@HOST/NAME; default: votes.db in the run's folder of "
        "evaluations.",
    ),
]


def vote(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder, id in --out, or address (s3://) of a finished run.")
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A set or row to compare; repeat the option. Default: the suite's sets and what it compares."
        ),
    ] = None,
    database: Database = None,
    out: Out = DEFAULT_OUT,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port on this machine; 0: a free one.")
    ] = 8379,
) -> None:
    """Show raters pairs of edits without the names of the sets, and store which one they prefer.

    The server listens on this machine only. `careedit eval votes RUN` shows the result.
    """
    viewed = ViewedRun(place_of(run, out))
    with closing(VoteTable(database or _default_database(viewed))) as table:
        with progress("Reading the benchmark"):
            ballots = Ballots(viewed, table, sets or ())
            warnings = viewed.warnings()
        for warning in warnings:
            note(f"warning: {warning}")
        note(f"Votes on {', '.join(ballots.sets)} are stored in {table.address}.")
        serve(make_vote_server(ballots, port), "voting page")


def votes(
    where: Annotated[
        str,
        typer.Argument(
            metavar="DATABASE_OR_RUN", help="The address or file of a database of votes, or a run as in vote."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="SET", help="The set with strength 0; default: the one with the most votes."),
    ] = None,
    add: Annotated[
        Path | None,
        typer.Option(
            "--add", metavar="FILE.jsonl", help="First add the users' comparisons in a file of `careedit ab export`."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE.jsonl", help="Also write the votes, one JSON object per line.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="With --to: also votes of excluded raters.")] = False,
    database: Database = None,
    out: Out = DEFAULT_OUT,
    as_json: JsonOption = False,
) -> None:
    """Show what votes say: strengths with intervals, every two sets against each other, raters and their attention."""
    if to is not None:
        check_outputs([to], [add] if add is not None else [])
    elif everyone:
        raise InputError("--everyone is about the file of votes that --to writes; give both, or leave it out.")
    traffic = votes_of_traffic(read_export(add)) if add is not None else None
    address, run = _votes_at(where, database, out)
    with closing(VoteTable(address, create=traffic is not None)) as table:
        if traffic is not None:
            table.replace(traffic)
            note(f"{len(traffic)} comparisons of users from {add} are in {table.address}.")
        found = table.votes(run)
    report = analyse_votes(found, against)
    if to is not None:
        _write(to, exported(found, everyone=everyone))
    if as_json:
        emit_json({"version": 1, **asdict(report)} | _derived(report))
    else:
        _show(report)


def _default_database(viewed: ViewedRun) -> str:
    if is_url(viewed.address):
        raise InputError("The votes on a run in a bucket need a database of their own; give one with --database.")
    return f"sqlite:///{workspace_of(viewed.run) / VOTES_FILE}"


def _votes_at(where: str, database: str | None, out: Path) -> tuple[str, str | None]:
    """The address of the database, and the run whose votes are read; None: all votes. Raises `InputError`."""
    if where.startswith(SCHEMES) or where.endswith(".db") or Path(where).is_file():
        if database not in (None, where, os.environ.get(VARIABLE)):
            raise InputError(f"{where!r} and --database are two databases of votes; give one of them.")
        return where, None
    viewed = ViewedRun(place_of(where, out))
    return database or _default_database(viewed), viewed.id


def _write(to: Path, kept: list[Vote]) -> None:
    write_all({to: "".join(f"{json.dumps(vote.exported.model_dump(), ensure_ascii=False)}\n" for vote in kept)})
    note(f"{len(kept)} votes are in {to}; attention pairs are not votes on two sets.")


def _derived(report: VoteReport) -> dict[str, object]:
    """What properties add to the fields of a report."""
    return {
        "pairs": [asdict(pair) | {"verdict": pair.verdict} for pair in report.pairs],
        "raters": [asdict(rater) | {"excluded": rater.excluded} for rater in report.raters],
        "connected": len({one.group for one in report.sets}) == 1,
    }


def _show(report: VoteReport) -> None:
    emit_table(
        ("set", "strength", "95 % interval", "votes", "won", "lost", "both bad"),
        [
            (
                one.name,
                "-" if one.strength is None else signed(one.strength, 2),
                ends(one.interval, 2),
                one.votes, one.won, one.lost, one.both_bad,
            )
            for one in report.sets
        ],
    )  # fmt: skip
    names = [one.name for one in report.sets]
    shares = {(pair.a, pair.b): 1 - pair.share for pair in report.pairs}
    shares |= {(pair.b, pair.a): pair.share for pair in report.pairs}
    emit_table(
        ("wins of row over column, ties as a half", *names),
        [(a, *(f"{shares[a, b]:.0%}" if (a, b) in shares else "-" for b in names)) for a in names],
    )
    for pair in report.pairs:
        emit(pair.line)
    emit_table(
        ("rater", "votes", "left", "right", "ties", "both bad", "attention pairs", "missed", "counts"),
        [
            (
                one.rater, one.votes, one.left, one.right, one.ties, one.both_bad, one.attention, one.missed,
                "no" if one.excluded else "yes",
            )
            for one in sorted(report.raters, key=lambda one: -one.votes)[:RATERS]
        ],
    )  # fmt: skip
    if len(report.raters) > RATERS:
        note(f"and {len(report.raters) - RATERS} raters with fewer votes; --json has all")
    note(f"{report.votes} votes on {report.images} source images count; {report.left_out} are left out.")
    for line in report.notes:
        note(f"warning: {line}")
