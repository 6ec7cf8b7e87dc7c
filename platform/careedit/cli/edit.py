"""Edit one image or many by instruction, or replay a traced edit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from PIL import Image
from pydantic import ValidationError

from careedit.cli.files import check_outputs, check_pictures, numbered, write_all
from careedit.cli.output import DeviceOption, JsonOption, SetOption, emit, emit_json, note
from careedit.errors import InputError
from careedit.families import Quantisation
from careedit.record import help_of
from careedit.records import EarlyFilter, EditRequest, EditResult, EditTrace, FilterStrategy
from careedit.tabular import TABLES, weights_of

app = typer.Typer(add_completion=False)

MAX_TRACE_BYTES = 16 * 2**20
"""Maximum size of a trace file, in bytes. A usual trace has a few kilobytes."""


@app.command("edit")
def edit(
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE",
            help="The source image: a PNG, JPEG, WebP, HEIC or AVIF file. Or many: a folder of them, or a .csv, .jsonl or "
            ".parquet table.",
        ),
    ],
    instruction: Annotated[
        str | None, typer.Argument(metavar="INSTRUCTION", help="What to change, in words; omit it with --replay.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Image of the area to edit: white, or transparent in a mask with transparency.")
    ] = None,
    reference: Annotated[list[Path] | None, typer.Option(help=help_of(EditRequest, "references"))] = None,
    expert: Annotated[
        str | None, typer.Option(help="auto (default), a name, base for none, or a mixture: a=0.7,b=0.3.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help=help_of(EditRequest, "seed"))] = None,
    steps: Annotated[int | None, typer.Option(help=help_of(EditRequest, "steps"))] = None,
    guidance: Annotated[float | None, typer.Option(help=help_of(EditRequest, "guidance"))] = None,
    n: Annotated[int | None, typer.Option("-n", help=help_of(EditRequest, "n"))] = None,
    top_k: Annotated[int | None, typer.Option(help=help_of(EditRequest, "top_k"))] = None,
    refine_mask: Annotated[bool, typer.Option("--refine-mask", help=help_of(EditRequest, "refine_mask"))] = False,
    early_filter: Annotated[
        FilterStrategy | None,
        typer.Option(help="Try several seeds, let a judge choose one, and finish it. Default: no filter."),
    ] = None,
    candidates: Annotated[int | None, typer.Option(help=help_of(EarlyFilter, "candidates"))] = None,
    preview_steps: Annotated[int | None, typer.Option(help=help_of(EarlyFilter, "preview_steps"))] = None,
    early_exit: Annotated[float | None, typer.Option(help=help_of(EarlyFilter, "early_exit"))] = None,
    judge: Annotated[str | None, typer.Option(help="Model that chooses: tiny (default), a folder or a hub id.")] = None,
    save_previews: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for a strip of previews per image.")
    ] = None,
    expert_set: SetOption = "tiny",
    application: Annotated[
        Literal["merged", "shared"] | None, typer.Option(help="How experts are applied. Default: as the set says.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the base first, which takes minutes; for many steps on a GPU.")
    ] = False,
    device: DeviceOption = None,
    quantisation: Annotated[
        Quantisation | None, typer.Option(help="Store the transformer's weights in fewer bits. Default: they are not.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Output file, by default IMAGE-edited.png in the current folder. For many: a folder."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="For many images: processes that edit, each with a GPU if there are any.")
    ] = 1,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the output of --json to this file.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Repeat the edit of a file that --trace wrote, bit for bit.")
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(
            envvar="CAREEDIT_CREDENTIALS",
            metavar="FOLDER",
            help="Sign results (Content Credentials) with the certificate and key in this folder; careedit provenance init "
            "makes one. Default: results are not signed.",
        ),
    ] = None,
    watermark: Annotated[
        Path | None,
        typer.Option(
            envvar="CAREEDIT_WATERMARK",
            metavar="FILE",
            help="Put an invisible watermark into results, with the secret key in this file. Default: results have none.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit IMAGE as INSTRUCTION says. With -n 2 or more, OUT becomes OUT-1, OUT-2, ...

    The result has the size of the source; pixels outside a mask do not change. Nothing is written unless all images
    are made. With --early-filter each image is the best of several; --trace lists all candidates.

    A folder is edited with one instruction; a table has the columns source and instruction and may have mask, reference,
    seed, expert, output and others (docs/batches.md). Run the same command again to make what is missing or has changed.
    The exit code is 1 if an image of a batch failed; results.csv in --out says why.
    """
    many = image.is_dir() or image.suffix.lower() in TABLES
    pictures: dict[str, Any] = {"image": image, "mask": mask, "references": tuple(reference or ())}
    options_given: dict[str, Any] = {"seed": seed, "steps": steps, "guidance": guidance, "n": n, "top_k": top_k}
    options_given |= {"expert": expert, "refine_mask": refine_mask or None}
    options_given = {name: value for name, value in options_given.items() if value is not None}
    filtering = {"candidates": candidates, "preview_steps": preview_steps, "early_exit": early_exit}
    filtering = {name: value for name, value in filtering.items() if value is not None}
    if early_filter is not None:
        options_given["early_filter"] = EarlyFilter.model_validate({"strategy": early_filter, **filtering})
    elif filtering or judge is not None or save_previews is not None:
        raise InputError(
            "--candidates, --preview-steps, --early-exit, --judge and --save-previews need --early-filter, e.g. halving."
        )
    options: dict[str, Any] = {
        "application": application,
        "device": device,
        "quantisation": quantisation,
        "compiled": compiled,
    }
    if expert is not None and replay is None:
        options_given["expert"] = weights_of(expert, "--expert")
    if many:
        single = {"--trace": trace, "--replay": replay, "--save-previews": save_previews}
        for option in (name for name, value in single.items() if value is not None):
            raise InputError(f"{option} is for one image; leave it out for a folder or a table.")
        defaults = {"mask": mask, "references": tuple(reference or ()), "instruction": instruction}
        defaults = {name: value for name, value in defaults.items() if value} | options_given
        from careedit.cli.batch import edit_batch

        edit_batch(
            image, defaults, out, expert_set=expert_set, options=options, judge=judge or "tiny", credentials=credentials,
            watermark=watermark, workers=workers, as_json=as_json,
        )  # fmt: skip
        return
    if workers != 1:
        raise InputError("--workers is for many images; give a folder or a table, or leave it out.")
    marks = None
    if credentials is not None or watermark is not None:
        from careedit.cli.signed import Marks
        from careedit.experts import load_expert_set

        marks = Marks.open(credentials, watermark, image)
    inputs = [image, *([mask] if mask else []), *(reference or []), *([replay] if replay else [])]
    request: EditRequest | None = None
    if replay is None:
        if instruction is None:
            raise InputError("The instruction is missing; say what to change, e.g. 'remove the red circle'.")
        request = EditRequest.model_validate({**pictures, "instruction": instruction, **options_given})
        targets = _targets(out, image, request.n, trace, inputs)
        strips = _strips(save_previews, targets, inputs)
        from careedit.cli.editors import run_edit

        result = run_edit(request, expert_set, options, judge=judge or "tiny")
    else:
        if instruction is not None or expert is not None or options_given or any(options.values()):
            raise InputError("A trace has all settings of its edit; with --replay give images and outputs only.")
        traces = _read_traces(replay)
        targets, strips = _targets(out, image, len(traces), trace, inputs), []
        from careedit.cli.editors import run_replays

        result = run_replays(traces, pictures, expert_set)

    files = [str(path) for path in targets]
    document = {"version": 1, "images": files, "traces": [made.model_dump(mode="json") for made in result.traces]}
    drawn = _draw(strips, result, request) if strips and request is not None else {}
    if drawn:
        document["previews"] = [str(path) for path in drawn]
        strips[0].parent.mkdir(exist_ok=True)
    made_files: Sequence[Image.Image | bytes] = result.images
    notes = [f"note: {line}." for made in result.traces for line in made.degradations]
    if marks is not None:
        made_files = marks.files(targets, result, lambda: load_expert_set(expert_set))
        document |= marks.report
        notes += [f"note: {sentence}" for sentence in marks.notes([made.size for made in result.images])]
    text = {} if trace is None else {trace: json.dumps(document, indent=2, allow_nan=False) + "\n"}
    write_all({**dict(zip(targets, made_files, strict=True)), **drawn, **text})
    for line in dict.fromkeys(notes):
        note(line)
    if as_json:
        emit_json(document)
    else:
        _report(targets, result)


