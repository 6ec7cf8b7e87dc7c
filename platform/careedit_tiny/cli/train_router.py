"""Train the learned router and the encoder that it reads through."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit_json, note
from careedit.cli.recipes import RUNS, Dtype, Out, Steps, Threads, settings, started
from careedit.errors import InputError

app = typer.Typer()


@app.command()
def clip(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    count: Annotated[int, typer.Option("--n", min=10, help="Test scenes that retrieval is measured on.")] = 500,
) -> None:
    """The small CLIP: the learned router's encoder."""
    from careedit_tiny.recipes.clip import train as recipe

    with started(threads, dtype):
        _, figures = recipe.make_clip(out, settings(recipe.DEFAULT, steps), count=count)
    note(
        f"The CLIP is in {out / 'clip'}: recall at 1 is {figures.image_to_text_1:.1%} from picture to caption and "
        f"{figures.text_to_image_1:.1%} back, among {figures.count}; {figures.hard:.1%} against one word changed."
    )


@app.command()
def router(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Folder or open_clip name; default: the CLIP in --out.")
    ] = None,
    outcomes_of: Annotated[
        str | None, typer.Option("--outcomes", help="Expert set whose measured edits teach a second stage.")
    ] = None,
    count: Annotated[int, typer.Option("--n", min=1, help="Training edits that outcomes are measured on.")] = 240,
    expert_set: Annotated[
        Path | None, typer.Option("--expert-set", help="Teach this local set's router new experts, from --examples.")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option("--examples", help="JSON lines: instruction, image, expert, and mask and reference where given."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out examples that cannot be used.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The learned router; with --expert-set, new experts for the router of a set."""
    if (expert_set is None) != (examples is None):
        raise InputError("--expert-set and --examples belong together; give both or neither.")
    if expert_set is not None and examples is not None:
        with started(threads, dtype):
            _teach(expert_set, examples, out, steps, skip_bad=skip_bad, as_json=as_json)
        return
    from careedit.encoders import load_encoder
    from careedit_tiny.recipes.router.run import train_router

    folder = out / "clip"
    if encoder is None and not folder.is_dir():
        raise InputError(
            f"There is no encoder in {folder}; run 'careedit train clip' first, or name one with --encoder."
        )
    with started(threads, dtype):
        _, quality = train_router(
            out, load_encoder(encoder or folder), steps=steps, outcomes_of=outcomes_of, outcomes=count
        )
    note(f"The router is in {out / 'router'}: {quality}.")
    if as_json:
        emit_json(quality)


def _teach(expert_set: Path, examples: Path, out: Path, steps: int | None, *, skip_bad: bool, as_json: bool) -> None:
    from careedit_tiny.recipes.router.examples import read_examples
    from careedit_tiny.recipes.router.teach import teach

    found, bad = read_examples(examples, skip_bad=skip_bad)
    for line in bad:
        note(f"Line {line.line} of {examples.name} is left out: {line.reason}")
    taught = teach(expert_set, found, out, steps=steps)
    note(
        f"The router of {expert_set} knows {', '.join(taught.new)} now: right in {taught.new_after:.1%} of held-back "
        f"examples; for the old experts in {taught.old_after:.1%}, before in {taught.old_before:.1%}."
    )
    if as_json:
        emit_json({**dataclasses.asdict(taught), "skipped": len(bad)})
