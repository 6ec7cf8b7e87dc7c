"""`careedit eval view`: look at every sample of a run in a browser."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import emit, note
from careedit.errors import InputError
from careedit.files import is_url
from careedit_eval.cli.work import DEFAULT_OUT, find_run
from careedit_eval.viewer import Library, ViewedRun, make_server


def view(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Folders, ids in --out, or addresses (s3://) of finished runs, shown side by side; default: the latest.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of evaluations.")] = DEFAULT_OUT,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port on this machine; 0: a free one.")
    ] = 8378,
) -> None:
    """Show all samples of runs in a browser: images against each other, routing, traces, judge's answers, runs over time.

    The server listens on this machine only, and only reads.
    """
    opened = [ViewedRun(place_of(name, out)) for name in runs or [str(find_run(None, out).folder)]]
    serve(make_server(Library(opened), port), "viewer")


def serve(server: ThreadingHTTPServer, name: str) -> None:
    """Print the address of a server, and run it until the user interrupts it."""
    emit(f"http://127.0.0.1:{server.server_port}/")
    sys.stdout.flush()  # a program that reads a pipe needs the address now
    note(f"The {name} runs until you press Ctrl+C.")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        note(f"The {name} has ended.")
    finally:
        server.server_close()


def place_of(name: str, out: Path) -> str:
    """The folder or address of a run that is given as such, or by its id in `out`. Raises `InputError`."""
    if is_url(name) or Path(name).is_dir():
        return name
    inside = out / "runs" / name
    if Path(name).name != name or not inside.is_dir():
        raise InputError(f"{name!r} is neither a folder nor a run in {out}; `careedit eval list` shows the runs.")
    return str(inside)
