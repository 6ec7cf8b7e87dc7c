"""Write an expert set and a serve configuration for a base model.

The set has no experts yet: `careedit experts add` adds them. Of a hub id only the configuration files are fetched here; the
first edit fetches the weights.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from careedit.cli.output import JsonOption, emit, emit_json, progress
from careedit.errors import InputError
from careedit.experts import ExpertSet, create_expert_set, load_adapter, load_expert_set, shapes_of_base
from careedit.experts.manifest import (
    BaseLora,
    BaseSpec,
    BaseTransformer,
    Defaults,
    ExpertSetFile,
    PanelSpec,
    SchedulerSettings,
)
from careedit.experts.transformer_file import check_transformer_file
from careedit.families import INDEX, QWEN_EDIT_PLUS, read_index
from careedit.files import file_digest
from careedit_deployments.config import ServeConfig

app = typer.Typer(add_completion=False)

CONFIG = "serve.yaml"
"""Name of the serve configuration in the new folder."""
DISTILLED_STEPS = 4
"""Steps of a distilled base, whose index says `is_distilled`, and of a base with a LoRA that distils it."""
LIGHTNING = SchedulerSettings(
    use_dynamic_shifting=True,
    base_shift=math.log(3),
    max_shift=math.log(3),
    base_image_seq_len=256,
    max_image_seq_len=8192,
    shift_terminal=0.0,
    time_shift_type="exponential",
)
"""The schedule that Qwen-Image-Edit's Lightning LoRAs were trained for (ModelTC/Qwen-Image-Lightning, generate_with_diffusers.py)."""
_SERVE = """\
# A server for the expert set in this folder. `careedit doctor` says whether this machine can run it.
version: 1
arms:
  main:
    expert_set: {folder}
    # All experts share the pool below and its copy of the base. An expert under `experts` gets replicas of its own, each
    # with a copy of the base.
    long_tail: all
expert: {{num_cpus: 1, num_gpus: {gpus}, graceful_shutdown_s: 300, health_check_timeout_s: 60}}
shared: {{num_cpus: 1, num_gpus: {gpus}, graceful_shutdown_s: 300, health_check_timeout_s: 60}}
{quality}"""
_CACHED = """\
quality:
  # Extrapolates two of three steps after the first ones: faster and coarser.
  low: {steps: %d, step_cache: {interval: 3}}
"""


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder of the expert set.")],
    base: Annotated[
        str,
        typer.Option(
            "--base", help="Folder of a diffusers pipeline, or a hub id such as black-forest-labs/FLUX.2-klein-4B."
        ),
    ],
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Revision of the hub id. Default: the newest, which is written down."),
    ] = None,
    base_lora: Annotated[
        Path | None,
        typer.Option(
            "--base-lora",
            metavar="FILE",
            help="A LoRA that distils the base to a few steps, such as Lightning's; it becomes part of the base.",
        ),
    ] = None,
    transformer: Annotated[
        Path | None,
        typer.Option(
            "--transformer",
            metavar="FILE",
            help="A file of fp8 or nvfp4 weights in Black Forest Labs' formats, which replaces the base's transformer.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=200, help="Steps of an edit. Default: the family's, or 4.")
    ] = None,
    size: Annotated[int, typer.Option("--size", min=64, max=4096, help="Side of a panel, in pixels.")] = 1024,
    as_json: JsonOption = False,
) -> None:
    """Write an expert set without experts and a serve configuration for a base model."""
    if base_lora is not None and transformer is not None:
        raise InputError("A LoRA cannot be merged into quantised weights; leave out --base-lora or --transformer.")
    if folder.exists():
        raise InputError(f"{str(folder)!r} exists already; give a folder that does not.")
    with progress("Reading the base"):
        spec = describe(
            base, revision=revision, size=size, name=_name(folder), lora=base_lora, transformer=transformer, steps=steps
        )
        loaded = write(folder, spec, [path for path in (base_lora, transformer) if path is not None])
    licence = loaded.facts.licence
    if as_json:
        document = {"version": 1, "folder": folder, "config": folder / CONFIG, "family": loaded.facts.name}
        emit_json({**document, "licence": licence, "set": spec})
        return
    pinned = f" at revision {spec.base.revision[:12]}" if spec.base.revision else ""
    emit(f"The expert set {spec.name} is in {folder}. Its base is {spec.base.path}{pinned} ({loaded.shapes.label}).")
    if spec.base.lora is not None:
        schedule = ", with the schedule of Qwen's Lightning LoRAs" if spec.base.scheduler else ""
        defaults = f"{spec.defaults.steps} steps" + (" without guidance" if loaded.takes_guidance else "")
        emit(f"The LoRA {spec.base.lora.file} is part of the base{schedule}. An edit has {defaults}.")
    if spec.base.transformer is not None:
        emit(f"The file {spec.base.transformer.file} replaces the transformer of the base.")
    emit(f"Licence of the base: {licence}. Read it before you use the results.")
    emit("Next:")
    emit(f"  careedit doctor {folder / CONFIG}")
    emit(f'  careedit edit photo.jpg "make it winter" --expert-set {folder} -o edited.png')
    emit(f"  careedit experts add LORA.safetensors --name NAME --competence WORD --expert-set {folder}")
    emit(f"  careedit serve {folder / CONFIG}")


