"""Show the arms of an A/B test, take an arm out of traffic or put it back, and export the results.

The commands read and write the database that the configuration names. A running server applies a change within seconds.
"""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from careedit.cli.files import check_outputs, write_all
from careedit.cli.lazy import lazy_group
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit_deployments.ab.export import MAX_EDITS, export_lines
from careedit_deployments.ab.guard import disable_by_hand, restore
from careedit_deployments.ab.status import ArmStatus, Interval, arm_statuses
from careedit_deployments.cli.serve import named_config
from careedit_deployments.config import ServeConfig
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import ArmEvent
from careedit_deployments.state.store import Store, open_store

app = typer.Typer(
    cls=lazy_group("careedit.ab"), no_args_is_help=True, add_completion=False
)  # careedit_eval adds its report

ConfigOption = Annotated[
    str,
    typer.Option(
        "--config",
        envvar="CAREEDIT_SERVE_CONFIG",
        help="Configuration of the server: a YAML file or a name such as tiny.",
    ),
]
HoursOption = Annotated[
    float | None, typer.Option(min=0, help="Only count edits of the last HOURS hours. Default: all.")
]
ArmArgument = Annotated[str, typer.Argument(metavar="ARM", help="Name of the arm.")]

T = TypeVar("T")


@app.callback()
def ab() -> None:
    """Show the arms of an A/B test, take an arm out of traffic or put it back, and export the results."""


@app.command("status")
def status_command(
    config: ConfigOption,
    hours: HoursOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each arm: traffic, edits, errors, judge score, feedback, and whether it is out of traffic."""
    settings = named_config(config)
    since = 0.0 if hours is None else unix_time() - 3600 * hours
    statuses = with_store(settings, lambda store: arm_statuses(settings, store, since=since))
    if as_json:
        emit_json({"version": 1, "since": since, "arms": statuses})
        return
    columns = ("arm", "set", "traffic", "users", "edits", "errors", "judge", "won", "rating", "seconds", "state")
    emit_table(columns, [_row(status) for status in statuses])
    for status in statuses:
        if status.cut and status.since is not None:
            note(f"{status.arm} is out of traffic since {_when(status.since)}: {status.reason}")


@app.command("restore")
def restore_command(arm: ArmArgument, config: ConfigOption, as_json: JsonOption = False) -> None:
    """Put an arm back into traffic. Its guard then counts new edits only."""
    settings = named_config(config)
    _show(with_store(settings, lambda store: restore(store, arm, actor=operator_name())), as_json)


@app.command("cut")
def cut_command(
    arm: ArmArgument,
    config: ConfigOption,
    reason: Annotated[
        str, typer.Option(help="Reason, shown in the status and in the audit log.")
    ] = "Taken out of traffic by an operator.",
    as_json: JsonOption = False,
) -> None:
    """Take an arm out of traffic until it is restored. The last arm cannot be taken out."""
    settings = named_config(config)
    cut = with_store(
        settings, lambda store: disable_by_hand(store, settings.arms, arm, actor=operator_name(), reason=reason)
    )
    _show(cut, as_json)


@app.command("export")
def export_command(
    config: ConfigOption,
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE.jsonl", help="File to write. It contains no names and no pictures.")
    ],
    hours: HoursOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of edits; the newest are kept.")] = MAX_EDITS,
) -> None:
    """Write the results of the arms as JSON lines, for `careedit ab report FILE`."""
    settings = named_config(config)
    check_outputs([to], [])
    since = 0.0 if hours is None else unix_time() - 3600 * hours

    async def export(store: Store) -> tuple[list[str], int]:
        lines, left_out = await export_lines(settings, store, since=since, limit=limit)
        return [json.dumps(line) for line in lines], left_out

    found, left_out = with_store(settings, export)
    write_all({to: "".join(f"{line}\n" for line in found)})
    note(f"{len(found) - 1} edits and pieces of feedback are in {to}.")
    if left_out:
        note(f"{left_out} edits are left out: their tenants do not allow the purpose evaluation.")


def with_store(config: ServeConfig, work: Callable[[Store], Awaitable[T]]) -> T:
    """The result of `work` on the configuration's store, in an event loop of its own."""

    async def run() -> T:
        store = await open_store(config.state)
        try:
            return await work(store)
        finally:
            await store.close()

    with progress("Working on the database"):
        return asyncio.run(run())


def _show(event: ArmEvent, as_json: bool) -> None:
    if as_json:
        emit_json({"version": 1, "event": event})
    else:
        emit(f"{event.arm} was {'taken out of' if event.kind == 'cut' else 'put back into'} traffic.")


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
        "out" if status.cut else "live",
    )


def _interval(found: Interval | None) -> str:
    return "-" if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}, {found.count})"


def day_of(when: float | None) -> str:
    """The day of a time in UTC; "-" for None."""
    return "-" if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def operator_name() -> str:
    """Name of the user who runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "an operator"
