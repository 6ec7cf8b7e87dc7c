"""`careedit bench start`: the time until a server is ready, and the processor time of each of its processes until then."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx2
import psutil
import typer

from careedit.cli.output import JsonOption, emit_json, emit_table, note
from careedit_deployments.bench.memory import name_of
from careedit_deployments.bench.servers import ServedConfigOption, in_folder, platform
from careedit_deployments.cli.serve import named_config
from careedit_deployments.errors import ServingError

app = typer.Typer(add_completion=False)

VERSION = 1
"""Version of the document that `--json` writes."""
PATIENCE_S = 60.0
"""Seconds that a server which has been started may take to call itself ready."""


class Started(NamedTuple):
    """A process of a server that is ready."""

    name: str
    """The deployment of a replica, "this command", or the program of another process."""
    born_s: float
    """Seconds from the start of the command to the start of the process."""
    cpu_s: float
    """Processor time of the process until the server was ready, in seconds."""


@app.command()
def start(config: ServedConfigOption = "tiny", as_json: JsonOption = False) -> None:
    """Start a server, wait until /readyz answers 200, show what each process cost, and stop.

    Seconds count from the start of this command and depend on the machine and on what else it does. Processor time depends
    on it less.
    """
    with tempfile.TemporaryDirectory(prefix="careedit-start-") as folder:
        settings = in_folder(named_config(config), Path(folder))
        with platform(settings) as url:
            _wait_until_ready(url)
            own = psutil.Process()
            seconds = time.time() - own.create_time()
            rows = processes(own, own.children(recursive=True))
    if as_json:
        cpu_s = sum(row.cpu_s for row in rows)
        emit_json(
            {"version": VERSION, "ready_s": seconds, "cpu_s": cpu_s, "processes": [row._asdict() for row in rows]}
        )
        return
    emit_table(
        ("process", "started after", "processor time"),
        [(r.name, f"{r.born_s:.1f} s", f"{r.cpu_s:.1f} s") for r in rows],
    )
    note(
        f"Ready after {seconds:.1f} s, with {sum(row.cpu_s for row in rows):.1f} s of processor time on "
        f"{psutil.cpu_count()} cores."
    )


def processes(own: psutil.Process, others: Iterable[psutil.Process]) -> list[Started]:
    """The processes of a server that `own` started, in the order of their start; those that have ended are left out."""
    begun, rows = own.create_time(), [_row("this command", own, own.create_time())]
    for process in others:
        with suppress(psutil.Error):
            rows.append(_row(name_of(process.cmdline()), process, begun))
    return sorted(rows, key=lambda row: row.born_s)


def _row(name: str, process: psutil.Process, begun: float) -> Started:
    times = process.cpu_times()
    return Started(name, process.create_time() - begun, times.user + times.system)


def _wait_until_ready(url: str) -> None:
    end = time.monotonic() + PATIENCE_S
    with httpx2.Client(timeout=PATIENCE_S, trust_env=False) as client:
        while client.get(f"{url}/readyz").status_code != 200:
            if time.monotonic() > end:
                raise ServingError(
                    f"The server was not ready within {PATIENCE_S:g} seconds of its start; see its logs."
                )
            time.sleep(0.1)
