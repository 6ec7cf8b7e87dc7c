"""Options that the training commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from careedit.cli.output import note

if TYPE_CHECKING:
    from careedit.finetune.loop import TrainConfig

RUNS = Path("runs/tiny")
Out = Annotated[
    Path, typer.Option("--out", help="Folder of checkpoints, pools and results; a rerun goes on from them.")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps; default: the recipe's.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: torch's.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="Of matrix products: float32 or bfloat16; default: the faster one here, or the checkpoint's."
    ),
]


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def started(threads: int | None, dtype: str | None) -> Iterator[None]:
    """Runs a recipe on so many threads in the number format `dtype`, by default the faster one, and says which."""
    from careedit.finetune.precision import choose, using

    set_threads(threads)
    with using(choose("cpu", dtype)) as chosen:
        note(f"Number format: {chosen}.")
        yield


def settings(config: TrainConfig, steps: int | None, learning_rate: float | None = None) -> TrainConfig:
    """The recipe's settings, with another number of steps and another peak of the learning rate where they are given."""
    given = {"steps": steps, "learning_rate": learning_rate}
    return replace(config, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
