"""Train the tiny family: VAE, base, experts; resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import emit_table, note, progress
from careedit.cli.recipes import RUNS, Dtype, Out, Steps, Threads, set_threads, settings, started
from careedit.errors import InputError
from careedit_tiny.cli import train_dino, train_judge, train_router

app = typer.Typer(no_args_is_help=True)
app.add_typer(train_router.app)
app.add_typer(train_judge.app)
app.add_typer(train_dino.app)


@app.command()
def vae(out: Out = RUNS, steps: Steps = None, threads: Threads = None, dtype: Dtype = None) -> None:
    """The VAE, from drawn scenes."""
    from careedit_tiny.recipes.vae import DEFAULT, make_vae

    with started(threads, dtype):
        _, quality = make_vae(out, settings(DEFAULT, steps))
    note(f"The VAE is in {out / 'vae'}: {quality:.1f} dB PSNR on test scenes.")


@app.command()
def decoder(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="A base whose VAE to take; default: the VAE in --out.")
    ] = None,
) -> None:
    """The VAE's decoder, further; latents stay as they are, so a base trained on them still fits."""
    from careedit_tiny.recipes.family import load_tiny_base, load_vae
    from careedit_tiny.recipes.vae import DECODER, make_decoder

    with started(threads, dtype):
        begin = load_vae(out) if start is None else load_tiny_base(start).vae
        _, quality = make_decoder(out, begin, settings(DECODER, steps))
    note(f"The decoder is in {out / 'decoder'}: {quality:.1f} dB PSNR on test scenes.")


@app.command()
def words(out: Out = RUNS, steps: Steps = None, threads: Threads = None, dtype: Dtype = None) -> None:
    """The base's T5: it learns what the words of instructions mean before it sees a picture."""
    from careedit_tiny.recipes.base.words import DEFAULT, make_words

    with started(threads, dtype):
        report = make_words(out, settings(DEFAULT, steps))
    note(f"The T5 is in {out / 'words'}; its loss at the end: {report.curve[-1][1]:.4f}.")


@app.command()
def base(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="A base of the same run to go on from, VAE included.")
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option("--heads", min=1, help="Widen or narrow --start to so many heads of 64 channels before."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Its peak; default: the recipe's.")
    ] = None,
) -> None:
    """The base: text encoders and transformer."""
    from careedit_tiny.recipes.base.train import DEFAULT
    from careedit_tiny.recipes.base.widen import with_heads
    from careedit_tiny.recipes.family import load_tiny_base, make_base

    if heads is not None and start is None:
        raise InputError("--heads changes a base that is there; name it with --start.")
    with started(threads, dtype):
        begin = None if start is None else load_tiny_base(start)
        make_base(
            out,
            settings(DEFAULT, steps, learning_rate),
            begin if begin is None or heads is None else with_heads(begin, heads),
        )
    note(f"The base is in {out / 'base'}.")


@app.command(name="all")
def all_parts(
    hours: Annotated[float, typer.Option("--budget-hours", min=0.01, help="Hours of training; pools come on top.")],
    out: Out = RUNS,
    threads: Threads = None,
    dtype: Dtype = None,
) -> None:
    """Every part of the tiny family from nothing, with as many steps as the budget has room for."""
    from careedit.finetune.curve import check_curve
    from careedit_tiny.recipes.whole import train_all

    check_curve()
    with started(threads, dtype):
        train_all(out, hours, note=note)
    note(f"All parts are in {out}; 'careedit train assemble FOLDER' makes an expert set of them.")


@app.command()
def assemble(
    destination: Annotated[Path, typer.Argument(help="Folder of the expert set; replaced as a whole.")],
    out: Out = RUNS,
) -> None:
    """Put the trained parts together as an expert set."""
    from careedit_tiny.recipes.family import assemble as put_together
    from careedit_tiny.recipes.router.run import put_into_set

    made = put_together(out, destination)
    if (out / "router").is_dir():
        made = put_into_set(out, destination)
    note(f"The expert set {made.name} ({made.sha256[:12]}) with {', '.join(made.names)} is in {destination}.")


@app.command()
def cards(
    destination: Annotated[Path, typer.Argument(help="Folder of the expert set.")],
    out: Out = RUNS,
    count: Annotated[int, typer.Option("--n", min=1, help="Test edits per expert.")] = 120,
    threads: Threads = None,
) -> None:
    """Measure an assembled set on test scenes and write its model cards."""
    from careedit.editor import load_editor
    from careedit_tiny.recipes.cards import sides_of, write_cards

    set_threads(threads)
    editor = load_editor(str(destination))
    sides = sides_of(editor)
    with progress("Measuring", total=len(sides) * len(editor.expert_set.names)) as bar:
        figures = write_cards(out, destination, sides, count, done=bar.advance)
    emit_table(("expert", *sides), [(name, *found.values()) for name, found in figures.items()])
