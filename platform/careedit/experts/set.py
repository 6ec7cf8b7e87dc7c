"""Expert sets: a base, its experts, a router and defaults; the unit that is deployed, benchmarked and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from careedit import experts, plugins  # the package imports each of its names when it is first used
from careedit.errors import AdapterError, ExpertError, ManifestError
from careedit.experts.manifest import (
    MANIFEST_FILE,
    SET_FILE,
    BaseSpec,
    ExpertManifest,
    ExpertSetFile,
    FileOption,
    FolderOption,
    RouterSpec,
    check_base,
)
from careedit.experts.store import Folder, default_cache, stored_digest
from careedit.families import Facts
from careedit.files import file_digest, folder_digest, json_digest
from careedit.record import error_sentence
from careedit.records import unknown_expert

if TYPE_CHECKING:  # they import torch, which reading manifests does not need
    from careedit.experts.formats import LoraState
    from careedit.experts.shapes import BaseShapes

UNIFIED_FOLDER = "baselines/unified"
"""Where a set keeps its unified LoRA, the baseline of routing. The set's file does not list it, so no edit uses it."""


@dataclass(frozen=True)
class ExpertSet:
    """A set whose file and manifests are read and checked. Every manifest is valid and fits the base; no weight is read yet.

    It is also an `AdapterLibrary`: appliers load experts from it by name.
    """

    spec: ExpertSetFile
    """Content of the set's own file."""
    folder: Folder
    """Folder that the set was read from."""
    manifests: Mapping[str, ExpertManifest]
    """Manifest of each expert by its name, in the set's order."""
    places: Mapping[str, Folder]
    """Folder of each expert by its name."""

    @property
    def name(self) -> str:
        """The set's name."""
        return self.spec.name

    @property
    def version(self) -> str:
        """The set's version."""
        return self.spec.version

    @property
    def references(self) -> int:
        """Maximum number of references of an edit."""
        return self.facts.references

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts, in the set's order."""
        return tuple(self.manifests)

    @cached_property
    def sha256(self) -> str:
        """Hash of all that decides an edit: base, panel, defaults, router, and every expert's manifest (with its hash).

        Name, version, licences, local paths, the order of the experts and `application` are not part of it.
        """
        base, defaults = self.spec.base, self.spec.defaults
        content = {
            "format_version": self.spec.format_version,
            "base": {
                **base.model_dump(
                    mode="json",
                    exclude={
                        **dict.fromkeys(("path", "revision", "licence", "commercial"), True),
                        "lora": {"file"},
                        "transformer": {"file"},
                    },
                ),
                "hub": [base.path, base.revision] if base.is_hub_id else None,
            },
            "panel": self.spec.panel.model_dump(mode="json"),
            # Start and noise scale are left out at their defaults: sets written before these fields keep their hash.
            "defaults": {
                name: value
                for name, value in defaults.model_dump(mode="json").items()
                if (name, value) not in (("start", "noise"), ("noise_scale", 1.0))
            },
            "router": self.spec.router.model_dump(mode="json"),
            "experts": [self.manifests[name].model_dump(mode="json", exclude={"file"}) for name in sorted(self.names)],
        }
        return json_digest(content, separators=(",", ":"))

    @cached_property
    def base_path(self) -> str:
        """What diffusers' `from_pretrained` takes: a local folder (fetched if it is remote) or a hub id."""
        return resolve_base(self.spec.base, self.folder)

    def check_is(self, sha256: str) -> None:
        """Raise `ExpertError` if this is not the set with this hash, which was deployed."""
        if self.sha256 != sha256:
            raise ExpertError(
                f"The set {self.folder.address!r} has the hash {self.sha256[:12]}, {sha256[:12]} was deployed; deploy it again."
            )

    def check_base_files(self) -> None:
        """Raise `ExpertError` if the base's files are not those that the set's file states the hash of.

        Each file is hashed once per machine (`stored_digest`). A set without the hash and a base on the hub are not checked.
        """
        if error := base_files_error(self.spec.base, self.base_path, partial(stored_digest, cache=self.folder.cache)):
            raise ExpertError(error)

    @property
    def facts(self) -> Facts:
        """What is known of the base's family; raises `ExpertError` for a pipeline that careedit does not know."""
        return self.shapes.family

    @property
    def base_name(self) -> str:
        """Name of the base for people: its hub id, or what the experts' manifests call it, or else its address."""
        base = self.spec.base
        named = next((manifest.base.name for manifest in self.manifests.values()), None)
        return base.path if base.is_hub_id or named is None else named

    @property
    def takes_guidance(self) -> bool:
        """Whether edits may state a guidance scale."""
        return self.shapes.takes_guidance

    @cached_property
    def shapes(self) -> BaseShapes:
        """The base's shapes, from its configuration; raises `ManifestError` if they are not those of the set's file."""
        shapes = experts.shapes_of_base(self.base_path, revision=self.spec.base.revision)
        if shapes.fingerprint != self.spec.base.fingerprint:
            raise ManifestError(
                f"The base of the expert set {self.name!r} has the fingerprint {shapes.fingerprint[:12]}, its file says "
                f"{self.spec.base.fingerprint[:12]}; put the right base there or correct the file."
            )
        return shapes

    def load_base_lora(self) -> LoraState | None:
        """The LoRA that is part of the base, read and checked like an expert's; None if the base has none."""
        return load_base_lora(self.spec.base, self.folder, self.shapes)

    def base_transformer(self) -> Path | None:
        """The file of quantised weights that replaces the base's transformer, checked; None if the base has none.

        Raises as `careedit.experts.transformer_file.base_transformer`. The file is hashed once per machine.
        """
        digest_of = partial(stored_digest, cache=self.folder.cache)
        return experts.base_transformer(self.spec.base, self.folder, self.shapes, digest_of)

    def manifest(self, name: str) -> ExpertManifest:
        """One expert's manifest; raises `UnknownExpertError`."""
        if name not in self.manifests:
            raise unknown_expert(name, self.names)
        return self.manifests[name]

    def adapter_path(self, name: str) -> Path:
        """A local path of one expert's adapter file, fetched if it is remote."""
        manifest = self.manifest(name)
        return self.places[name].fetch(manifest.file, manifest.sha256)

    def parameters(self, name: str) -> int:
        """Number of weights of one expert, from its file's header."""
        return experts.check_adapter(self.adapter_path(name), self.shapes, manifest=self.manifest(name)).parameters

    def ranks(self, name: str) -> Mapping[str, int]:
        """Rank of each module that one expert changes, from its file's header."""
        plan = experts.check_adapter(self.adapter_path(name), self.shapes, manifest=self.manifest(name))
        return {path: rank for path, (rank, _, _) in plan.modules.items()}

    def load(self, name: str) -> LoraState:
        """Reads and checks one expert's weights."""
        return experts.load_adapter(self.adapter_path(name), self.shapes, manifest=self.manifest(name))


