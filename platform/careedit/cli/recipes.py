"""Options that the training commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from careedit.cli.output import keeping, note

if TYPE_CHECKING:
    from careedit.finetune.loop import TrainConfig

RUNS = Path("runs/tiny")
"""Folder of runs if the caller names none."""
AGAIN = "what was finished is in the folder --out; run the same command again to go on."
"""What Ctrl-C leaves of a run."""
Out = Annotated[
    Path, typer.Option("--out", help="Folder of checkpoints, training data and results; a rerun continues there.")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Number of optimizer steps; default: the recipe's.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Number of CPU threads; default: torch's.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Number format of matrix products: float32 or bfloat16; default: the checkpoint's, or the faster one here.",
    ),
]


def set_threads(threads: int | None) -> None:
    """Limit torch to this number of CPU threads; None changes nothing."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


Device = Annotated[
    str | None, typer.Option("--device", help="Device to train on: cpu or cuda; default: a GPU if one is found.")
]


@contextmanager
def started(threads: int | None, dtype: str | None, device: str | None = None) -> Iterator[None]:
    """Run a recipe on `threads` CPU threads of `device` in the number format `dtype`, and report the format.

    Defaults: the faster format, and a GPU if one is found.
    """
    from careedit.finetune.precision import choose, using
    from careedit.loading import find_device

    set_threads(threads)
    with keeping(lambda: AGAIN), using(choose(str(find_device(device)), dtype)) as chosen:
        note(f"Number format: {chosen}.")
        yield


def settings(config: TrainConfig, steps: int | None, learning_rate: float | None = None) -> TrainConfig:
    """The recipe's settings, with the number of steps and the peak learning rate replaced if they are given."""
    given = {"steps": steps, "learning_rate": learning_rate}
    return replace(config, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
