"""Results go to stdout, the rest to stderr; JSON is strict."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from careedit import progress as shown
from careedit.cli.output import Bar, emit, emit_json, emit_table, note, progress
from careedit.progress import counted
from careedit.records import RoutingDecision


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    at: Path


def test_json_understands_records_dataclasses_paths_and_sets(capsys):
    decision = RoutingDecision(weights={"erase": 1.0}, router="fixed", reason="löschen")
    emit_json({"routing": decision, "point": Point(1, Path("a/b")), "names": {"b", "a"}, "pair": (1, 2)})
    shown = capsys.readouterr()
    assert shown.err == ""
    document = json.loads(shown.out)
    assert document["routing"]["weights"] == {"erase": 1.0}
    assert document["routing"]["reason"] == "löschen"
    assert (document["point"], document["names"], document["pair"]) == ({"x": 1, "at": "a/b"}, ["a", "b"], [1, 2])


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), (object(), TypeError)]
)
def test_json_refuses_what_json_cannot_say(value, error, capsys):
    with pytest.raises(error):
        emit_json({"value": value})
    assert capsys.readouterr().out == ""


def test_a_piped_table_is_tab_separated_and_keeps_brackets(capsys):
    emit_table(["name", "rank"], [["[red] erase", 8], ["style", 64]])
    assert capsys.readouterr().out == "name\trank\n[red] erase\t8\nstyle\t64\n"


def test_a_table_on_a_terminal_shows_every_cell(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    emit_table(["name", "rank"], [["[red]erase", 8]])
    shown = capsys.readouterr().out
    assert "[red]erase" in shown
    assert "rank" in shown


def test_results_and_notes_go_to_different_streams(capsys):
    emit("result")
    note("wrote out.png")
    assert capsys.readouterr() == ("result\n", "wrote out.png\n")


def test_progress_of_a_short_command_is_silent_without_a_terminal(capsys):
    with progress("Editing", total=2) as bar:
        bar.advance()
        bar.describe("Still editing")
    assert capsys.readouterr() == ("", "")


def test_a_log_has_plain_lines_of_progress_also_while_nothing_advances(capsys, monkeypatch):
    written = threading.Semaphore(0)
    lines = []

    def note(text):
        lines.append(text)
        written.release()

    for name in ("FIRST_S", "LINE_S"):
        monkeypatch.setattr(shown, name, 0.01)
    monkeypatch.setattr(shown, "note", note)
    with progress("Loading"):
        assert written.acquire(timeout=30) and written.acquire(timeout=30)
    assert lines[:2] == ["Loading (0 s)"] * 2


def test_a_line_of_progress_says_the_share_that_is_done():
    bar = Bar("Editing", total=2)
    bar.advance()
    assert bar.line == "Editing (50%)"
    bar.describe("Editing [1]")
    assert bar.line == "Editing [1] (50%)"


def test_progress_shows_on_a_terminals_stderr_only(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shown, "BAR_S", 0.0)
    drawn = threading.Event()
    start = shown.Progress.start
    monkeypatch.setattr(shown.Progress, "start", lambda bar: (start(bar), drawn.set()))
    monkeypatch.setenv("TERM", "xterm")
    with progress("Editing [1]", total=2) as bar:
        assert drawn.wait(30)
        bar.advance(2)
    found = capsys.readouterr()
    assert found.out == ""
    assert "Editing [1]" in found.err


def test_work_that_ends_soon_draws_nothing_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(counted("ab", "Editing")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_quiet_leaves_notes_and_progress_out(capsys, monkeypatch):
    monkeypatch.setattr(shown, "_quiet", True)
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        with progress("Editing", total=1) as bar:
            bar.advance()
            note("wrote out.png")
    emit("result")
    assert capsys.readouterr() == ("result\n", "")


def test_a_result_is_in_a_pipe_before_the_command_ends():
    going = "from careedit.cli.output import emit; import sys; emit('here'); sys.stdin.read()"
    command = [sys.executable, "-c", going]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        process.stdin.close()
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_the_command_without_a_word():
    read, write = os.pipe()
    os.close(read)
    listing = "import sys; from careedit.cli.main import main; sys.exit(main(['experts', 'list', '--json']))"
    ended = subprocess.run(
        [sys.executable, "-c", listing], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (ended.returncode, "Pipe" in ended.stderr, "Traceback" in ended.stderr) == (1, False, False)
