"""`careedit train expert --data`: an expert on a user's own rows, and what the command says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from careedit.cli.output import emit, emit_json, emit_table, note, progress
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


def train_own(options: dict[str, Any], *, as_json: bool) -> None:
    """Train as `options` say: those of the command that were given, by the name that `OwnRun` has for them."""
    from pathlib import Path

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
