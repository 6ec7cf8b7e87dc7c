"""What the layer shares: one demo, started as a user starts it and left running, and the pages in a real browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from browsing import ARMS, CHROMIUM, REBOUND
from careedit.cli.main import NO_TELEMETRY
from connections import recording
from fake_backend import FakeBackend
from served import Served, serve


@dataclass(frozen=True)
class Demo:
    """A demo that serves."""

    folder: Path
    """Its working folder."""
    printed: Path
    """What it has written to stdout."""
    said: str
    """What it has said on stderr until it served."""
    pid: int
    """Its process, whose connections are recorded in `folder` (`connections`)."""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, session_stack: ExitStack) -> Demo:
    """`careedit demo`, interrupted at the end: it must then end by itself and without an error."""
    return session_stack.enter_context(_serving(tmp_path_factory.mktemp("demo")))


@contextmanager
def _serving(folder: Path) -> Iterator[Demo]:
    printed = folder / "stdout.txt"
    command = [Path(sys.executable).with_name("careedit"), "demo", "--count", "13", "--port", "0", "--json"]
    environment = {**os.environ, **recording(folder), "PYTHONUNBUFFERED": "1", "RAY_worker_niceness": "0"}
    for name in ("HF_HUB_OFFLINE", *NO_TELEMETRY):  # as a user runs it: what it would send or download is seen
        environment.pop(name, None)
    with (
        printed.open("w") as out,
        subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True, env=environment
        ) as process,
    ):
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "The server runs on" in line:
                break
        assert process.poll() is None, said
        yield Demo(folder, printed, said, process.pid)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(120) == 0, rest


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", REBOUND])
        yield started
        started.close()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend("tiny", "other", shadows=("mirror",), judge=False)


@pytest.fixture
def served(tmp_path: Path, backend: FakeBackend) -> Iterator[Served]:
    with serve(tmp_path, backend, arms=ARMS) as running:
        yield running


@pytest.fixture
def page(browser, served: Served):
    """The studio, ready; whatever it loads from elsewhere and every error in its console fails the test."""
    opened = browser.new_page()
    flaws: list[str] = []
    # The browser logs every answer of 4xx and 5xx; what the page makes of those is what is tested.
    opened.on(
        "console",
        lambda line: flaws.append(line.text) if line.type == "error" and "status of" not in line.text else None,
    )
    opened.on("pageerror", lambda error: flaws.append(str(error)))
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((served.url, "data:", "blob:")) else flaws.append(asked.url),
    )
    opened.goto(served.url)
    opened.locator("#expert option[value=erase]").wait_for(state="attached")
    yield opened
    opened.close()
    assert flaws == []
