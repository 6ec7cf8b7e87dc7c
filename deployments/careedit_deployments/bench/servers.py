"""The servers of a benchmark on this machine: the platform, with a second arm that edits serially, and the baselines.

Each baseline runs in a process of its own, which is ended together with the processes that it started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from careedit.errors import InputError
from careedit_deployments.bench.baselines import BaselineSettings
from careedit_deployments.cli.serve import at_address, start, stop
from careedit_deployments.config import Arm, ServeConfig
from careedit_deployments.errors import ServingError
from careedit_deployments.listening import AuthConfig

ServedConfigOption = Annotated[str, typer.Option("--config", help="Configuration to serve: a YAML file or a name.")]
"""The option for the configuration of the measured platform."""

SERIAL_ARM = "bench-serial"
"""Name of the arm without step batching. Its weight is 0; a request selects it as its model."""

PATIENCE_S = 300.0
"""Seconds that a baseline may take to start."""


def arm_of(config: ServeConfig) -> tuple[str, Arm]:
    """The only arm of a configuration, which is measured. Raises `InputError` if it has several, or a quantised one."""
    live = [(name, arm) for name, arm in config.arms.items() if not arm.shadow and arm.weight > 0]
    if len(live) != 1 or len(config.arms) != 1:
        raise InputError(f"The configuration has {len(config.arms)} arms; use one with a single arm.")
    if live[0][1].quantisation is not None:
        raise InputError("The benchmark compares with merged experts, which quantised weights cannot have; remove it.")
    return live[0]


def with_serial_arm(config: ServeConfig, experts: tuple[str, ...], folder: Path) -> ServeConfig:
    """`in_folder`, with a second arm whose replica of the first of `experts` works on one edit at a time."""
    _, arm = arm_of(config)
    one, *others = experts
    deployment = arm.experts.get(one, config.expert)
    alone = deployment.model_copy(update={"max_ongoing_requests": 1, "max_queued_requests": 256})
    serial = arm.model_copy(
        update={"weight": 0.0, "experts": {one: alone}, "long_tail": () if config.shared is None else tuple(others)}
    )
    # In the measured arm the same expert has a deployment of its own.
    tail = tuple(name for name in arm.tail_of(experts) if name != one)
    arms = {arm_of(config)[0]: arm.model_copy(update={"long_tail": tail}), SERIAL_ARM: serial}
    return in_folder(config.model_copy(update={"arms": arms}), folder)


def in_folder(config: ServeConfig, folder: Path) -> ServeConfig:
    """`config` on a free port of this machine, with its state in `folder`, and without keys and rate limits."""
    state = {"database": f"sqlite+aiosqlite:///{folder / 'careedit.db'}", "blobs": str(folder / "blobs")}
    changed = config.model_copy(
        update={
            "state": config.state.model_copy(update=state),
            "auth": AuthConfig(required=False),
            "limits": config.limits.model_copy(update={"requests_per_minute": None, "concurrent_requests": None}),
        }
    )
    return at_address(changed, "127.0.0.1", 0)


def with_telemetry(config: ServeConfig, receiver: str) -> ServeConfig:
    """`config` with spans for the receiver at this address, of requests only whose client asks for them."""
    spans = {"otlp_endpoint": receiver, "sampling": 0.0}
    return config.model_copy(update={"telemetry": config.telemetry.model_copy(update=spans)})


@contextmanager
def platform(config: ServeConfig) -> Iterator[str]:
    """Run the platform and yield its URL. Raises `ExpertError` for a defective set, or if a part does not start."""
    url = start(config, None)
    try:
        yield url
    finally:
        stop(config)


@contextmanager
def baseline(name: str, settings: BaselineSettings, log: Path, *, patience: float = PATIENCE_S) -> Iterator[str]:
    """Run a baseline and yield its URL. Its output goes to the file `log`.

    Raises `ServingError` with the last line of its output if it does not start within `patience` seconds.
    """
    command = [sys.executable, "-m", "careedit_deployments.bench.baselines", name, settings.model_dump_json()]
    url = f"http://127.0.0.1:{settings.port}"
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait(process, name, url, log, time.monotonic() + patience)
            yield url
        finally:
            _end(process)


def free_port() -> int:
    """A free port of the loopback address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _wait(process: subprocess.Popen[bytes], name: str, url: str, log: Path, until: float) -> None:
    while process.poll() is None and time.monotonic() < until:
        with suppress(httpx2.HTTPError):
            if httpx2.get(f"{url}/health", timeout=2.0).is_success:
                return
        time.sleep(0.1)
    words = log.read_text("utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(words) if line.strip()), "nothing")
    ended = "ended" if process.poll() is not None else "did not start in time"
    raise ServingError(f"The baseline {name} {ended}; the last line of its output: {last.rstrip('.')}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a baseline and its workers, which form one process group."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
