"""Changing a local expert set, and verifying any set."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from careedit.errors import CareEditError, ExpertError, ManifestError
from careedit.experts.adapters import load_adapter
from careedit.experts.manifest import MANIFEST_FILE, SET_FILE, ExpertManifest, ExpertSetFile, RouterSpec, check_base
from careedit.experts.set import (
    ExpertSet,
    base_files_error,
    load_base_lora,
    load_expert_set,
    locate,
    read_set_file,
    resolve_base,
    router_options,
)
from careedit.experts.shapes import shapes_of_base
from careedit.experts.store import Folder
from careedit.experts.transformer_file import base_transformer
from careedit.files import file_digest, folder_digest
from careedit.records import unknown_expert


@dataclass(frozen=True)
class Finding:
    """One problem of an expert set."""

    code: str
    """Kind of the problem: "manifest", "base", "base-hash", "base-lora", "adapter", "duplicate" or "router"."""
    subject: str
    """Name of the expert, or its folder if the name is unknown; or "base", or "router"."""
    message: str
    """What is wrong and what to do, in one sentence."""


def create_expert_set(folder: str | os.PathLike[str], spec: ExpertSetFile) -> ExpertSet:
    """Creates a set without experts in a local folder; raises `ExpertError` if the folder has a set already."""
    root = Path(folder)
    if (root / SET_FILE).exists():
        raise ExpertError(f"There is an expert set in {root} already; choose another folder.")
    if spec.experts:
        raise ManifestError("A new expert set has no experts; add them with add_expert.")
    root.mkdir(parents=True, exist_ok=True)
    spec.write(root / SET_FILE)
    return load_expert_set(root)


def add_expert(
    folder: str | os.PathLike[str],
    manifest: ExpertManifest,
    adapter: str | os.PathLike[str],
    *,
    replace: bool = False,
) -> ExpertSet:
    """Copies an adapter and its manifest into a local set, as `experts/<name>`, and returns the changed set.

    Everything is checked first, weights included. Then one rename puts the expert's folder in place, and the set's file is
    rewritten last, so a reader sees the set with the expert or without it, never half of it. Raises what `load_adapter`
    raises, and `ExpertError` for a name that is in use, unless `replace`.
    """
    root = _local_root(folder)
    current = load_expert_set(root)
    if manifest.name in current.manifests and not replace:
        raise ExpertError(f"The set {current.name!r} has an expert {manifest.name!r} already; remove it or replace it.")
    check_base(manifest, current.shapes.fingerprint)
    source = Path(adapter)
    load_adapter(source, current.shapes, manifest=manifest)

    entry = f"experts/{manifest.name}"
    target = root / entry
    target.parent.mkdir(exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{manifest.name}."))
    try:
        (temporary / manifest.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, temporary / manifest.file)
        manifest.write(temporary / MANIFEST_FILE)
        # Check the copy too: it is what will be served, and the source may have changed since the first check.
        load_adapter(temporary / manifest.file, current.shapes, manifest=manifest)
        os.chmod(temporary, 0o755)
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=".old.")) / "expert"
        if target.exists():
            os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

    kept = [path for path in current.spec.experts if _name_of(current, path) != manifest.name]
    position = next((i for i, path in enumerate(current.spec.experts) if path not in kept), len(kept))
    _rewrite(root, current.spec, (*kept[:position], entry, *kept[position:]))
    return load_expert_set(root)


def remove_expert(folder: str | os.PathLike[str], name: str) -> ExpertSet:
    """Removes one expert from a local set: first from its file, then from the disk if its folder is inside the set."""
    root = _local_root(folder)
    current = load_expert_set(root)
    if name not in current.manifests:
        raise unknown_expert(name, current.names)
    _rewrite(root, current.spec, tuple(path for path in current.spec.experts if _name_of(current, path) != name))
    place = current.places[name].local
    if place is not None and place.resolve().parent == (root / "experts").resolve():
        shutil.rmtree(place)
    return load_expert_set(root)


def verify_expert_set(
    ref: str | os.PathLike[str], *, cache: Path | None = None, storage_options: Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """Checks a whole set: base, manifests, every adapter's hash, shapes and weights, and the router's files.

    Returns the problems; none means that the set is sound. Raises only if the set does not exist or its own file is broken.
    """
    folder = locate(ref, cache=cache, storage_options=storage_options)
    spec = read_set_file(folder)
    findings: list[Finding] = []
    try:
        base = resolve_base(spec.base, folder)
        shapes = shapes_of_base(base, revision=spec.base.revision)
    except CareEditError as error:
        return (Finding("base", "base", str(error)),)
    if shapes.fingerprint != spec.base.fingerprint:
        text = (
            f"The base has the fingerprint {shapes.fingerprint[:12]}, the set's file says {spec.base.fingerprint[:12]}."
        )
        findings.append(Finding("base", "base", text))
    if flaw := base_files_error(spec.base, base):
        findings.append(Finding("base-hash", "base", flaw))
    try:
        load_base_lora(spec.base, folder, shapes)
    except CareEditError as error:
        findings.append(Finding("base-lora", "base", str(error)))
    try:
        base_transformer(spec.base, folder, shapes)
    except CareEditError as error:
        findings.append(Finding("base-transformer", "base", str(error)))
    seen: set[str] = set()
    for entry in spec.experts:
        subject, code = entry, "manifest"
        try:
            place = folder.child(entry)
            manifest = ExpertManifest.from_yaml(place.read_text(MANIFEST_FILE), f"{entry}/{MANIFEST_FILE}")
            subject, code = manifest.name, "adapter"
            if manifest.name in seen:
                findings.append(Finding("duplicate", subject, f"Two experts are called {subject!r}; rename one."))
            seen.add(manifest.name)
            check_base(manifest, shapes.fingerprint)
            load_adapter(place.fetch(manifest.file, manifest.sha256), shapes, manifest=manifest)
        except CareEditError as error:
            findings.append(Finding(code, subject, str(error)))
    try:
        router_options(spec, folder)
    except CareEditError as error:
        findings.append(Finding("router", "router", str(error)))
    return tuple(findings)


def transformer_spec(root: Path, *, router: str = "router", encoder: str = "clip") -> RouterSpec:
    """The `RouterSpec` of a learned router in the set's folder `root`, with the hashes of its files.

    `router` is the folder of `router.json` and `router.safetensors`. `encoder` is a folder of the set, or an open_clip
    name, which is kept as it is.
    """
    inside = (root / encoder).is_dir()
    options: dict[str, Any] = {
        "config": _file(root, f"{router}/router.json"),
        "weights": _file(root, f"{router}/router.safetensors"),
        "encoder": {"folder": encoder, "sha256": folder_digest(root / encoder)} if inside else encoder,
    }
    return RouterSpec(kind="transformer", options=options)


def install_router(root: Path, router: RouterSpec) -> ExpertSet:
    """Checks the files of `router`, writes it to the file of the local set `root`, and returns the set."""
    folder = Folder(str(root))
    spec = read_set_file(folder).model_copy(update={"router": router})
    router_options(spec, folder)
    spec.write(root / SET_FILE)
    return load_expert_set(root)


def _local_root(folder: str | os.PathLike[str]) -> Path:
    root = locate(folder).local
    if root is None:
        raise ExpertError(f"{os.fspath(folder)} is not a local folder; change the set locally, then upload it.")
    return root


def _name_of(current: ExpertSet, entry: str) -> str:
    place = current.folder.child(entry)
    return next(name for name, known in current.places.items() if known == place)


def _rewrite(root: Path, spec: ExpertSetFile, experts: tuple[str, ...]) -> None:
    spec.model_copy(update={"experts": experts}).write(root / SET_FILE)


def _file(root: Path, name: str) -> dict[str, str]:
    if not (root / name).is_file():
        raise ManifestError(f"There is no {name} in {root}; put the router there first.")
    return {"file": name, "sha256": file_digest(root / name)}
