"""What a command says while it works, on stderr: notes, and how far it is. With `--quiet` it says nothing.

On a terminal, progress is a bar that disappears at the end. Elsewhere, such as in a log, it is a plain line after five seconds
and then every half minute, also while the work makes no visible step.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

FIRST_S = 5.0
"""Seconds until the first line of progress, if stderr is not a terminal; shorter work writes none."""
LINE_S = 30.0
"""Seconds between two lines of progress, if stderr is not a terminal."""
BAR_S = 0.5
"""Seconds until a bar appears on a terminal; shorter work shows none."""

_quiet = False
Item = TypeVar("Item")


def set_quiet(quiet: bool) -> None:
    """Whether notes and progress are left out from now on, in this process."""
    global _quiet  # one process has one stderr
    _quiet = quiet


def note(text: str) -> None:
    """Write one line to stderr that is not part of the result, e.g. where a file was written."""
    if not _quiet:
        sys.stderr.write(f"{text}\n")


class Bar:
    """How far a piece of work is."""

    def __init__(self, description: str, total: float | None = None, shown: Progress | None = None) -> None:
        """`total` is in steps of `advance`; None if it is unknown. `shown` draws the bar; None: nothing is drawn."""
        self._description, self._total, self._done = description, total, 0.0
        self._begun = time.monotonic()
        self._shown = shown
        self._task = None if shown is None else shown.add_task(escaped(description), total=total)

    @property
    def line(self) -> str:
        """The progress as a line of a log: the share that is done, or the seconds so far if the total is unknown."""
        far = f"{self._done / self._total:.0%}" if self._total else f"{time.monotonic() - self._begun:.0f} s"
        return f"{self._description} ({far})"

    def advance(self, steps: float = 1) -> None:
        """Count `steps` more as done."""
        self._done += steps
        if self._shown is not None and self._task is not None:
            self._shown.advance(self._task, steps)

    def describe(self, text: str) -> None:
        """Replace the text before the bar."""
        self._description = text
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, description=escaped(text))


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Bar]:
    """Say on stderr how far the work in the block is. `total` is in steps of `Bar.advance`; None if it is unknown."""
    if _quiet:
        yield Bar(description, total)
    elif sys.stderr.isatty():
        with _drawn() as shown:
            yield Bar(description, total, shown)
    else:
        bar, ended = Bar(description, total), threading.Event()
        thread = threading.Thread(target=_write_lines, args=(bar, ended), daemon=True, name="careedit-progress")
        thread.start()
        try:
            yield bar
        finally:
            ended.set()
            thread.join()


def counted(items: Iterable[Item], description: str, total: float | None = None) -> Iterator[Item]:
    """The items, with progress by their number; `total` is by default their length, if they have one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as bar:
        for item in items:
            yield item
            bar.advance()


@contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C in the block end the command with `kept()`: a sentence that says what is kept and how to go on.

    Of blocks inside each other, the innermost knows best.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(kept())
        raise


def escaped(text: str) -> str:
    """`text` without rich markup; an instruction may contain brackets."""
    return text.replace("[", r"\[")


def _write_lines(bar: Bar, ended: threading.Event) -> None:
    wait = FIRST_S
    while not ended.wait(wait):
        note(bar.line)
        wait = LINE_S


@contextmanager
def _drawn() -> Iterator[Progress]:
    """A progress display that appears after `BAR_S` seconds."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    later = threading.Timer(BAR_S, shown.start)
    later.daemon = True
    later.start()
    try:
        yield shown
    finally:
        later.cancel()
        later.join()
        if shown.live.is_started:
            shown.stop()
