"""Runners of a stage: items in, results out, in any order. `LocalRunner` is a plain loop, for laptops and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from careedit_eval.errors import RunError


class Work(Protocol):
    """A stage's work on a few items. It handles the errors of single items; an exception stops the run."""

    def __call__(self, items: Sequence[Any], /) -> list[Any]:
        """Results of the items, in any number."""
        ...


@dataclass(frozen=True)
class Stage:
    """One stage of an evaluation, the same for every runner."""

    name: str
    """The name of the stage in errors, such as "editing" or "measuring"."""
    make: Callable[[], Work]
    """Makes the work in the worker. It must be picklable, and so must items and results."""
    batch: int
    """The number of items per task. Their results are stored before the next task."""
    workers: int | None = None
    """The number of workers, if the runner has several; None means as many as fit."""
    num_gpus: float = 0.0
    """The number of GPUs per worker; a fraction shares a GPU."""
    stall_timeout_s: float = 600.0
    """Seconds without a finished batch after which `RunError` is raised."""
    on_driver: bool = False
    """Whether the stage has one worker on the driver's node, because it writes files there."""
    then: Stage | None = None
    """The stage that gets the results of this one as its items; None if they are the results of the run."""

    @property
    def chain(self) -> tuple[Stage, ...]:
        """This stage and all that follow it."""
        return (self, *(() if self.then is None else self.then.chain))


class Runner(Protocol):
    """Runs stages."""

    @property
    def has_gpus(self) -> bool:
        """Whether workers may have GPUs."""
        ...

    def fits(self, *stages: Stage) -> bool:
        """Whether all these stages can have their workers at the same time."""
        ...

    def run(self, stage: Stage, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Results of the last stage that follows `stage`, batch by batch as they are finished.

        Raises `RunError` if it cannot continue.
        """
        ...


class LocalRunner:
    """Runs stages here, one batch after another."""

    @property
    def has_gpus(self) -> bool:
        """Whether torch sees a GPU."""
        import torch

        return torch.cuda.is_available()

    def fits(self, *stages: Stage) -> bool:
        """False for more than one stage: a loop does one thing at a time, and has room for one model."""
        return len(stages) == 1

    def run(self, stage: Stage, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Results of one batch after another; a loop that hangs must be interrupted by the user."""
        if stage.then is not None:
            raise RunError(
                f"A loop runs one stage, and {stage.then.name} follows {stage.name}; run them with Ray Data."
            )
        if not items:
            return
        work = stage.make()
        for first in range(0, len(items), stage.batch):
            yield work(items[first : first + stage.batch])
