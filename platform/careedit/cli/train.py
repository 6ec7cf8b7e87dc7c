"""Train experts on your own rows, and whatever else installed packages can train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from careedit import plugins
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit.cli.recipes import Steps, Threads, set_threads, started
from careedit.errors import InputError

NAMED = 20
"""Bad rows that are named one by one; problems.csv lists them all."""

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", help="Your rows: a folder with metadata.jsonl or metadata.csv, or parquet; a file or folder."
    ),
]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="An expert set's name or folder, a base's folder, or a hub id.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the new expert: a-z, 0-9, _ and -.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", help="source=A,instruction=B,target=C,...: needed for unknown names only.")
]
OnBadOption = Annotated[
    str | None, typer.Option("--on-bad", help="Bad rows: refuse (default; nothing is trained), or skip and count them.")
]
AlignOption = Annotated[
    str | None,
    typer.Option("--align", help="Targets of another shape than their source: refuse (default), stretch or crop."),
]
MasksOption = Annotated[bool | None, typer.Option("--masks/--no-masks", help="Use the mask column; default: yes.")]
HeldOutOption = Annotated[
    float | None, typer.Option("--held-out", help="Share of rows for the validation loss; default 0.05.")
]
RankOption = Annotated[int | None, typer.Option("--rank", help="Rank of the LoRA, 1 to 1024; default 16.")]
BatchOption = Annotated[int | None, typer.Option("--batch", min=1, help="Rows per step; default 8.")]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate", min=1e-9, help="Peak; default: the recipe's; for own rows 2e-3 (small base) or 1e-4 (large)."
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of start, order and noise; default 0.")]
PanelOption = Annotated[
    int | None, typer.Option("--panel-size", min=16, help="Panel side for a base without a set; default 512.")
]
LengthOption = Annotated[
    int | None, typer.Option("--max-sequence-length", min=1, help="T5 tokens for a base without a set; default 512.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one.")]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="float32 or bfloat16, of matrix products and, with --data, of the frozen base; default: the faster one here.",
    ),
]
GradientsOption = Annotated[
    bool | None, typer.Option("--checkpoint-gradients", help="Less memory for more time: recompute activations.")
]
SecondsOption = Annotated[
    float | None, typer.Option("--checkpoint-seconds", min=0, help="Seconds between checkpoints; default 60.")
]
CompetenceOption = Annotated[
    str | None, typer.Option("--competence", help="For the manifest: what it is for, in a word; default: its name.")
]
DescriptionOption = Annotated[str | None, typer.Option("--description", help="For the manifest: one sentence.")]
HandlesOption = Annotated[
    str | None, typer.Option("--handles", help="For the manifest: edit kinds and keywords, comma separated.")
]
LicenceOption = Annotated[str | None, typer.Option("--licence", help="For the manifest: licence of the weights.")]


app = typer.Typer(no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train experts on your own rows; and the packaged models, with the packages that have their recipes."""


@app.command()
def expert(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="Of the tiny family: erase, compose, style, identity or reference; or unified, their baseline.",
        ),
    ] = None,
    data: DataOption = None,
    base: BaseOption = None,
    name: NameOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; a rerun goes on from it. Needed with --data.")
    ] = None,
    steps: Steps = None,
    threads: Threads = None,
    rank: RankOption = None,
    batch: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = None,
    columns: ColumnsOption = None,
    on_bad: OnBadOption = None,
    align: AlignOption = None,
    masks: MasksOption = None,
    held_out: HeldOutOption = None,
    panel: PanelOption = None,
    max_sequence_length: LengthOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    checkpoint_gradients: GradientsOption = None,
    checkpoint_seconds: SecondsOption = None,
    competence: CompetenceOption = None,
    description: DescriptionOption = None,
    handles: HandlesOption = None,
    licence: LicenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """One LoRA expert on a frozen base: a RECIPE of the tiny family, or, with --data, on your own rows.

    Rows are source, instruction and target, optionally mask and reference. The expert is written to --out as
    `careedit experts add` takes it.
    """
    given = {key: value for key, value in locals().items() if value is not None}
    for key in ("recipe", "threads", "as_json"):
        given.pop(key, None)
    if (recipe is None) == (data is None):
        what = "Neither a RECIPE nor --data is" if recipe is None else f"Both the recipe {recipe!r} and --data are"
        raise InputError(f"{what} given; name a recipe of the tiny family, or give your own rows with --data.")
    if data is not None:
        set_threads(threads)
        train_own(given, as_json=as_json)
        return
    for key in sorted({*given} - {"out", "steps", "learning_rate", "dtype"}) + ["json"] * as_json:
        option = "panel-size" if key == "panel" else key.replace("_", "-")
        raise InputError(f"--{option} is for own rows (--data); a recipe has its settings.")
    train_recipe = _recipe(str(recipe))
    with started(threads, dtype):
        path = train_recipe(out, steps, learning_rate)
    note(f"The expert is in {path}.")


def _recipe(name: str) -> plugins.ExpertRecipe:
    """The recipe of an installed package; raises `InputError` if there is none of that name."""
    found: dict[str, plugins.ExpertRecipe] = {}
    for provider in plugins.names(plugins.RECIPES):
        found |= plugins.load(plugins.RECIPES, provider, error=InputError)()
    if name not in found:
        raise InputError(f"There is no recipe for the expert {name!r}; the recipes are {', '.join(found)}.")
    return found[name]


def train_own(options: dict[str, Any], *, as_json: bool) -> None:
    """Train as `options` say: those of the command that were given, by the name that `OwnRun` has for them."""
    from careedit.cli.editors import quieten
    from careedit.finetune.data import parse_columns
    from careedit.finetune.run import OwnRun, run

    for needed in ("name", "base", "out"):
        if needed not in options:
            raise InputError(f"--{needed} is missing; with --data, say --base, --name and --out.")
    for option, known in (("on_bad", ("refuse", "skip")), ("align", ("refuse", "stretch", "crop"))):
        if options.get(option, known[0]) not in known:
            raise InputError(f"--{option.replace('_', '-')} is {options[option]!r}; use {', '.join(known)}.")
    handles = tuple(filter(None, (kind.strip() for kind in options.pop("handles", "").split(","))))
    columns = parse_columns(options.pop("columns", ""))
    data = Path(options.pop("data"))
    quieten()
    with _checking() as checking:
        wanted = OwnRun(data=data, columns=columns, handles=handles, **options)
        result = run(wanted, checking=checking, told=_tell, note=note)
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


def _tell(problems: Any) -> None:
    for problem in problems[:NAMED]:
        note(f"bad {problem}")
    if len(problems) > NAMED:
        note(f"... and {len(problems) - NAMED} more bad rows; problems.csv lists them all.")


@contextmanager
def _checking() -> Iterator[Callable[[int], Callable[[], None]]]:
    """A bar that starts when the number of rows is known and vanishes when the last is checked."""
    shown: list[Any] = []

    def start(rows: int) -> Callable[[], None]:
        manager = progress("Checking rows", rows)
        bar = manager.__enter__()
        shown.append(manager)
        count = 0

        def done() -> None:
            nonlocal count
            bar.advance()
            count += 1
            if count == rows:
                shown.pop().__exit__(None, None, None)

        return done

    try:
        yield start
    finally:
        for manager in shown:
            manager.__exit__(None, None, None)


for _provider in plugins.names(plugins.TRAIN):
    app.add_typer(plugins.load(plugins.TRAIN, _provider))