def describe(
    base: str,
    *,
    revision: str | None,
    size: int,
    name: str,
    lora: Path | None = None,
    transformer: Path | None = None,
    steps: int | None = None,
) -> ExpertSetFile:
    """The set's file for `base` with the defaults of its family, or of a base that the file `lora` distils.

    Raises `ExpertError` for a base or file that cannot be used, and `InputError` for a size or revision that does not
    fit the base.
    """
    place, _ = read_index(base, revision=revision)
    local = Path(place).is_dir()
    if local and revision is not None:
        raise InputError("--revision belongs to a hub id, and the base is a folder; leave it out.")
    if local:
        place = str(Path(place).resolve())
    else:
        revision = _commit(place, revision)
    shapes = shapes_of_base(place, revision=revision)
    facts = shapes.family
    if size % facts.multiple:
        raise InputError(f"--size is {size}; the panels of {facts.name} are multiples of {facts.multiple} pixels.")
    if lora is not None:
        load_adapter(lora, shapes)
    if transformer is not None:
        check_transformer_file(transformer, shapes)
    distilled = lora is not None or shapes.switches.get("is_distilled", False)
    guidance = 1.0 if lora is not None and facts.guidance == "branches" else facts.default_guidance
    return ExpertSetFile(
        name=name,
        version="1",
        base=BaseSpec(
            path=place,
            revision=revision,
            max_sequence_length=facts.text_tokens,
            fingerprint=shapes.fingerprint,
            transformer=None
            if transformer is None
            else BaseTransformer(file=transformer.name, sha256=file_digest(transformer)),
            lora=None if lora is None else BaseLora(file=lora.name, sha256=file_digest(lora)),
            scheduler=LIGHTNING if lora is not None and facts is QWEN_EDIT_PLUS else None,
        ),
        panel=PanelSpec(size=size, fit="bucket", multiple=facts.multiple),
        defaults=Defaults(
            steps=steps or (DISTILLED_STEPS if distilled else facts.default_steps),
            guidance=guidance if shapes.takes_guidance else None,
        ),
        application="shared",  # one copy of the base serves all experts
    )


def write(folder: Path, spec: ExpertSetFile, files: Sequence[Path] = ()) -> ExpertSet:
    """Write set (with copies of the base's own `files`) and configuration to a temporary folder, check them, and rename it
    to `folder`.
    """
    parent = folder.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{str(parent)!r} is not a folder that can be written to; choose another.")
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}."))
    try:
        for path in files:
            shutil.copyfile(path, temporary / path.name)
        created = create_expert_set(temporary, spec)
        created.load_base_lora()
        _ = created.shapes
        steps = spec.defaults.steps
        (temporary / CONFIG).write_text(
            _SERVE.format(
                folder=_quoted(folder.absolute()),
                gpus=_gpus(),
                quality=_CACHED % steps if steps > DISTILLED_STEPS else "",
            ),
            encoding="utf-8",
        )
        ServeConfig.from_yaml(temporary / CONFIG)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_expert_set(folder)


def _commit(hub_id: str, revision: str | None) -> str:
    """The commit of the newest index, from the path of the fetched file (`snapshots/COMMIT/...`)."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(hub_id, INDEX, revision=revision)).parent.name


def _gpus() -> int:
    import torch

    return int(torch.cuda.is_available())


def _name(folder: Path) -> str:
    """A name for the set, from its folder's."""
    return re.sub(r"[^a-z0-9_-]+", "-", folder.absolute().name.lower()).strip("-_")[:64] or "my-set"


def _quoted(value: Any) -> str:
    """A text as a YAML scalar, whatever characters it has."""
    return "'" + str(value).replace("'", "''") + "'"
