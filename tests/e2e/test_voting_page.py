"""`careedit eval vote` in a real browser, with the keyboard alone; the server is killed, and no vote is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from careedit_eval.runs import Run
from careedit_eval.voting import Vote, VoteTable
from voters import SETS, collecting, painted

CHROMIUM = Path("/usr/bin/chromium")
COMMAND = Path(sys.executable).with_name("careedit")
HELPERS = Path(__file__).parents[1] / "helpers"
HOSTILE = '<img src=x onerror="window.hacked = 1"> make it'

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")


@contextmanager
def voting(run: Run) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command and its port. It is killed at the end."""
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{HELPERS}"}
    command = [COMMAND, "eval", "vote", str(run.folder), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), process.stderr.read()
            yield process, int(line.rstrip("/\n").rpartition(":")[2])
        finally:
            process.send_signal(signal.SIGKILL)


def address(run: Run) -> str:
    return f"sqlite:///{run.folder.parents[1] / 'votes.db'}"


def stored(run: Run) -> list[Vote]:
    with closing(VoteTable(address(run), create=False)) as table:
        return table.votes()


def test_votes_by_keyboard_are_stored_at_once_and_no_name_reaches_the_browser(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    run = painted(tmp_path, bench={"words": HOSTILE})
    flaws: list[str] = []
    seen: list[str] = []
    keys = {"ArrowLeft": "left", "ArrowDown": "tie", "ArrowUp": "both_bad", "ArrowRight": "right"}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("pageerror", lambda error: flaws.append(str(error)))
        page.on("request", lambda asked: seen.append(f"{asked.url} {asked.post_data}"))
        page.on("response", lambda answer: seen.append(str(answer.headers)))
        ready = page.locator("[data-verdict=left]:enabled")
        with voting(run) as (process, port):
            page.goto(f"http://127.0.0.1:{port}/")
            page.keyboard.type("ann")
            page.keyboard.press("Enter")
            for number, key in enumerate(keys, 1):
                ready.wait_for()
                seen.append(page.content())
                assert page.eval_on_selector_all(".pictures img", "all => all.map(one => one.naturalWidth)") == [8] * 3
                assert page.evaluate("document.documentElement.scrollHeight <= window.innerHeight"), "all is in sight"
                page.keyboard.press(key)
                page.keyboard.press(key)  # pressed twice: one vote
                page.locator("#count", has_text=f"ann: {number} vote").wait_for()
            votes = [vote.verdict for vote in stored(run)]
            assert votes[:4] == list(keys.values()) and votes[4:] in ([], [None])

            ready.wait_for()
            page.keyboard.down(" ")
            page.wait_for_function("document.querySelector('#left').src === document.querySelector('#source').src")
            page.keyboard.up(" ")
            page.wait_for_function("document.querySelector('#left').src.endsWith('left')")

            page.locator("[data-verdict=tie]").dblclick()
            page.locator("#count", has_text="ann: 5 votes").wait_for()
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert [vote.verdict for vote in stored(run)][:5] == [*votes[:4], "tie"]
        (waiting,) = [vote for vote in stored(run) if vote.verdict is None]

        ready.wait_for()
        page.keyboard.press("ArrowRight")
        page.locator("#said", has_text="The vote is not stored: The server does not answer").wait_for()
        with collecting(run, address(run), port=port):
            page.reload()
            ready.wait_for()
            assert page.locator("#count").inner_text() == "ann: 5 votes"
            page.keyboard.press("ArrowRight")
            page.locator("#count", has_text="ann: 6 votes").wait_for()
        assert {vote.id: vote.verdict for vote in stored(run)}[waiting.id] == "right"
        assert page.evaluate("window.hacked") is None
        browser.close()
    assert flaws == []
    secret = [*SETS, *(facts.identity_sha256 for facts in run.record.sets), run.record.id]
    assert [name for name in secret if any(name in text for text in seen)] == []