def load_expert_set(
    ref: str | os.PathLike[str], *, cache: Path | None = None, storage_options: Mapping[str, Any] | None = None
) -> ExpertSet:
    """Reads the set that `ref` names and checks all its manifests; reads no weights.

    `ref` is the name of a packaged set ("tiny"), a local folder, an fsspec address, or a name in a registry
    ("models:/tiny@champion"). `storage_options` go to the filesystem of the address. Raises `ExpertError`,
    `ManifestError`, `AdapterError` or `BaseMismatchError`.
    """
    folder = locate(ref, cache=cache, storage_options=storage_options)
    spec = read_set_file(folder)
    manifests: dict[str, ExpertManifest] = {}
    places: dict[str, Folder] = {}
    for entry in spec.experts:
        place = folder.child(entry)
        manifest = ExpertManifest.from_yaml(place.read_text(MANIFEST_FILE), f"{entry}/{MANIFEST_FILE}")
        if manifest.name in manifests:
            raise ManifestError(f"Two experts of the set {spec.name!r} are called {manifest.name!r}; rename one.")
        check_base(manifest, spec.base.fingerprint)
        manifests[manifest.name], places[manifest.name] = manifest, place
    return ExpertSet(spec=spec, folder=folder, manifests=manifests, places=places)


def locate(
    ref: str | os.PathLike[str], *, cache: Path | None = None, storage_options: Mapping[str, Any] | None = None
) -> Folder:
    """The folder that `ref` names; raises `ExpertError` if a local one has no `expert_set.yaml`."""
    text = resolve(os.fspath(ref))
    place = Folder(text, storage_options or {}, cache or default_cache())
    if place.local is None:
        return place
    if not (place.local / SET_FILE).is_file() and (packaged := packaged_set(text)) is not None:
        place = Folder(str(packaged), {}, place.cache)
    local = place.local
    if local is None or not (local / SET_FILE).is_file():
        known = " or ".join(["an address", *plugins.names(plugins.PACKAGED_SETS)])
        raise ExpertError(f"{text!r} is not an expert set (it has no {SET_FILE}); give its folder, {known}.")
    return place


def packaged_set(name: str) -> Path | None:
    """The folder of the expert set that an installed package provides as `name`; None if no package does."""
    provider = plugins.load(plugins.PACKAGED_SETS, name, error=ExpertError)
    return None if provider is None else Path(provider())


