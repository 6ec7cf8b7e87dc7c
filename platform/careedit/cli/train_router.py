"""Train the learned router and the encoder that it reads through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import note

app = typer.Typer()

RUNS = Path("runs/tiny")
Out = Annotated[
    Path, typer.Option("--out", help="Folder of checkpoints, pools and results; a rerun goes on from them.")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps; default: the recipe's.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: torch's.")]


def _threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


@app.command()
def clip(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    count: Annotated[int, typer.Option("--n", min=10, help="Test scenes that retrieval is measured on.")] = 500,
) -> None:
    """The small CLIP: the learned router's encoder."""
    from careedit.encoders import OpenClipEncoder
    from careedit.tiny.clip import tokenizer
    from careedit.training import clip as recipe
    from careedit.training.family import LICENCE

    _threads(threads)
    config = recipe.DEFAULT if steps is None else replace(recipe.DEFAULT, steps=steps)
    model, report = recipe.train_clip(out, config)
    figures = recipe.measure(OpenClipEncoder(model, tokenizer()), count)
    recipe.save(model, report, out, figures, licence=LICENCE)
    note(
        f"The CLIP is in {out / 'clip'}: recall at 1 is {figures.image_to_text_1:.1%} from picture to caption and "
        f"{figures.text_to_image_1:.1%} back, among {figures.count}; {figures.hard:.1%} against one word changed."
    )
