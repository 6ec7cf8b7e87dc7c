"""`careedit serve` as a process of its own, with its cluster, on the tiny set."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from crowd import Crowd

SMALL = {"num_cpus": 0.1, "max_ongoing_requests": 64}
CONFIG: Mapping[str, Any] = {
    "version": 1,
    "arms": {
        "main": {
            "expert_set": "tiny",
            "device": "cpu",
            "long_tail": ["identity", "reference", "erase", "style", "compose"],
        }
    },
    "ingress": {**SMALL, "max_ongoing_requests": 256},
    "router": SMALL,
    "shared": {
        "num_cpus": 0.2,
        "threads": 1,
        "max_ongoing_requests": 16,
        "max_queued_requests": 64,
        "graceful_shutdown_s": 60,
    },
    "limits": {"deadline_s": 240},
    "scorer": {"backend": "none"},
}
"""One pool for every expert."""


@contextmanager
def serving(
    folder: Path, config: Mapping[str, Any] = CONFIG, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it says. State and its error output are in `folder`, from one server to the next."""
    (folder / "serve.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    for _ in range(3):  # Ray gives its processes half a minute, which a busy machine may exceed
        process, line = _started(folder, environment)
        if line:
            break
    with process:
        try:
            said = re.search(r"http://\S+", line)
            assert said is not None, (folder / "stderr.txt").read_text()
            yield process, said[0]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(120)


def _started(folder: Path, environment: Mapping[str, str]) -> tuple[subprocess.Popen[str], str]:
    """The command, and the first line that it says; the line is empty if it ended."""
    command = [Path(sys.executable).with_name("careedit"), "serve", "serve.yaml", "--port", "0"]
    with (folder / "stderr.txt").open("a") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environment}
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
    except BaseException:  # the test's time is over; Ray's processes end with the command
        process.kill()
        process.communicate()
        raise
    if not line:
        process.communicate(timeout=120)
    return process, line


def lose(process: subprocess.Popen[str], name: str) -> None:
    """Kill the process `name` of the command's cluster, and check that the command ends and leaves nothing."""
    ours = psutil.Process(process.pid).children(recursive=True)
    next(one for one in ours if one.name() == name).kill()
    assert process.wait(60) == 1
    assert psutil.wait_procs(ours, timeout=60)[1] == [], "nothing of the cluster is left"


async def statuses(crowd: Crowd) -> list[str]:
    """The states of all jobs."""
    return [job["status"] for job in (await crowd.http.get("/v1/jobs?limit=100")).json()["data"]]


async def collect(url: str, jobs: list[str]) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The jobs when they have ended, and the names of their events."""
    async with Crowd(url) as crowd:
        return [await crowd.job(job) for job in jobs], [await crowd.events(job) for job in jobs]
