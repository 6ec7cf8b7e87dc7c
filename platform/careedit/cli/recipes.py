"""Options that the training commands share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from careedit.training.loop import TrainConfig

RUNS = Path("runs/tiny")
Out = Annotated[
    Path, typer.Option("--out", help="Folder of checkpoints, pools and results; a rerun goes on from them.")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps; default: the recipe's.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: torch's.")]


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def with_steps(config: TrainConfig, steps: int | None) -> TrainConfig:
    """The recipe's settings, with another number of steps where one is given."""
    return config if steps is None else replace(config, steps=steps)


def with_rate(config: TrainConfig, learning_rate: float | None) -> TrainConfig:
    """The recipe's settings, with another peak of the learning rate where one is given."""
    return config if learning_rate is None else replace(config, learning_rate=learning_rate)
