"""Edits per second of the pipeline's workers, over those of a plain loop on one core."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from careedit.editing.base_model import use_threads
from careedit_eval.alignment import load_pictures
from careedit_eval.editors import EditWork, make_editor
from careedit_eval.pipeline import Runner, Store, evaluate
from careedit_eval.pipeline.plan import Plan, make_plan
from careedit_eval.records import Sample
from careedit_eval.suite import Arm, Part, Suite, Workers

BATCH = 2
"""The number of edits per task: few, so that no worker waits long for the last ones."""
WARM = 2
"""The number of batches per worker before the clock starts; workers load their models in the first."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Edits per second with one number of workers."""

    per_second: float
    """Edits per second of the pipeline, from plan to store, after its workers have loaded."""
    loop_per_second: float
    """Edits per second of the loop, the mean of before and after."""
    workers: int
    """The number of workers that edited."""

    @property
    def per_worker(self) -> float:
        """The share of the loop's rate that each worker reaches."""
        return self.per_second / self.workers / self.loop_per_second


def edit_throughput(rows: Path, folder: Path, *, workers: int, edits: int, expert_set: str) -> Throughput:
    """Edit the first `edits` rows of a parquet file by a loop, by Ray workers, and by the loop again.

    The workers also edit a few rows more, which are not counted: models are loaded meanwhile. Raises `CareEditError`.
    """
    plan = make_plan(_suite(rows, workers, edits + BATCH * WARM * workers, expert_set))
    (benchmark,) = plan.benchmarks
    samples = benchmark.samples[-edits:]
    before = _loop(plan.arms[0].arm, samples, folder)
    pipeline = _pipeline(plan, folder / f"store-{workers}", workers)
    after = _loop(plan.arms[0].arm, samples, folder)
    return Throughput(pipeline, 2 / (1 / before + 1 / after), workers)


def _suite(rows: Path, workers: int, edits: int, expert_set: str) -> Suite:
    return Suite(
        name="throughput",
        benchmarks=(Part(name="humanedit", options={"path": str(rows), "limit": edits}),),
        sets=(Arm(name="set", expert_set=expert_set, device="cpu", threads=1),),
        rows=(),
        metrics=(Part(name="nfe"),),
        primary="nfe",
        workers=Workers(edit=workers, score=1, edit_batch=BATCH, score_batch=1024),
    )


def _loop(arm: Arm, samples: Sequence[Sample], folder: Path) -> float:
    """A plain script: read, edit, write, one after another. Returns edits per second, without loading the model."""
    editor = make_editor(arm)

    def edit(sample: Sample) -> None:
        found = load_pictures(sample)
        mask = found.mask if sample.mask_given else None
        work = EditWork(sample.id, found.source, sample.instruction, mask, found.references, found.target, 0)
        editor.edit(work).image.save(folder / "loop.png")

    with use_threads(arm.threads):
        edit(samples[0])
        started = time.perf_counter()
        for sample in samples:
            edit(sample)
        return len(samples) / (time.perf_counter() - started)


def _pipeline(plan: Plan, folder: Path, workers: int) -> float:
    """Edits per second as they reach the store, from the moment when every worker is at work."""
    seen: list[tuple[int, float]] = []

    def done(stage: str, finished: int, _: int) -> None:
        if stage == "editing":
            seen.append((finished, time.perf_counter()))

    with cluster(workers + 1) as runner:
        evaluate(plan, Store(folder), runner, done=done)
    first = next(one for one in seen if one[0] >= BATCH * WARM * workers)
    return (seen[-1][0] - first[0]) / (seen[-1][1] - first[1])


@contextmanager
def cluster(cpus: int) -> Iterator[Runner]:
    """A `RayRunner` on the cluster that this process is connected to, or on its own cluster with this number of CPUs."""
    import ray

    from careedit_eval.pipeline.ray_data import RayRunner

    if ray.is_initialized():
        yield RayRunner()
        return
    # By default workers yield to everything else that runs here, and the loop does not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield RayRunner()
    finally:
        ray.shutdown()
