"""The memory of a run and the seconds to resume one, by the number of rows; each run in its own process."""

from __future__ import annotations

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.runs import save_run
from careedit_eval.suite import Arm, Part, Suite, Workers


@dataclass(frozen=True, slots=True)
class Growth:
    """The memory and seconds of one run in a new process."""

    rows: int
    """The number of rows of its benchmark."""
    edited: int
    """The number of edits that it made."""
    seconds: float
    """The seconds from reading the benchmark to the run's folder, without imports."""
    peak_bytes: int
    """The peak memory of the process in bytes."""


def grow(rows: Path, folder: Path, count: int, name: str) -> Growth:
    """Evaluate the first `count` rows of a parquet file, nothing but measured: without a model, what grows is the run's.

    `folder` keeps store and run; a second call resumes what the first one finished.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_grow, rows, folder, count, name).result()


def _grow(rows: Path, folder: Path, count: int, name: str) -> Growth:
    suite = Suite(
        name="growth",
        benchmarks=(Part(name="humanedit", options={"path": str(rows), "limit": count}),),
        sets=(Arm(name="identity", kind="identity"),),
        rows=(),
        metrics=(Part(name="l1"), Part(name="l2")),
        primary="l1",
        workers=Workers(edit_batch=100, score_batch=100),
    )
    started = time.perf_counter()
    store = Store(folder / "store")
    found = evaluate(make_plan(suite), store, LocalRunner())
    seconds = time.perf_counter() - started
    place = folder / "runs" / name
    save_run(place, found, store=store.folder, suite_folder=folder, trigger="manual", seconds=seconds)
    return Growth(len(found.table.edits), found.edited, time.perf_counter() - started, _peak())


def _peak() -> int:
    """Bytes. Linux keeps `ru_maxrss` across exec, so a child would see its parent's value; `VmHWM` is its own."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text("ascii", "replace").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
