"""A plain loop in this process: for laptops, tests, and to compare Ray Data with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from careedit_eval.pipeline.base import Stage


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
