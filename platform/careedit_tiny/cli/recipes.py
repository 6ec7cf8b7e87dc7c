"""Train the models of the tiny family; each run can be resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit_json, emit_table, note, progress
from careedit.cli.recipes import RUNS, Device, Dtype, Out, Steps, Threads, set_threads, settings, started
from careedit.errors import InputError

app = typer.Typer(no_args_is_help=True)


@app.command()
def clip(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    count: Annotated[
        int, typer.Option("--n", min=10, help="Number of test scenes that retrieval is measured on.")
    ] = 500,
) -> None:
    """Train the tiny CLIP: the encoder of the learned router."""
    from careedit_tiny.recipes.clip import train as recipe

    with started(threads, dtype, device):
        _, figures = recipe.make_clip(out, settings(recipe.DEFAULT, steps), count=count)
    note(
        f"The CLIP is in {out / 'clip'}: recall at 1 is {figures.image_to_text_1:.1%} from picture to caption and "
        f"{figures.text_to_image_1:.1%} back, among {figures.count}; {figures.hard:.1%} against one word changed."
    )


@app.command()
def judge(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Number of drawn training samples; default: the recipe's.")
    ] = None,
    expert_set: Annotated[
        str | None,
        typer.Option("--expert-set", help="Expert set whose own edits and previews the judge learns from, too."),
    ] = None,
    edits: Annotated[
        int | None, typer.Option("--edits", min=1, help="Training samples that the set edits; default: the recipe's.")
    ] = None,
    count: Annotated[
        int, typer.Option("--n", min=1, help="Number of test samples that the judge is measured on.")
    ] = 240,
    as_json: JsonOption = False,
) -> None:
    """Train the tiny judge, which answers whether an edit is right; --expert-set adds that set's own edits."""
    from careedit.editor import load_editor
    from careedit.finetune.curve import check_curve
    from careedit.finetune.precision import training_device
    from careedit_tiny.recipes.judge import train as recipe
    from careedit_tiny.recipes.judge.report import make_judge

    check_curve()
    config = settings(recipe.DEFAULT, steps)
    with started(threads, dtype, device):
        editor = None if expert_set is None else load_editor(expert_set, device=training_device())
        _, figures = make_judge(
            out, config, samples=samples or recipe.SAMPLES, editor=editor, edits=edits or recipe.EDITS, count=count
        )
    named = {"drawn": "drawn edits", "edits": "the set's own edits"}
    for name, figure in figures.items():
        area = "not measured" if figure.auc is None else f"{figure.auc:.3f}"
        note(
            f"The judge is in {out / 'judge'}: on {named[name]} its AUC is {area} and its calibration error "
            f"{figure.ece:.3f}, over {figure.count}."
        )
    if as_json:
        emit_json({name: dataclasses.asdict(figure) for name, figure in figures.items()})


@app.command()
def dino(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    count: Annotated[
        int, typer.Option("--n", min=10, help="Number of test scenes whose nearest neighbours are measured.")
    ] = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Train the tiny DINO: image features for metrics, learned without labels."""
    from careedit.finetune.curve import check_curve
    from careedit_tiny.recipes.dino.report import PROPERTIES, make_dino
    from careedit_tiny.recipes.dino.train import DEFAULT

    check_curve()
    with started(threads, dtype, device):
        _, figures = make_dino(out, settings(DEFAULT, steps), count=count)
    found = ", ".join(f"{name} {figures.features[name]:.1%} ({figures.pixels[name]:.1%})" for name in PROPERTIES)
    note(f"The DINO is in {out / 'dino'}; right by nearest neighbours (in brackets, by raw pixels): {found}.")
    if as_json:
        emit_json(figures)


@app.command()
def half(
    out: Out = RUNS, steps: Steps = None, threads: Threads = None, dtype: Dtype = None, device: Device = None
) -> None:
    """Train the VAE's inner levels on scenes half as wide, from which 'vae' then starts."""
    from careedit_tiny.recipes.vae import HALF, make_half

    with started(threads, dtype, device):
        report = make_half(out, settings(HALF, steps))
    note(f"The inner levels are in {out / 'half'}; their loss at the end: {report.curve[-1][1]:.4f}.")


@app.command()
def vae(
    out: Out = RUNS, steps: Steps = None, threads: Threads = None, dtype: Dtype = None, device: Device = None
) -> None:
    """Train the VAE on drawn scenes, from the inner levels that 'half' left in --out if it did."""
    from careedit_tiny.recipes.vae import DEFAULT, make_vae

    with started(threads, dtype, device):
        _, quality = make_vae(out, settings(DEFAULT, steps))
    note(f"The VAE is in {out / 'vae'}: {quality:.1f} dB PSNR on test scenes.")


@app.command()
def decoder(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="A base whose VAE to use; default: the VAE in --out.")
    ] = None,
) -> None:
    """Train only the VAE's decoder further; latents do not change, so a base trained on them still fits."""
    from careedit_tiny.recipes.family import load_tiny_base, load_vae
    from careedit_tiny.recipes.vae import DECODER, make_decoder

    with started(threads, dtype, device):
        begin = load_vae(out) if start is None else load_tiny_base(start).vae
        _, quality = make_decoder(out, begin, settings(DECODER, steps))
    note(f"The decoder is in {out / 'decoder'}: {quality:.1f} dB PSNR on test scenes.")


