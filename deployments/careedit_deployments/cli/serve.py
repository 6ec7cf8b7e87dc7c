"""Start the served platform, or change one that runs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from careedit.cli.output import emit, note, progress
from careedit.errors import ExpertError, InputError
from careedit_deployments.config import ServeConfig

if TYPE_CHECKING:
    from careedit_deployments.config import StateConfig

app = typer.Typer()

FOLDERS = (Path(__file__).parent.parent / "configs", Path(__file__).parents[2] / "config")
"""Where the named configurations lie: in a wheel, and in the repository."""


@app.command()
def serve(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a configuration that comes along.")
    ] = "tiny",
    host: Annotated[
        str | None, typer.Option("--host", help="Listen here instead of the configuration's address.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Listen on this port; 0 picks a free one.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            envvar="RAY_ADDRESS",
            help="Ray cluster to deploy to (auto, or host:port). Without it, one is started on this machine and ends with "
            "this command.",
        ),
    ] = None,
    blocking: Annotated[
        bool, typer.Option("--blocking/--no-blocking", help="Stay until interrupted, or return once it runs.")
    ] = True,
) -> None:
    """Start the served platform, or change one that runs: with --address, only what differs is replaced."""
    settings = at_address(ServeConfig.from_yaml(find_config(config)), host, port)
    if address is None and not blocking:
        raise InputError("A cluster that this command starts ends with it; give --address, or leave --no-blocking out.")
    check_sets(settings)
    url = start(settings, address)
    emit(f"careedit serves {config} at {url} (API: {url}/docs)")
    if not blocking:
        return
    note("Interrupt (Ctrl-C) to stop.")
    try:
        wait_for_signal(None if address else url)  # a cluster elsewhere has its own supervision
    finally:
        stop(settings)


def find_config(name: str) -> Path:
    """The file of a configuration: a path, or a name such as "tiny". Raises `InputError`."""
    if Path(name).is_file():
        return Path(name)
    named = {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))}
    if name not in named:
        raise InputError(f"There is no configuration {name!r}; give a YAML file or one of {', '.join(named)}.")
    return named[name]


def at_address(config: ServeConfig, host: str | None, port: int | None) -> ServeConfig:
    """`config` with another address, port 0 settled, and its local files under absolute paths."""
    http = config.http.model_copy(
        update={"host": config.http.host if host is None else host, "port": config.http.port if port is None else port}
    )
    if http.port == 0:
        with socket.socket(socket.AF_INET6 if ":" in http.host else socket.AF_INET) as free:
            free.bind((http.host, 0))
            http = http.model_copy(update={"port": free.getsockname()[1]})
    return config.model_copy(update={"http": http, "state": _absolute(config.state)})


def check_sets(config: ServeConfig) -> None:
    """Raise `ExpertError` for the first violation of any arm's set, weights included: before anything that runs is changed."""
    from careedit.experts import verify_expert_set

    for name, arm in config.arms.items():
        with progress(f"Checking the expert set of {name}"):
            findings = verify_expert_set(arm.expert_set)
        if findings:
            raise ExpertError(f"The expert set of {name!r} is unfit, nothing was changed: {findings[0].message}")


def start(config: ServeConfig, address: str | None) -> str:
    """Deploy, wait until everything runs, and return the server's address. Raises `ExpertError` where a part fails."""
    from careedit_deployments.cluster.environment import SERVING

    for name, value in SERVING.items():  # before Ray is imported
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    from careedit_deployments.app import build_app
    from careedit_deployments.telemetry.logs import serve_logging

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with progress("Starting"):
        if not ray.is_initialized():
            ray.init(
                address=address or "local",
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        serve.start(http_options={"host": config.http.host, "port": config.http.port})
        try:
            serve.run(
                build_app(config),
                name=config.name,
                route_prefix="/",
                logging_config=dict(serve_logging(config.telemetry)),
            )
        except RuntimeError as error:  # what Serve raises for a deployment that did not come up
            raise ExpertError(f"The application did not start: {_last_line(error)}.") from error
    host = "127.0.0.1" if config.http.host in ("0.0.0.0", "::") else config.http.host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.http.port}"


def wait_for_signal(url: str | None = None) -> None:
    """Return when the process is asked to end. From then on a second signal ends it at once.

    Where the server at `url` gives no answer for long, its cluster is lost and the process ends with exit code 1.
    """
    from careedit_deployments.cluster.shutdown import SILENT_S, Watch

    watch = None if url is None else Watch(url)
    asked = threading.Event()

    def hear(number: int, _frame: object) -> None:
        if asked.is_set():
            note("Stopped at once; jobs that were being made are made by the next server.")
            os._exit(128 + number)  # Ray's processes end with this one, however it ends
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hear)
    while not asked.wait(1.0):  # a wait without end would not be interrupted everywhere
        if watch is not None and watch.silent_s > SILENT_S:
            note(f"The server has not answered for {SILENT_S:g} seconds; its cluster is lost, so this process ends.")
            os._exit(1)  # an orderly end would wait for what is gone


def stop(config: ServeConfig) -> None:
    """End the application gracefully, and the cluster if this process started it. Ends the process with exit code 1 where
    that takes longer than it may."""
    import ray

    from careedit_deployments.cluster.shutdown import DELETE_S, take_down, within

    note("Stopping: edits in progress are finished first (interrupt again to stop at once) ...")
    most = 2 * config.ingress.graceful_shutdown_s + 2 * DELETE_S
    # A cluster that this process started ends with it; asking Serve to end as well would race with that.
    if not (within(lambda: take_down(config), most) and within(ray.shutdown, DELETE_S)):
        note(f"The server did not stop within {most:g} seconds; what is left of it is ended with this process.")
        os._exit(1)  # an orderly end would wait for Ray once more


def _absolute(state: StateConfig) -> StateConfig:
    """Local paths of the state as every process understands them: replicas run elsewhere."""
    database, prefix = state.database, "sqlite+aiosqlite:///"
    if database.startswith(prefix) and not database.startswith(f"{prefix}/") and ":memory:" not in database:
        path = Path(database.removeprefix(prefix)).resolve()
        database = f"{prefix}{path}"
    blobs = state.blobs if "://" in state.blobs else str(Path(state.blobs).resolve())
    return state.model_copy(update={"database": database, "blobs": blobs})


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
