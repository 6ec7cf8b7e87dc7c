"""Programs of others, each in an environment of its own that `make test-clients` makes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from servers import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 3000
"""Times that a program is asked whether it serves; each waits a tenth of a second."""


def program(environment: str, name: str) -> Path:
    """A program of an environment that `make test-clients` makes."""
    found = ROOT / "build/clients" / environment / "bin" / name
    assert found.is_file(), f"{environment} is missing; run make test-clients"
    return found


@contextmanager
def running(command: list[str | Path], folder: Path, path: str, **environment: str) -> Iterator[str]:
    """The address of a program that serves on the port `PORT` of its arguments or environment; `path` answers when it does."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    clean = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    log = folder / "log.txt"
    words = [str(word).replace("PORT", str(port)) for word in command]
    given = {**clean, **{key: value.replace("PORT", str(port)) for key, value in environment.items()}}
    with log.open("w") as out, subprocess.Popen(words, cwd=folder, env=given, stdout=out, stderr=out) as process:
        try:
            with httpx2.Client(timeout=10) as client:
                assert any(_answers(process, client, url + path) for _ in range(PATIENCE)), log.read_text("utf-8")
            yield url
        finally:
            process.terminate()


def _answers(process: subprocess.Popen[bytes], client: httpx2.Client, url: str) -> bool:
    try:
        process.wait(0.1)
    except subprocess.TimeoutExpired:
        try:
            return client.get(url).status_code == 200
        except httpx2.TransportError:
            return False
    raise AssertionError("the program ended before it served")
