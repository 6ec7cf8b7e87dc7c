"""Train experts and routers on your own data, and the models of installed packages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from careedit import plugins
from careedit.cli.output import DeviceOption, JsonOption, emit, emit_json, emit_table, keeping, note, progress
from careedit.cli.recipes import AGAIN, RUNS, Device, Dtype, Out, Steps, Threads, set_threads, started
from careedit.errors import InputError

NAMED = 20
"""Number of bad rows that are named one by one; problems.csv lists all of them."""

app = typer.Typer(no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train experts and routers on your own data, and the models of installed packages."""


@app.command()
def expert(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="A recipe of an installed package, without --data; the tiny family has erase, compose, style, identity, "
            "reference, and unified, their baseline.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Your rows: metadata.jsonl, metadata.csv or parquet, as a file or its folder.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base: an expert set's name or folder, a model's folder, or a hub id.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new expert: a-z, 0-9, _ and -.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; a rerun continues there. Required with --data.")
    ] = None,
    steps: Steps = None,
    threads: Threads = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA, 1 to 1024; default 16.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows per optimizer step; default 8.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="Peak learning rate; default: the recipe's, and for own rows 2e-3 (small base) or 1e-4 (large base).",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed of weights, order and noise; default 0.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="source=A,instruction=B,target=C,...: only for column names that are not recognised."),
    ] = None,
    on_bad: Annotated[str | None, typer.Option(help="Bad rows: refuse (default; nothing is trained) or skip.")] = None,
    align: Annotated[
        str | None,
        typer.Option(help="Targets whose shape differs from their source's: refuse (default), stretch or crop."),
    ] = None,
    masks: Annotated[bool | None, typer.Option("--masks/--no-masks", help="Use the mask column; default: yes.")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of rows kept for the validation loss; default 0.05.")
    ] = None,
    panel: Annotated[
        int | None,
        typer.Option(
            "--panel-size", min=16, help="Panel side for a base without a set; default 512 for FLUX.1-Fill, else 1024."
        ),
    ] = None,
    max_sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Text tokens for a base without a set; default: the family's maximum.")
    ] = None,
    device: DeviceOption = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Number format of matrix products and of the frozen base: float32 or bfloat16; default: the faster one "
            "here."
        ),
    ] = None,
    checkpoint_gradients: Annotated[
        bool | None,
        typer.Option("--checkpoint-gradients", help="Use less memory and more time: compute activations again."),
    ] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds between checkpoints; default 60.")
    ] = None,
    competence: Annotated[
        str | None, typer.Option(help="For the manifest: what the expert is for, in one word; default: its name.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="For the manifest: one sentence.")] = None,
    handles: Annotated[
        str | None, typer.Option(help="For the manifest: edit kinds and keywords, comma separated.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="For the manifest: licence of the weights.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train one LoRA expert on a frozen base: on your own rows (--data), or by a packaged RECIPE.

    Rows have source, instruction and target, and optionally mask and reference. The expert is written to --out, in the
    form that `careedit experts add` reads. The memory that the run needs is shown before it starts.
    """
    given = {key: value for key, value in locals().items() if value is not None}
    for key in ("recipe", "threads", "as_json"):
        given.pop(key, None)
    if (recipe is None) == (data is None):
        what = "Neither a RECIPE nor --data is" if recipe is None else f"Both the recipe {recipe!r} and --data are"
        raise InputError(f"{what} given; name a recipe, or give your own rows with --data.")
    if data is not None:
        set_threads(threads)
        train_own(given, as_json=as_json)
        return
    for key in sorted({*given} - {"out", "steps", "learning_rate", "dtype", "device"}) + ["json"] * as_json:
        option = "panel-size" if key == "panel" else key.replace("_", "-")
        raise InputError(f"--{option} is for own rows (--data); a recipe has its own settings.")
    train_recipe = _recipe(str(recipe))
    with started(threads, dtype, device):
        path = train_recipe(out, steps, learning_rate)
    note(f"The expert is in {path}.")


@app.command()
def router(
    out: Out = RUNS,
    steps: Steps = None,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    expert_set: Annotated[
        Path | None, typer.Option(help="Teach the router of this local set new experts from --examples.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="JSON lines with instruction, image, expert, and optionally mask and reference.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out examples that cannot be used.")] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Without --expert-set: folder or open_clip name; default: the CLIP in --out.")
    ] = None,
    outcomes_of: Annotated[
        str | None,
        typer.Option("--outcomes", help="Without --expert-set: set whose measured edits teach a second stage."),
    ] = None,
    count: Annotated[int, typer.Option("--n", min=1, help="Number of training edits measured for --outcomes.")] = 240,
    as_json: JsonOption = False,
) -> None:
    """Teach the router of an expert set new experts (--expert-set, --examples), or train one by a packaged recipe."""
    if (expert_set is None) != (examples is None):
        raise InputError("--expert-set and --examples belong together; give both or neither.")
    recipes = [plugins.load(plugins.ROUTERS, name, error=InputError)() for name in plugins.names(plugins.ROUTERS)]
    with started(threads, dtype, device):
        if expert_set is not None and examples is not None:
            _teach(expert_set, examples, out, steps, recipes, skip_bad=skip_bad, as_json=as_json)
            return
        if not recipes:
            raise InputError("No installed package trains a router from nothing; give --expert-set and --examples.")
        quality = recipes[0].train(out, encoder, steps, outcomes_of, count)
    note(f"The router is in {out / 'router'}: {quality}.")
    if as_json:
        emit_json(quality)


def _teach(
    expert_set: Path, examples: Path, out: Path, steps: int | None, recipes: list[Any], *, skip_bad: bool, as_json: bool
) -> None:
    from careedit.finetune.router.examples import read_examples
    from careedit.finetune.router.teach import teach

    found, bad = read_examples(examples, skip_bad=skip_bad)
    for line in bad:
        note(f"Line {line.line} of {examples.name} is left out: {line.reason}")
    taught = teach(expert_set, found, out, steps=steps, rehearsals=[recipe.rehearsal for recipe in recipes])
    note(
        f"The router of {expert_set} knows {', '.join(taught.new)} now: right in {taught.new_after:.1%} of held-back "
        f"examples; for the old experts in {taught.old_after:.1%}, before in {taught.old_before:.1%}."
    )
    if as_json:
        emit_json({**dataclasses.asdict(taught), "skipped": len(bad)})


def _recipe(name: str) -> plugins.ExpertRecipe:
    """The recipe of an installed package. Raises `InputError` if no package has one of that name."""
    found: dict[str, plugins.ExpertRecipe] = {}
    for provider in plugins.names(plugins.RECIPES):
        found |= plugins.load(plugins.RECIPES, provider, error=InputError)()
    if name not in found:
        raise InputError(
            f"No installed package has a recipe for the expert {name!r}; the recipes are {', '.join(found)}."
        )
    return found[name]


def train_own(options: dict[str, Any], *, as_json: bool) -> None:
    """Train on own rows. `options` are the command's options that were given, named as the fields of `OwnRun`."""
    from careedit.cli.editors import quieten
    from careedit.finetune.data import parse_columns
    from careedit.finetune.run import OwnRun, run

    for needed in ("name", "base", "out"):
        if needed not in options:
            raise InputError(f"--{needed} is missing; with --data, give --base, --name and --out.")
    for option, known in (("on_bad", ("refuse", "skip")), ("align", ("refuse", "stretch", "crop"))):
        if options.get(option, known[0]) not in known:
            raise InputError(f"--{option.replace('_', '-')} is {options[option]!r}; use {', '.join(known)}.")
    handles = tuple(filter(None, (kind.strip() for kind in options.pop("handles", "").split(","))))
    columns = parse_columns(options.pop("columns", ""))
    data = Path(options.pop("data"))
    quieten()
    wanted = OwnRun(data=data, columns=columns, handles=handles, **options)
    with keeping(lambda: AGAIN):
        result = run(wanted, checking=_checking, report_problems=_show_problems, note=note)
    if as_json:
        emit_json({"folder": wanted.out, "manifest": result.manifest, **result.document})
        return
    emit_table(("rows", "count"), result.plan.summary())
    loss = result.trained.report.curve[-1][1]
    emit(f"Training loss at the end: {loss:.4f}.")
    if result.trained.validation:
        before, after = result.trained.validation
        emit(f"Loss on held-out rows: {after:.4f}; with the base alone: {before:.4f}.")
    emit(f"The expert {wanted.name} is in {wanted.out}.")
    note(f"Next: careedit experts add {wanted.out} --expert-set SET, where SET is a folder (careedit experts copy).")


def _show_problems(problems: Any) -> None:
    for problem in problems[:NAMED]:
        note(f"bad {problem}")
    if len(problems) > NAMED:
        note(f"... and {len(problems) - NAMED} more bad rows; problems.csv lists them all.")


@contextmanager
def _checking(rows: int) -> Iterator[Callable[[], None]]:
    """A progress bar over the rows; its value counts one row."""
    with progress("Checking rows", rows) as bar:
        yield bar.advance


for _provider in plugins.names(plugins.TRAIN):
    app.add_typer(plugins.load(plugins.TRAIN, _provider))
