"""Train the judge."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit_json, note
from careedit.cli.recipes import RUNS, Dtype, Out, Steps, Threads, settings, started

app = typer.Typer()


@app.command()
def judge(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Drawn training samples; default: the recipe's.")
    ] = None,
    expert_set: Annotated[
        str | None, typer.Option("--expert-set", help="Set whose own edits and previews are learned from as well.")
    ] = None,
    edits: Annotated[
        int | None, typer.Option("--edits", min=1, help="Training samples that the set edits; default: the recipe's.")
    ] = None,
    count: Annotated[int, typer.Option("--n", min=1, help="Test samples that the judge is measured on.")] = 240,
    as_json: JsonOption = False,
) -> None:
    """The small judge that answers whether an edit was done; --expert-set shows it that set's own edits."""
    from careedit.editor import load_editor
    from careedit.finetune.curve import check_curve
    from careedit_tiny.recipes.judge import train as recipe
    from careedit_tiny.recipes.judge.report import make_judge

    check_curve()
    config = settings(recipe.DEFAULT, steps)
    with started(threads, dtype):
        editor = None if expert_set is None else load_editor(expert_set, device="cpu")
        _, figures = make_judge(
            out, config, samples=samples or recipe.SAMPLES, editor=editor, edits=edits or recipe.EDITS, count=count
        )
    told = {"drawn": "drawn edits", "edits": "the set's own edits"}
    for name, figure in figures.items():
        area = "not measured" if figure.auc is None else f"{figure.auc:.3f}"
        note(
            f"The judge is in {out / 'judge'}: on {told[name]} its AUC is {area} and its calibration error "
            f"{figure.ece:.3f}, over {figure.count}."
        )
    if as_json:
        emit_json({name: dataclasses.asdict(figure) for name, figure in figures.items()})