@app.command()
def words(
    out: Out = RUNS, steps: Steps = None, threads: Threads = None, dtype: Dtype = None, device: Device = None
) -> None:
    """Train the base's T5 on the meaning of the words in instructions, before it sees an image."""
    from careedit_tiny.recipes.base.words import DEFAULT, make_words

    with started(threads, dtype, device):
        report = make_words(out, settings(DEFAULT, steps))
    note(f"The T5 is in {out / 'words'}; its loss at the end: {report.curve[-1][1]:.4f}.")


@app.command()
def base(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="A base of the same run to continue from, VAE included.")
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option("--heads", min=1, help="First widen or narrow --start to this number of heads of 64 channels."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak learning rate; default: the recipe's.")
    ] = None,
) -> None:
    """Train the base model: text encoders and transformer."""
    from careedit_tiny.recipes.base.train import DEFAULT
    from careedit_tiny.recipes.base.widen import with_heads
    from careedit_tiny.recipes.family import load_tiny_base, make_base

    if heads is not None and start is None:
        raise InputError("--heads changes an existing base; name it with --start.")
    with started(threads, dtype, device):
        begin = None if start is None else load_tiny_base(start)
        make_base(
            out,
            settings(DEFAULT, steps, learning_rate),
            begin if begin is None or heads is None else with_heads(begin, heads),
        )
    note(f"The base is in {out / 'base'}.")


@app.command(name="all")
def all_parts(
    minutes: Annotated[
        float,
        typer.Option("--budget-minutes", min=0.5, help="Minutes for everything: drawing, training and measuring."),
    ],
    out: Out = RUNS,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Train every model of the tiny family from nothing, with as many steps as the budget allows."""
    from careedit.finetune.curve import check_curve
    from careedit_tiny.recipes.whole import train_all

    check_curve()
    with started(threads, dtype, device):
        train_all(out, minutes, note=note)
    note(f"All parts are in {out}; 'careedit train assemble FOLDER' makes an expert set of them.")


@app.command()
def assemble(
    destination: Annotated[Path, typer.Argument(help="Folder of the expert set; an existing one is replaced.")],
    out: Out = RUNS,
) -> None:
    """Make an expert set of the trained models."""
    from careedit_tiny.recipes.family import assemble as put_together
    from careedit_tiny.recipes.router.run import put_into_set

    made = put_together(out, destination)
    if (out / "router").is_dir():
        made = put_into_set(out, destination)
    note(f"The expert set {made.name} ({made.sha256[:12]}) with {', '.join(made.names)} is in {destination}.")


@app.command()
def keep(
    destination: Annotated[Path, typer.Argument(help="Folder of what to keep; an existing one is replaced.")],
    out: Out = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Copy a run without its training data and checkpoints, with a summary; 'assemble --out' reads the copy."""
    from careedit_tiny.recipes.keep import SUMMARY
    from careedit_tiny.recipes.keep import keep as copy_results

    found = copy_results(out, destination)
    missing = ", ".join(found["missing"])
    note(
        f"{len(found['stages'])} recipes are in {destination}, summed up in {destination / SUMMARY}"
        f"{f'; not finished: {missing}' if missing else ''}."
    )
    if as_json:
        emit_json(found)


@app.command()
def cards(
    destination: Annotated[Path, typer.Argument(help="Folder of the expert set.")],
    out: Out = RUNS,
    count: Annotated[int, typer.Option("--n", min=1, help="Number of test edits per expert.")] = 120,
    threads: Threads = None,
) -> None:
    """Measure an assembled expert set on test scenes and write its model cards."""
    from careedit.editor import load_editor
    from careedit_tiny.recipes.cards import sides_of, write_cards

    set_threads(threads)
    with progress("Loading"):
        editor = load_editor(str(destination))
    sides = sides_of(editor)
    with progress("Measuring", total=len(sides) * len(editor.expert_set.names)) as bar:
        figures = write_cards(out, destination, sides, count, done=bar.advance)
    emit_table(("expert", *sides), [(name, *found.values()) for name, found in figures.items()])
