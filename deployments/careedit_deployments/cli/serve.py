"""`careedit serve`: starts the served platform, or updates a running one."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from careedit.cli.output import emit, keeping, note, progress
from careedit.errors import ExpertError, InputError
from careedit.loading import quick_imports
from careedit_deployments.cli.weights import unpinned_models
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import ServingError

if TYPE_CHECKING:
    from ray.serve import Application

    from careedit_deployments.checks import PolicyConfig
    from careedit_deployments.config import StateConfig

app = typer.Typer()

TOO_SLOW = "timed out during startup"
"""What Ray says, in a bare `Exception`, if its processes do not start within 30 seconds, which it has no setting for."""
FOLDERS = (Path(__file__).parent.parent / "configs", Path(__file__).parents[2] / "config")
"""Folders of the named configurations: in a wheel, and in the repository."""


@app.command()
def serve(
    config: Annotated[str, typer.Argument(help="Configuration: a YAML file or a packaged name such as tiny.")] = "tiny",
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on. Default: http.host of the configuration.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 picks a free one. Default: http.port."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            envvar="RAY_ADDRESS",
            help="Ray cluster to deploy to (auto, or host:port). Default: a new cluster on this machine, which ends with this "
            "command.",
        ),
    ] = None,
    blocking: Annotated[
        bool,
        typer.Option(
            "--blocking/--no-blocking", help="Wait until interrupted, or return as soon as the platform runs."
        ),
    ] = True,
    make_key: Annotated[
        bool, typer.Option("--make-key", help="Require an API key, and make and print one that is valid until the end.")
    ] = False,
) -> None:
    """Start the served platform, or update a running one (--address): only changed deployments are restarted."""
    settings = at_address(named_config(config), host, port)
    if address is None and not blocking:
        raise InputError(
            "--no-blocking needs --address, because a cluster that this command starts ends with it; add --address."
        )
    if make_key and not blocking:
        raise InputError("--make-key makes a key that ends with this command; leave out --no-blocking.")
    expiry = check_credentials(settings)
    if address is None:
        check_policy(settings)
    with ExitStack() as ending:
        if make_key:
            from careedit_deployments.cli.session_key import session_key

            settings = settings.model_copy(update={"auth": settings.auth.model_copy(update={"required": True})})
            key = ending.enter_context(session_key(settings))
        url = start(settings, address)
        emit(f"careedit serves {config} at {url} (API: {url}/docs)")
        if make_key:
            emit(f"API key of this run: {key}")
        for sentence in [*dangers(settings), *expiry, *(sentence for _, sentence in unpinned_models(settings))]:
            note(f"Warning: {sentence}")
        if not blocking:
            return
        note("Interrupt (Ctrl-C) to stop.")
        try:
            wait_for_signal(None if address else url)  # another cluster is supervised elsewhere
        finally:
            stop(settings)


def dangers(config: ServeConfig) -> list[str]:
    """What is unsafe about the address that the server listens on: one sentence each."""
    from careedit_deployments.http.auth import keys_required

    http = config.http
    if http.is_loopback:
        return []
    found = []
    if not keys_required(config):
        found.append("everyone who reaches this address can edit and read all jobs; set auth.required to true.")
    if not (http.public_url or "").startswith("https://"):
        found.append(
            "keys and pictures cross the network in clear; put a proxy with TLS in front, which also limits "
            "connections, and set http.public_url to its https address."
        )
    return found


def find_config(name: str) -> Path:
    """The file of a configuration, from a path or a name such as "tiny". Raises `InputError`."""
    if Path(name).is_file():
        return Path(name)
    named = {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))}
    if name not in named:
        raise InputError(f"The configuration {name!r} does not exist; give a YAML file or one of {', '.join(named)}.")
    return named[name]


def named_config(name: str) -> ServeConfig:
    """The configuration in a file, or with a name such as "tiny". Raises `InputError`."""
    return ServeConfig.from_yaml(find_config(name))


def at_address(config: ServeConfig, host: str | None, port: int | None) -> ServeConfig:
    """`config` with this address, a free port instead of 0, and absolute paths of local files."""
    http = config.http.model_copy(
        update={"host": config.http.host if host is None else host, "port": config.http.port if port is None else port}
    )
    if http.port == 0:
        with socket.socket(socket.AF_INET6 if ":" in http.host else socket.AF_INET) as free:
            free.bind((http.host, 0))
            http = http.model_copy(update={"port": free.getsockname()[1]})
    found: dict[str, object] = {
        "http": http,
        "state": _absolute(config.state),
        "policy": _absolute_policy(config.policy),
    }
    if config.credentials is not None and config.credentials.folder is not None:
        folder = str(Path(config.credentials.folder).resolve())
        found["credentials"] = config.credentials.model_copy(update={"folder": folder})
    if config.watermark is not None and config.watermark.key_file is not None:
        file = str(Path(config.watermark.key_file).resolve())
        found["watermark"] = config.watermark.model_copy(update={"key_file": file})
    return config.model_copy(update=found)


def check_sets(config: ServeConfig) -> None:
    """Raise `ExpertError` for the first defect of the expert set of any arm, weights included."""
    with quick_imports():  # of torch and diffusers
        from careedit.experts import load_expert_set, verify_expert_set
        from careedit.experts.licence import check_commercial

    for name, arm in config.arms.items():
        if config.commercial:
            check_commercial(load_expert_set(arm.expert_set))
        findings = verify_expert_set(arm.expert_set)
        if findings:
            raise ExpertError(f"The expert set of {name!r} cannot be used; nothing was deployed: {findings[0].message}")


def check_credentials(config: ServeConfig) -> list[str]:
    """Raise `InputError` if results cannot be signed or marked as configured. Returns a warning if the certificate expires soon."""
    from careedit_deployments.credentials import expiry_warning, open_marking, open_signing

    open_marking(config.watermark)
    warning = expiry_warning(open_signing(config.credentials))
    return [] if warning is None else [warning]


def check_policy(config: ServeConfig) -> None:
    """Raise `InputError` for the first check of the content policy that cannot be made on this machine."""
    from careedit_deployments.policy.hook import load_check

    for check in config.policy.checks:
        with progress(f"Loading the policy check {check.name}"):
            load_check(check)


def hide_from_other_users() -> None:
    """Keep other users of this machine from this process's and Ray's state, images and logs, and from the token of its cluster.

    Ray makes one token per user, with which any code can be run in the cluster. It may be of an earlier cluster, and readable.
    """
    os.umask(0o077)  # Ray's processes inherit it
    with suppress(OSError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)


def start(config: ServeConfig, address: str | None) -> str:
    """Check the expert sets, deploy, wait until everything runs, and return the URL of the server.

    Raises `ExpertError` for a set with a defect, before anything is deployed, and if a part fails.
    """
    from careedit.experts import load_expert_set
    from careedit_deployments.cluster.lifecycle import SERVING

    for arm in config.arms.values():
        load_expert_set(arm.expert_set)  # a set that does not exist is reported before anything starts
    for name, value in SERVING.items():  # before Ray is imported
        os.environ.setdefault(name, value)
    with (
        keeping(lambda: "the server had not started, and nothing of it is left running."),
        progress("Starting Ray, and checking the expert sets") as bar,
        ThreadPoolExecutor(1, "careedit-app") as thread,
    ):
        from ray import serve

        from careedit_deployments.telemetry.logs import serve_logging

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        # Importing torch to read the weights takes as long as the start of Ray's processes.
        app = thread.submit(_checked_app, config)
        _connect(address)
        serve.start(http_options={"host": config.http.host, "port": config.http.port})
        ready = app.result()
        bar.describe("Starting the replicas")
        try:
            serve.run(ready, name=config.name, route_prefix="/", logging_config=dict(serve_logging(config.telemetry)))
        except RuntimeError as error:  # Serve raises this if a deployment does not start
            raise ExpertError(f"The application did not start: {_last_line(error)}.") from error
    host = "127.0.0.1" if config.http.host in ("0.0.0.0", "::") else config.http.host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.http.port}"


def _checked_app(config: ServeConfig) -> Application:
    check_sets(config)
    from careedit_deployments.app import build_app

    return build_app(config)


def _connect(address: str | None) -> None:
    """Connect to the Ray cluster at `address`, or start one, unless this process is connected."""
    import ray

    if ray.is_initialized():
        return
    if address is None:
        hide_from_other_users()
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        if TOO_SLOW not in str(error):
            raise
        raise ServingError(
            "Ray did not start within half a minute; end other work on this machine, or try again."
        ) from error


def wait_for_signal(url: str | None = None) -> None:
    """Wait for SIGINT or SIGTERM. A second signal ends the process at once.

    If the cluster of the server at `url`, which this process started, is lost, the process ends with exit code 1.
    """
    from careedit_deployments.cluster.lifecycle import Watch

    watch = None if url is None else Watch(url)
    asked = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if asked.is_set():
            note("Stopped at once; the next server continues the jobs in progress.")
            os._exit(128 + number)  # Ray's processes end with this one in any case
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    while not asked.wait(1.0):  # an unlimited wait cannot be interrupted on every system
        if watch is not None and (reason := watch.lost) is not None:
            note(reason)
            watch.kill_rest()
            os._exit(1)  # an orderly exit would wait for the lost cluster


def stop(config: ServeConfig) -> None:
    """Stop the application gracefully, and the cluster if this process started it.

    Ends the process with exit code 1 if that takes too long.
    """
    import ray

    from careedit_deployments.cluster.lifecycle import DELETE_S, take_down, within

    note("Stopping: edits in progress are finished first (interrupt again to stop at once) ...")
    limit = 2 * config.ingress.graceful_shutdown_s + 2 * DELETE_S
    # A cluster that this process started ends with it; asking Serve to end as well would race with that.
    if not (within(lambda: take_down(config), limit) and within(ray.shutdown, DELETE_S)):
        note(f"The server did not stop within {limit:g} seconds; the rest ends with this process.")
        os._exit(1)  # an orderly exit would wait for Ray again


def _absolute(state: StateConfig) -> StateConfig:
    """State with absolute local paths, because replicas run in other folders."""
    database, prefix = state.database, "sqlite+aiosqlite:///"
    if database.startswith(prefix) and not database.startswith(f"{prefix}/") and ":memory:" not in database:
        path = Path(database.removeprefix(prefix)).resolve()
        database = f"{prefix}{path}"
    blobs = state.blobs if "://" in state.blobs else str(Path(state.blobs).resolve())
    return state.model_copy(update={"database": database, "blobs": blobs})


def _absolute_policy(policy: PolicyConfig) -> PolicyConfig:
    """The content policy with absolute paths: every option that names a file or folder of this machine."""
    checks = []
    for check in policy.checks:
        options = {
            name: str(Path(value).resolve()) if isinstance(value, str) and value and Path(value).exists() else value
            for name, value in check.options.items()
        }
        checks.append(check.model_copy(update={"options": options}))
    return policy.model_copy(update={"checks": tuple(checks)})


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
