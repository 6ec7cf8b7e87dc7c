"""Runs stages with Ray Data 2.60, in fixed actor pools with blocks of a few items; one CPU stays free.

Two features of Ray Data are not used. Its checkpoints duplicate rows of sources that are not reads. Its `max_errored_blocks`
drops whole blocks and reports success; here errors are rows, and finished work is on disk by key. Columns hold bytes. Only the
driver writes, so workers share no storage except the images that are measured.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError

from careedit.errors import CareEditError, InputError
from careedit_eval.errors import RunError
from careedit_eval.pipeline.base import Stage, Work

COLUMN = "data"
"""The single column: pickled items, then pickled results."""
MOST_BLOCKS = 10_000
"""The maximum number of blocks of one execution; more items are put into larger blocks."""

SLOWEST_S = 3600.0
"""Seconds after which `run_in_workers` gives up an item: a large base loads and edits in minutes, without a GPU in more."""


class RayRunner:
    """Runs stages on the Ray cluster that this process is connected to, or starts one on this machine."""

    def __init__(self, address: str | None = None) -> None:
        """`address` is that of a cluster; None uses the one of the environment, or else starts one on this machine."""
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it has to say comes as an exception

    @property
    def has_gpus(self) -> bool:
        """Whether the cluster has GPUs."""
        return _resources().get("GPU", 0) > 0

    def fits(self, *stages: Stage) -> bool:
        """See `careedit_eval.pipeline.Runner`."""
        try:
            pool_sizes(stages, _resources())
        except InputError:
            return False
        return True

    def run(self, stage: Stage, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Results as blocks are finished. If a worker or node dies, the rest of its blocks is tried a second time."""
        if not items:
            return
        sizes = pool_sizes(stage.chain, _resources())
        blocks = min(MOST_BLOCKS, math.ceil(len(items) / stage.batch))
        with _settings(stage):
            rows = [{COLUMN: pickle.dumps(item)} for item in items]
            results: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=blocks)
            for one, size in zip(stage.chain, sizes, strict=True):
                results = _mapped(results, one, size, first=one is stage)
            try:
                for block in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
                    yield [pickle.loads(data) for data in block[COLUMN]]
            except ExecutionTimeoutError as error:
                raise RunError(
                    f"Nothing was finished in {stage.stall_timeout_s:g} s of {stage.name}; what is done is kept. Look at "
                    "the cluster (a worker may hang, or CPUs be taken), then run the same command again."
                ) from error
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, CareEditError):
                    raise cause from error
                raise RunError(
                    f"The cluster gave up {stage.name} ({' '.join(str(error).split())[-300:]}); what is done is kept, run the "
                    "same command again."
                ) from error


def run_in_workers(
    name: str, make: Callable[[], Work], items: Sequence[Any], *, workers: int, gpu: bool | None
) -> Iterator[list[Any]]:
    """Results of items by workers that take one at a time; the entry point of `careedit.runners`.

    `gpu`: each worker has a GPU (None: if the cluster has any). Raises `InputError` if so many workers do not fit.
    """
    runner = RayRunner()
    gpus = 1.0 if (runner.has_gpus if gpu is None else gpu) else 0.0
    return runner.run(Stage(name, make, 1, workers, gpus, SLOWEST_S), items)


def _mapped(items: ray.data.Dataset, stage: Stage, size: int, *, first: bool) -> ray.data.Dataset:
    """The results of a stage. What follows another stage gets items as they come if it writes them, else in batches."""
    return items.map_batches(
        Actor,
        fn_constructor_args=(stage.make, stage.batch),
        batch_size=None if first or stage.on_driver else stage.batch,
        compute=ActorPoolStrategy(size=size),
        # An actor on a GPU waits more than it computes, and one that writes waits for the disk; CPUs are for reading.
        num_cpus=0 if stage.num_gpus or stage.on_driver else 1,
        num_gpus=stage.num_gpus or None,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()} if stage.on_driver else None,
    )


class Actor:
    """The work of a stage in an actor."""

    def __init__(self, make: Callable[[], Work], batch: int) -> None:
        self._work, self._batch = make(), batch

    def __call__(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The results of a block's items, batch by batch."""
        items = [pickle.loads(data) for data in block[COLUMN]]
        for first in range(0, len(items), self._batch):
            results = self._work(items[first : first + self._batch])
            column = np.empty(len(results), object)
            column[:] = [pickle.dumps(result) for result in results]
            yield {COLUMN: column}


@contextmanager
def _settings(stage: Stage) -> Iterator[None]:
    """Ray Data's settings while a stage runs. Its own `copy` of them warns about settings that were not changed."""
    context = DataContext.get_current()
    wanted = {
        "max_errored_blocks": 0,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "execution_no_progress_timeout_s": stage.stall_timeout_s,
    }
    before = {name: getattr(context, name) for name in wanted}
    for name, value in wanted.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _resources() -> dict[str, float]:
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def pool_sizes(stages: Sequence[Stage], resources: dict[str, float]) -> list[int]:
    """The number of actors of stages that work at the same time; each takes what the ones before it leave.

    Raises `InputError` if the cluster lacks what they need.
    """
    left, sizes = dict(resources), []
    for stage in stages:
        size = 1 if stage.on_driver else pool_size(stage, left)
        sizes.append(size)
        if stage.num_gpus:
            left["GPU"] = left.get("GPU", 0) - size * stage.num_gpus
        elif not stage.on_driver:
            left["CPU"] = left.get("CPU", 0) - size
    return sizes


def pool_size(stage: Stage, resources: dict[str, float]) -> int:
    """The number of actors of a stage on a cluster with these resources; one CPU stays free to read and move blocks.

    Raises `InputError` if the cluster lacks what a stage needs, because Ray would wait for it.
    """
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    if stage.num_gpus:
        room = int(gpus / stage.num_gpus)
        if room < 1:
            raise InputError(
                f"A worker of {stage.name} wants {stage.num_gpus:g} GPUs, the cluster has {gpus:g}; ask for less."
            )
    else:
        room = max(0, int(cpus) - 1)
        if room < 1:
            raise InputError(f"{stage.name} needs a CPU and one that stays free, the cluster has {cpus:g}; give it 2.")
    if stage.workers is not None and stage.workers > room:
        raise InputError(
            f"{stage.workers} workers of {stage.name} were asked for, there is room for {room}; ask for less."
        )
    return stage.workers or room
