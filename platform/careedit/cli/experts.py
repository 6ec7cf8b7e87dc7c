"""List, show, verify, add and remove the LoRA experts of an expert set.

`add` and `remove` change a set in a local folder. Copy a packaged set first (`copy`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from careedit import plugins
from careedit.cli.output import JsonOption, SetOption, emit, emit_json, emit_table, note, progress
from careedit.errors import CareEditError, ExpertError, InputError
from careedit.experts import (
    ExpertSet,
    add_expert,
    load_adapter,
    load_expert_set,
    make_manifest,
    remove_expert,
    verify_expert_set,
)
from careedit.experts.bom import add_to_bom, bill_of_materials
from careedit.experts.manifest import MANIFEST_FILE, ExpertManifest, check_base
from careedit.experts.origin import other_variant
from careedit.experts.set import locate, packaged_set
from careedit.families import FLUX_FILL
from careedit.files import file_digest, write_atomic
from careedit.record import help_of

app = typer.Typer(no_args_is_help=True, add_completion=False)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the expert.")]


@app.callback()
def experts() -> None:
    """List, show, verify, add and remove the LoRA experts of an expert set."""


@app.command("list")
def list_command(expert_set: SetOption = "tiny", as_json: JsonOption = False) -> None:
    """List the experts: name, competence, rank, size, and the kinds of edits that each handles."""
    loaded = load_expert_set(expert_set)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "competence": manifest.competence,
            "rank": manifest.rank,
            "bytes": _size(loaded, name),
            "handles": list(manifest.handles),
        }
        for name, manifest in loaded.manifests.items()
    ]
    if as_json:
        emit_json({"version": 1, **_identity(loaded), "experts": rows})
        return
    table = [
        (row["name"], row["competence"], row["rank"], _shown(row["bytes"]), ", ".join(row["handles"])) for row in rows
    ]
    emit_table(("name", "competence", "rank", "size", "handles"), table)
    note(f"Expert set {loaded.name} {loaded.version} ({loaded.sha256[:12]}).")


@app.command("show")
def show_command(name: NameArgument, expert_set: SetOption = "tiny", as_json: JsonOption = False) -> None:
    """Show an expert's manifest."""
    manifest = load_expert_set(expert_set).manifest(name)
    if as_json:
        emit_json(manifest)
    else:
        emit(manifest.to_yaml().rstrip("\n"))


@app.command("verify")
def verify_command(expert_set: SetOption = "tiny", as_json: JsonOption = False) -> None:
    """Check base and adapters: hashes, shapes and weights. The exit code is 1 if anything is wrong."""
    with progress("Verifying"):
        findings = verify_expert_set(expert_set)
    if as_json:
        emit_json({"version": 1, "ok": not findings, "findings": findings})
    elif findings:
        emit_table(("code", "subject", "message"), [(f.code, f.subject, f.message) for f in findings])
    else:
        emit(f"The expert set {expert_set} is sound.")
    if findings:
        raise typer.Exit(1)


@app.command("bom")
def bom_command(
    file: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="FILE", help="CycloneDX document in JSON to add to. Default: print the components."
        ),
    ] = None,
    expert_set: SetOption = "tiny",
) -> None:
    """List weights, data and recipes of a set as CycloneDX components (ML-BOM)."""
    components = bill_of_materials(load_expert_set(expert_set))
    if file is None:
        emit_json(components)
        return
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}); give a CycloneDX document in JSON."
        ) from None
    write_atomic(file, json.dumps(add_to_bom(document, components), indent=2) + "\n")
    note(f"{len(components)} components of the set {expert_set} are in {file}.")


