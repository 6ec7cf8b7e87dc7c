"""How much memory a process takes for itself while something happens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 0.002
"""Seconds between two readings."""


@contextmanager
def growth(pid: int | None = None) -> Iterator[Callable[[], int]]:
    """A function that gives the bytes by which memory grew at most, so far, in the block; default: of this process.

    Pages of files do not count: the system drops them when memory is short, and they come back later (`VmHWM` counts that).
    """
    status, ended = Path(f"/proc/{pid or os.getpid()}/status"), threading.Event()

    def held() -> int:
        return int(status.read_text("utf-8").split("RssAnon:")[1].split()[0]) * 1024

    first = peak = held()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(EVERY_S):
            peak = max(peak, held())

    watcher = threading.Thread(target=watch, name="careedit-memory")
    watcher.start()
    try:
        yield lambda: max(peak, held()) - first
    finally:
        ended.set()
        watcher.join()
