"""The end of `careedit serve`: which signal does what, and that it has an end of its own. No Ray here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from careedit_deployments.cluster.lifecycle import within

STOPPING = """
import signal, subprocess, sys, threading
from careedit_deployments.cluster import lifecycle
from careedit_deployments.cli import serve
from careedit_deployments.config import ServeConfig

hung = sys.argv[1] == "hung"
if sys.argv[1].endswith("raylet"):
    print(subprocess.Popen([sys.argv[1], "600"]).pid, flush=True)
lifecycle.take_down = lambda config: threading.Event().wait() if hung else print("taken down", flush=True)
lifecycle.DELETE_S = 0.1
lifecycle.SILENT_S = float(sys.argv[4]) if sys.argv[4:] else 0.2
sys.modules["ray"] = type(sys)("ray")
sys.modules["ray"].shutdown = lambda: None
config = ServeConfig(arms={"a": {"expert_set": "tiny"}}, ingress={"graceful_shutdown_s": float(sys.argv[2])})
listen = signal.signal

def tell(number, handler):
    listen(number, handler)
    if number == signal.SIGTERM:  # the last one
        print("waiting", flush=True)

signal.signal = tell
serve.wait_for_signal(sys.argv[3] if sys.argv[3:] else None)
serve.stop(config)
"""


@pytest.fixture
def server():
    """`server(kind, graceful_s)`: a process that waits for its signal, and hangs when it stops if it is "hung"."""
    processes = []

    def start(kind, graceful_s, *url, silent_s=0.2):
        command = [sys.executable, "-c", STOPPING, kind, str(graceful_s), *url, *([str(silent_s)] if url else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        process.raylet = int(process.stdout.readline()) if kind.endswith("raylet") else None
        assert process.stdout.readline() == "waiting\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_application_in_order(server, number):
    process = server("well", 5)
    process.send_signal(number)
    out, said = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "taken down\n")
    assert "Stopping" in said


def test_a_second_signal_ends_a_stop_that_hangs_at_once(server):
    process = server("hung", 600)
    process.send_signal(signal.SIGTERM)
    assert "Stopping" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert "Stopped at once" in process.stderr.read()


def test_a_stop_that_hangs_has_an_end(server):
    process = server("hung", 0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1
    assert "did not stop within" in process.stderr.read()


def test_a_server_that_takes_connections_and_never_answers_ends_its_process(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = server("well", 5, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert process.wait(30) == 1
    assert "its cluster is lost" in process.stderr.read()


def test_a_command_whose_raylet_has_ended_ends_at_once(server, tmp_path, monkeypatch):
    raylet = shutil.copy(shutil.which("sleep"), tmp_path / "raylet")  # a process is found by its name
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = server(str(raylet), 5, f"http://127.0.0.1:{silent.getsockname()[1]}", silent_s=600)
        assert process.poll() is None
        os.kill(process.raylet, signal.SIGKILL)
        assert process.wait(20) == 1
    assert "Ray's raylet has ended" in process.stderr.read()


def test_work_within_a_time_raises_what_it_raises_and_says_whether_it_ended():
    assert within(lambda: None, 5)
    assert not within(threading.Event().wait, 0.05)
    with pytest.raises(ZeroDivisionError):
        within(lambda: 1 / 0, 5)