@app.command("add")
def add_command(
    adapter: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER",
            help="A LoRA as a .safetensors file, or the folder of an expert, whose manifest gives the options' defaults.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the expert in the set: a-z, 0-9, _ and -.")] = None,
    competence: Annotated[str | None, typer.Option(help=help_of(ExpertManifest, "competence"))] = None,
    description: Annotated[str | None, typer.Option(help=help_of(ExpertManifest, "description"))] = None,
    handles: Annotated[
        str | None, typer.Option(help=f"{help_of(ExpertManifest, 'handles')} Comma separated: remove,mask.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help=help_of(ExpertManifest, "licence"))] = None,
    provenance: Annotated[
        str | None, typer.Option(help=f"{help_of(ExpertManifest, 'provenance')} Default: the name of the file.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="LoRA's alpha, for a file that does not state it.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the expert of this name.")] = False,
    expert_set: SetOption = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Check ADAPTER and copy it into a local set as an expert."""
    _check_local(expert_set)
    loaded = load_expert_set(expert_set)
    own = variant = None
    if adapter.is_dir():
        own = _manifest_of(adapter)
        variant = other_variant(own, loaded.shapes)
        if variant is None:
            check_base(own, loaded.shapes.fingerprint, loaded.shapes.label)
        adapter = adapter / own.file
    name = name or (own.name if own else "")
    competence = competence or (own.competence if own else "")
    for option, value in (("--name", name), ("--competence", competence)):
        if not value:
            raise InputError(
                f"{option} is missing; give it, or give the folder of an expert, whose manifest states it."
            )
    if own is not None and alpha is not None and alpha != own.alpha:
        raise InputError(f"The manifest says alpha {own.alpha:g}, --alpha says {alpha:g}; correct one of them.")
    manifest = make_manifest(
        adapter,
        loaded.shapes,
        name=name,
        competence=competence,
        description=description or (own.description if own else f"An expert of competence {competence}."),
        handles=_words(handles) if handles is not None or own is None else own.handles,
        base_name=_base_name(loaded),
        licence=licence or (own.licence if own else "unknown"),
        provenance=provenance or (own.provenance if own else f"Added from the file {adapter.name}."),
        alpha=own.alpha if alpha is None and own is not None and own.states_alpha else alpha,
    )
    with progress(f"Adding {name}"):
        found = load_adapter(adapter, loaded.shapes, manifest=manifest).found
        changed = add_expert(expert_set, manifest, adapter, replace=replace)
    for warning in (*([variant] if variant else []), *(() if found is None else found.warnings)):
        note(f"warning: {warning}")
    if as_json:
        emit_json({"version": 1, **_identity(changed), "added": manifest, "found": found})
    else:
        emit(f"The expert {name} is in {expert_set} (rank {manifest.rank}, {_shown(_size(changed, name))}).")
        emit(f"Found in {adapter.name}: {found}.")


@app.command("remove")
def remove_command(name: NameArgument, expert_set: SetOption = "tiny", as_json: JsonOption = False) -> None:
    """Remove an expert from a local set, and delete its files."""
    _check_local(expert_set)
    changed = remove_expert(expert_set, name)
    if as_json:
        emit_json({"version": 1, **_identity(changed), "removed": name})
    else:
        emit(f"The expert {name} is no longer in {expert_set}.")


@app.command("copy")
def copy_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the copy; it must not exist.")],
    expert_set: SetOption = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Copy a local or packaged set to a folder, where it can be changed."""
    source = locate(expert_set).local
    if source is None:
        raise ExpertError(f"{expert_set} is not on this machine; download it with its storage's own tool.")
    if folder.exists():
        raise InputError(f"{str(folder)!r} exists already; give a folder that does not.")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"The folder {str(folder.absolute().parent)!r} does not exist; create it first.")
    load_expert_set(expert_set)
    temporary = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
    try:
        with progress("Copying"):
            shutil.copytree(source, temporary / "set")
        os.rename(temporary / "set", folder)
    except OSError as error:
        raise InputError(f"The set cannot be copied to {str(folder)!r} ({error.strerror}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    copied = load_expert_set(folder)
    if as_json:
        emit_json({"version": 1, **_identity(copied), "folder": folder})
    else:
        emit(f"The expert set {copied.name} is in {folder}; use it with --expert-set {folder}.")


def _manifest_of(folder: Path) -> ExpertManifest:
    """The manifest of an expert's folder, with its adapter file checked; raises `ExpertError`."""
    path = folder / MANIFEST_FILE
    try:
        manifest = ExpertManifest.from_yaml(path.read_text("utf-8"), str(path))
        digest = file_digest(folder / manifest.file)
    except (OSError, UnicodeDecodeError) as error:
        raise ExpertError(f"The folder {str(folder)!r} has no expert ({error}); give a .safetensors file.") from None
    if digest != manifest.sha256:
        raise ExpertError(
            f"{manifest.file} in {str(folder)!r} is not the file that its manifest states; create the folder again."
        )
    return manifest


def _base_name(loaded: ExpertSet) -> str:
    """What a manifest calls the set's base; it has the family and variant where FLUX.1-Fill is not the base."""
    name = f"the base of {loaded.name} {loaded.version}"
    return name if loaded.shapes.family is FLUX_FILL else f"{loaded.shapes.label}, {name}"


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _identity(loaded: ExpertSet) -> dict[str, Any]:
    return {"expert_set": loaded.name, "set_version": loaded.version, "expert_set_sha256": loaded.sha256}


def _size(loaded: ExpertSet, name: str) -> int | None:
    """Size of an adapter file in bytes; None if it is missing, which `verify` explains."""
    try:
        return loaded.adapter_path(name).stat().st_size
    except CareEditError:
        return None


def _shown(size: int | None) -> str:
    return "missing" if size is None else f"{size / 2**20:.2f} MiB"


def _check_local(ref: str) -> None:
    """Raises `ExpertError` for a packaged set, which must not be changed."""
    root = locate(ref).local
    for name in plugins.names(plugins.PACKAGED_SETS):
        folder = packaged_set(name)
        if root is not None and folder is not None and root.resolve() == folder.resolve():
            raise ExpertError(
                f"The expert set {name!r} belongs to the package; run 'careedit experts copy FOLDER' and change the copy "
                "with --expert-set FOLDER."
            )
