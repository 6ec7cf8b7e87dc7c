"""Files of a router, kept in its expert set: named with their hashes, checked, and turned into paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from careedit.errors import AdapterError, ManifestError
from careedit.experts.manifest import Sha256
from careedit.experts.set import SET_FILE, ExpertSet, ExpertSetFile, RouterSpec, load_expert_set, read_set_file
from careedit.experts.store import Folder
from careedit.files import file_digest, folder_digest
from careedit.record import YamlRecord, error_sentence


class FileOption(YamlRecord):
    """A file of a router."""

    file: str = Field(min_length=1, max_length=1000)
    """Its name, relative to the set's folder."""
    sha256: Sha256
    """Its hash."""


class FolderOption(YamlRecord):
    """A folder of a router, such as its encoder."""

    folder: str = Field(min_length=1, max_length=1000)
    """Its name, relative to the set's folder."""
    sha256: Sha256
    """Its hash, by `folder_digest`."""


def router_options(spec: ExpertSetFile, folder: Folder) -> dict[str, Any]:
    """The options of a set's router as `careedit.routing.build_router` takes them: files and folders as local paths.

    An option that is a mapping with `file` or `folder` names one; what is remote is fetched, and every hash is checked.
    The hashes stand in the set's file, so the set's own hash covers the content. Raises `ManifestError`, `ExpertError`,
    or `AdapterError` where the content is another.
    """
    return {name: _resolve(name, value, folder) for name, value in spec.router.options.items()}


def transformer_spec(root: Path, *, router: str = "router", encoder: str = "clip") -> RouterSpec:
    """The `RouterSpec` of a learned router whose files lie in the set's folder `root`, hashes taken from them.

    `router` is the folder of `router.json` and `router.safetensors`; `encoder` a folder of the set, or else an open_clip
    name, which is stated as it is.
    """
    inside = (root / encoder).is_dir()
    options: dict[str, Any] = {
        "config": _file(root, f"{router}/router.json"),
        "weights": _file(root, f"{router}/router.safetensors"),
        "encoder": {"folder": encoder, "sha256": folder_digest(root / encoder)} if inside else encoder,
    }
    return RouterSpec(kind="transformer", options=options)


def install_router(root: Path, router: RouterSpec) -> ExpertSet:
    """States `router` in the file of the local set `root`, once its files are found right, and returns the set."""
    folder = Folder(str(root))
    spec = read_set_file(folder).model_copy(update={"router": router})
    router_options(spec, folder)
    spec.write(root / SET_FILE)
    return load_expert_set(root)


def _file(root: Path, name: str) -> dict[str, str]:
    if not (root / name).is_file():
        raise ManifestError(f"There is no {name} in {root}; put the router there first.")
    return {"file": name, "sha256": file_digest(root / name)}


def _resolve(name: str, value: Any, folder: Folder) -> Any:
    if not isinstance(value, Mapping) or not {"file", "folder"} & set(value):
        return value
    try:
        option = (FileOption if "file" in value else FolderOption).model_validate(dict(value))
    except ValidationError as error:
        raise ManifestError(error_sentence(error, f"The router's option {name!r}")) from error
    relative = (option.file if isinstance(option, FileOption) else option.folder).removeprefix("./")
    path: Path
    if isinstance(option, FileOption):
        path = folder.fetch(relative, option.sha256)
        digest = file_digest(path) if path.is_file() else None
    else:
        path = folder.fetch_tree(relative)
        digest = folder_digest(path)
    if digest is None:
        raise ManifestError(f"The router's {name} {relative!r} is not in the set; put it there or correct the option.")
    if digest != option.sha256:
        raise AdapterError(
            f"The router's {name} {relative!r} has the hash {digest[:12]}, {option.sha256[:12]} is stated; restore it "
            "or correct the set's file."
        )
    return str(path)
