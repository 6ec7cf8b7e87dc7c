"""What runs a stage: items in, results out, in any order. `LocalRunner` is a plain loop, for laptops and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Work(Protocol):
    """A stage's work on a few items. It catches what is wrong with one item: what it raises stops the run."""

    def __call__(self, items: Sequence[Any], /) -> list[Any]:
        """Results of the items, in any number."""
        ...


@dataclass(frozen=True)
class Stage:
    """One stage of an evaluation, the same for every runner."""

    name: str
    """What an error calls it: "editing", "measuring"."""
    make: Callable[[], Work]
    """Makes the work where it is done; can be pickled, and so can items and results."""
    batch: int
    """Items that travel together; what they make is on disk before the next ones."""
    workers: int | None = None
    """Workers, where the runner has several; None: as many as the machines have room for."""
    num_gpus: float = 0.0
    """The number of GPUs per worker; a fraction shares a GPU."""
    stall_timeout_s: float = 600.0
    """Seconds without a finished batch after which `RunError` is raised."""


class Runner(Protocol):
    """Runs stages."""

    @property
    def has_gpus(self) -> bool:
        """Whether workers may have GPUs."""
        ...

    def run(self, stage: Stage, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Results as they are done, batch by batch. Raises `RunError` where it cannot go on."""
        ...


class LocalRunner:
    """Runs stages here, one batch after another."""

    @property
    def has_gpus(self) -> bool:
        """Whether torch sees a GPU."""
        import torch

        return torch.cuda.is_available()

    def run(self, stage: Stage, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Results of one batch after another; a loop that hangs is the user's to interrupt."""
        if not items:
            return
        work = stage.make()
        for first in range(0, len(items), stage.batch):
            yield work(items[first : first + stage.batch])
