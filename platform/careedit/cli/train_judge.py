"""Train the judge."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit_json, note

app = typer.Typer()

RUNS = Path("runs/tiny")


@app.command()
def judge(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of checkpoints, pools and results; a rerun goes on from them.")
    ] = RUNS,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps; default: the recipe's.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: torch's.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Drawn training samples; default: the recipe's.")
    ] = None,
    expert_set: Annotated[
        str | None, typer.Option("--expert-set", help="Set whose own edits and previews are learned from as well.")
    ] = None,
    edits: Annotated[int, typer.Option("--edits", min=1, help="Training samples that the set edits.")] = 800,
    count: Annotated[int, typer.Option("--n", min=1, help="Test samples that the judge is measured on.")] = 240,
    as_json: JsonOption = False,
) -> None:
    """The small judge that answers whether an edit was done; --expert-set shows it that set's own edits."""
    import torch

    from careedit.editor import load_editor
    from careedit.training import judge as recipe
    from careedit.training.curve import check_curve
    from careedit.training.judge_report import make_judge

    if threads is not None:
        torch.set_num_threads(threads)
    check_curve()
    config = recipe.DEFAULT if steps is None else replace(recipe.DEFAULT, steps=steps)
    editor = None if expert_set is None else load_editor(expert_set, device="cpu")
    _, figures = make_judge(out, config, samples=samples or recipe.SAMPLES, editor=editor, edits=edits, count=count)
    told = {"drawn": "drawn edits", "edits": "the set's own edits"}
    for name, figure in figures.items():
        area = "not measured" if figure.auc is None else f"{figure.auc:.3f}"
        note(
            f"The judge is in {out / 'judge'}: on {told[name]} its AUC is {area} and its calibration error "
            f"{figure.ece:.3f}, over {figure.count}."
        )
    if as_json:
        emit_json({name: dataclasses.asdict(figure) for name, figure in figures.items()})
