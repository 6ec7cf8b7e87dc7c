"""Baselines in processes of their own: started, waited for, and ended with all that they started themselves."""

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

import httpx2

from careedit_deployments.bench.baselines import BaselineSettings
from careedit_deployments.errors import ServingError

PATIENCE_S = 300.0
"""Seconds that a server may take to load its editor."""


@contextmanager
def baseline(name: str, settings: BaselineSettings, log: Path, *, patience: float = PATIENCE_S) -> Iterator[str]:
    """A baseline's address, while it runs; what it says goes to the file `log`.

    Raises `ServingError`, with its last words, where it does not come up within `patience` seconds.
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
    """A port of the loopback address on which nothing listens now."""
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
    ended = "ended" if process.poll() is not None else "did not come up in time"
    raise ServingError(f"The baseline {name} {ended}; its last words: {last.rstrip('.')}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and its workers: they are one process group, of which it is the leader."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
