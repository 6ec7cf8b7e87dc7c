"""Train the picture features that metrics compare."""

from __future__ import annotations

from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit_json, note
from careedit.cli.recipes import RUNS, Dtype, Out, Steps, Threads, settings, started

app = typer.Typer()


@app.command()
def dino(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    count: Annotated[int, typer.Option("--n", min=10, help="Test scenes whose neighbours are looked for.")] = 1_000,
    as_json: JsonOption = False,
) -> None:
    """The small DINO: picture features for metrics, learned without labels."""
    from careedit.finetune.curve import check_curve
    from careedit_tiny.recipes.dino.report import PROPERTIES, make_dino
    from careedit_tiny.recipes.dino.train import DEFAULT

    check_curve()
    with started(threads, dtype):
        _, figures = make_dino(out, settings(DEFAULT, steps), count=count)
    found = ", ".join(f"{name} {figures.features[name]:.1%} ({figures.pixels[name]:.1%})" for name in PROPERTIES)
    note(f"The DINO is in {out / 'dino'}; right by nearest neighbours (in brackets, by raw pixels): {found}.")
    if as_json:
        emit_json(figures)