def _targets(out: Path | None, image: Path, count: int, trace: Path | None, inputs: Sequence[Path]) -> list[Path]:
    """The output files of the images; raises `InputError` if they cannot be written."""
    targets = numbered(out or Path(f"{image.stem}-edited.png"), count)
    check_pictures(targets)
    check_outputs([*targets, *([trace] if trace else [])], inputs)
    return targets


def _strips(folder: Path | None, targets: Sequence[Path], inputs: Sequence[Path]) -> list[Path]:
    """The files of the preview strips, one per image; a missing folder is created later."""
    if folder is None:
        return []
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--save-previews {str(folder)!r} is a file; name a folder.")
    strips = [folder / f"{target.stem}-previews.png" for target in targets]
    check_outputs([*strips, *targets] if folder.is_dir() else [folder], inputs)
    return strips


def _draw(strips: Sequence[Path], result: EditResult, request: EditRequest) -> dict[Path, Image.Image]:
    from careedit.selection.strip import preview_strip

    made = zip(strips, result.traces, result.previews, strict=True)
    return {
        path: preview_strip(request.image, trace.filter, previews)
        for path, trace, previews in made
        if trace.filter is not None
    }


def _read_traces(path: Path) -> list[EditTrace]:
    """The traces in a file that `--trace` wrote, or in the saved output of `--json`."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_TRACE_BYTES + 1)
    except OSError as error:
        raise InputError(f"The trace {str(path)!r} cannot be read ({error.strerror}); check the path.") from None
    try:
        document = json.loads(data) if len(data) <= MAX_TRACE_BYTES else {}
        traces = [EditTrace.model_validate(entry) for entry in document["traces"]]
    except (ValueError, TypeError, KeyError, RecursionError, ValidationError):
        traces = []
    if not traces:
        raise InputError(f"The file {str(path)!r} has no trace; give a file that careedit edit --trace wrote.")
    return traces


def _report(targets: Sequence[Path], result: EditResult) -> None:
    routing = result.trace.routing  # one request, one decision
    named = " + ".join(
        name if len(routing.weights) == 1 else f"{name} {weight:.2f}" for name, weight in routing.weights.items()
    )
    emit(f"Expert: {named} ({routing.router}). {routing.reason}")
    for path, trace in zip(targets, result.traces, strict=True):
        if trace.filter is not None:
            tried = trace.filter
            chosen = tried.candidates[tried.chosen]
            score = "" if chosen.score is None else f", score {chosen.score:.3f}"
            emit(f"Chosen: seed {chosen.seed} of {len(tried.candidates)} ({tried.strategy}{score})")
        emit(f"Edited: {path} (seed {trace.seed}, {_count(trace.steps, 'step')}, {_count(trace.nfe, 'evaluation')})")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
