"""See how the arms of an A/B test do; take one out of traffic or put it back; export what they did.

Everything is read from, and written to, the database that the configuration names; a running server hears of a change within
seconds.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from careedit.cli.files import check_outputs, write_all
from careedit.cli.lazy import lazy_group
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note
from careedit_deployments.ab.export import MOST, export_lines
from careedit_deployments.ab.guard import disable_by_hand, restore
from careedit_deployments.ab.status import ArmStatus, Interval, arm_statuses
from careedit_deployments.cli.serve import find_config
from careedit_deployments.config import ServeConfig
from careedit_deployments.state.records import ArmEvent
from careedit_deployments.state.store import Store, open_store

app = typer.Typer(
    cls=lazy_group("careedit.ab"), no_args_is_help=True, add_completion=False
)  # careedit_eval adds its report

ConfigOption = Annotated[
    str,
    typer.Option(
        "--config", envvar="CAREEDIT_SERVE_CONFIG", help="The server's configuration: a YAML file, or the name of one."
    ),
]
ArmArgument = Annotated[str, typer.Argument(metavar="ARM", help="The arm.")]

T = TypeVar("T")


@app.callback()
def ab() -> None:
    """See how the arms of an A/B test do; take one out of traffic or put it back; export what they did."""


@app.command("status")
def status_command(
    config: ConfigOption,
    hours: Annotated[float | None, typer.Option(min=0, help="Only edits of the last hours.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every arm: traffic, edits, errors, the judge's mean, people's verdicts, and whether it is cut out."""
    settings = ServeConfig.from_yaml(find_config(config))
    since = 0.0 if hours is None else time.time() - 3600 * hours
    statuses = with_store(settings, lambda store: arm_statuses(settings, store, since=since))
    if as_json:
        emit_json({"version": 1, "since": since, "arms": statuses})
        return
    columns = ("arm", "set", "traffic", "users", "edits", "errors", "judge", "won", "rating", "seconds", "state")
    emit_table(columns, [_row(status) for status in statuses])
    for status in statuses:
        if status.cut and status.since is not None:
            note(f"{status.arm} is cut out since {_when(status.since)}: {status.reason}")


@app.command("restore")
def restore_command(arm: ArmArgument, config: ConfigOption, as_json: JsonOption = False) -> None:
    """Put an arm that was cut out back into traffic; its guard starts anew."""
    settings = ServeConfig.from_yaml(find_config(config))
    _show(with_store(settings, lambda store: restore(store, arm, actor=operator_name())), as_json)


@app.command("cut")
def cut_command(
    arm: ArmArgument,
    config: ConfigOption,
    reason: Annotated[str, typer.Option(help="Why, for those who come after you.")] = "Cut out by hand.",
    as_json: JsonOption = False,
) -> None:
    """Take an arm out of traffic until it is restored; the last one stays."""
    settings = ServeConfig.from_yaml(find_config(config))
    cut = with_store(
        settings, lambda store: disable_by_hand(store, settings.arms, arm, actor=operator_name(), reason=reason)
    )
    _show(cut, as_json)


@app.command("export")
def export_command(
    config: ConfigOption,
    to: Annotated[Path, typer.Option("--to", metavar="FILE.jsonl", help="The file; nothing in it names a person.")],
    hours: Annotated[float | None, typer.Option(min=0, help="Only edits of the last hours.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Edits at most, the newest.")] = MOST,
) -> None:
    """Write what the arms did as JSON lines, for `careedit ab report FILE`."""
    settings = ServeConfig.from_yaml(find_config(config))
    check_outputs([to], [])
    since = 0.0 if hours is None else time.time() - 3600 * hours

    async def lines(store: Store) -> list[str]:
        return [json.dumps(line) async for line in export_lines(settings, store, since=since, limit=limit)]

    found = with_store(settings, lines)
    write_all({to: "".join(f"{line}\n" for line in found)})
    note(f"{len(found) - 1} edits and pieces of feedback are in {to}.")


def with_store(config: ServeConfig, work: Callable[[Store], Awaitable[T]]) -> T:
    """The result of `work` on the configuration's store, in an event loop of its own."""

    async def run() -> T:
        store = await open_store(config.state)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _show(event: ArmEvent, as_json: bool) -> None:
    if as_json:
        emit_json({"version": 1, "event": event})
    else:
        emit(f"{event.arm} was {'cut out of' if event.kind == 'cut' else 'put back into'} traffic.")


def _row(status: ArmStatus) -> tuple[str, ...]:
    return (
        status.arm,
        status.expert_set,
        "shadow" if status.shadow else f"{status.share:.0%}",
        str(status.users),
        str(status.edits),
        "-" if status.errors is None else f"{status.errors.value:.1%}",
        _interval(status.judge),
        f"{status.wins} of {status.wins + status.losses + status.ties}",
        _interval(status.rating),
        "-" if status.seconds is None else f"{status.seconds:.2f}",
        "cut out" if status.cut else "live",
    )


def _interval(found: Interval | None) -> str:
    return "-" if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}, {found.count})"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def operator_name() -> str:
    """Who runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "an operator"