def resolve(ref: str) -> str:
    """The folder or address of the expert set `ref`: from its registry if `ref` has a registry's scheme, else `ref` itself.

    Raises `ExpertError` if the registry lacks a package or does not know the set.
    """
    scheme, slash, _ = ref.partition(":/")
    registry = plugins.load(plugins.SET_SCHEMES, scheme, error=ExpertError) if slash else None
    return ref if registry is None else str(registry(ref))


def read_set_file(folder: Folder) -> ExpertSetFile:
    """Reads a set's own file, without its manifests."""
    return ExpertSetFile.from_yaml(folder.read_text(SET_FILE), SET_FILE)


def resolve_base(base: BaseSpec, folder: Folder) -> str:
    """The local folder (fetched if remote) or hub id of a base."""
    if base.is_hub_id and (folder.local is None or not (folder.local / base.path).is_dir()):
        return base.path
    return str(folder.fetch_tree(base.path.removeprefix("./")))


def load_base_lora(base: BaseSpec, folder: Folder, shapes: BaseShapes) -> LoraState | None:
    """The LoRA that the set in `folder` adds to its base, read and checked; raises as `load_adapter`."""
    lora = base.lora
    if lora is None:
        return None
    return experts.load_adapter(folder.fetch(lora.file, lora.sha256), shapes, alpha=lora.alpha, sha256=lora.sha256)


def base_files_error(base: BaseSpec, path: str, digest_of: Callable[[Path], str] = file_digest) -> str | None:
    """What is wrong with the files of a base in the local folder `path`, as a sentence; None if they are as stated."""
    if base.sha256 is None or not Path(path).is_dir():
        return None
    digest = folder_digest(Path(path), digest_of=digest_of)
    if digest == base.sha256:
        return None
    return (
        f"The base's files have the hash {digest[:12]}, the set's file says {base.sha256[:12]}; restore the files, or correct "
        "the set's file if the base was changed on purpose."
    )


def baseline_set(expert_set: ExpertSet, folder: str | os.PathLike[str] | None = None) -> ExpertSet:
    """The base, panel and defaults of a set with only one expert: the one in `folder` (default `UNIFIED_FOLDER`).

    Raises `ExpertError` if the folder has no expert, `BaseMismatchError` if it was made for another base.
    """
    own = expert_set.folder
    return _with_experts(expert_set, [own.child(UNIFIED_FOLDER) if folder is None else _place(expert_set, folder)])


def with_other_experts(expert_set: ExpertSet, folders: Sequence[str | os.PathLike[str]]) -> ExpertSet:
    """The base, panel and defaults of a set with the experts in `folders` instead of its own; names must differ.

    Raises as `baseline_set`.
    """
    return _with_experts(expert_set, [_place(expert_set, folder) for folder in folders])


def _place(expert_set: ExpertSet, folder: str | os.PathLike[str]) -> Folder:
    return Folder(os.fspath(folder), {}, expert_set.folder.cache)


def _with_experts(expert_set: ExpertSet, places: Sequence[Folder]) -> ExpertSet:
    found: dict[str, ExpertManifest] = {}
    for place in places:
        manifest = ExpertManifest.from_yaml(place.read_text(MANIFEST_FILE), MANIFEST_FILE)
        check_base(manifest, expert_set.spec.base.fingerprint)
        found[manifest.name] = manifest
    # The set's own router knows its routed experts, which are not in this set.
    spec = expert_set.spec.model_copy(update={"router": RouterSpec(), "experts": ()})
    return ExpertSet(spec=spec, folder=expert_set.folder, manifests=found, places=dict(zip(found, places, strict=True)))


def has_baseline(expert_set: ExpertSet) -> bool:
    """Whether a local set has a unified LoRA. The LoRA itself is not checked."""
    local = expert_set.folder.local
    return local is not None and (local / UNIFIED_FOLDER / MANIFEST_FILE).is_file()


def router_options(spec: ExpertSetFile, folder: Folder) -> dict[str, Any]:
    """The options of a set's router as `careedit.routing.build_router` takes them: files and folders as local paths.

    An option that is a mapping with `file` or `folder` names one; remote ones are fetched, and every hash is checked.
    The hashes are part of the set's file, so the set's own hash covers the content. Raises `ManifestError`, `ExpertError`,
    or `AdapterError` if the content has another hash.
    """
    return {name: _resolve_option(name, value, folder) for name, value in spec.router.options.items()}


def _resolve_option(name: str, value: Any, folder: Folder) -> Any:
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
            f"The router's {name} {relative!r} has the hash {digest[:12]}, the set's file says {option.sha256[:12]}; restore it "
            "or correct the set's file."
        )
    return str(path)
