"""The sub-commands for the champion: promote, rollback, champion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import emit, note
from careedit.errors import InputError
from careedit_eval.cli.work import DEFAULT_OUT, check_judge_of, find_run, tracked, workspace_of
from careedit_eval.gate import judge_run
from careedit_eval.runs import Run

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations, with MLflow's file.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of the expert set.")]


def promote_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder, or id in --out, of a run whose gate passed.")],
    out: Out = DEFAULT_OUT,
) -> None:
    """Make the set that a run's gate judged the champion, if the gate passes; exit code 1 if B is worse, 3 if inconclusive.

    A run made with --limit or --set is refused with exit code 2, because it covers only a part of its suite.
    """
    from careedit_eval.tracking import default_uri, promote, tracking
    from careedit_eval.tracking.content import is_own_set

    found = find_run(run, out)
    _check_whole(found)
    check_judge_of(found)
    verdict = judge_run(found)
    if not verdict.passed:
        note(verdict.line)
        raise typer.Exit(verdict.exit_code)
    facts = next((one for one in found.record.sets if one.name == verdict.candidate), None)
    if facts is None or not is_own_set(found, facts):
        raise InputError(f"{verdict.candidate!r} is not an expert set with a router, so it cannot become the champion.")
    run_id = tracked(found, verdict)
    against = next((one for one in found.record.sets if one.name == verdict.baseline), None)
    replaced = None if against is None or not is_own_set(found, against) else against.facts
    with tracking(default_uri(workspace_of(found))):
        version = promote(facts.facts, run_id=run_id, reason=verdict.line, replaced=replaced)
    emit(f"models:/{facts.facts['set']}@champion is version {version}")


def _check_whole(run: Run) -> None:
    """Raise `InputError` unless the run covers its whole suite."""
    narrowed = run.record.narrowed
    reason = "it does not record whether it was made with --limit or --set" if narrowed is None else narrowed.reason
    if reason is not None:
        raise InputError(
            f"The run {run.record.id} cannot make a champion: {reason}. Run the whole suite; existing edits are not "
            "made again."
        )


def roll_back_champion(name: NameArgument, out: Out = DEFAULT_OUT) -> None:
    """Make the previous champion the champion again."""
    from careedit_eval.tracking import default_uri, roll_back, tracking

    with tracking(default_uri(out)):
        version = roll_back(name)
    emit(f"models:/{name}@champion is version {version}")


def champion(name: NameArgument, out: Out = DEFAULT_OUT) -> None:
    """Show the address of a set's champion, after a check of its registered hash."""
    from careedit_eval.tracking import default_uri, set_location

    emit(set_location(f"models:/{name}@champion", default_uri(out)))
