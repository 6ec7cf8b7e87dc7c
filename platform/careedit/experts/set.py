"""Expert sets: a base, its experts, a router and defaults; the unit that is deployed, benchmarked and compared."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from careedit import plugins
from careedit.errors import ExpertError, ManifestError
from careedit.experts.base import Application
from careedit.experts.check import check_adapter, check_base, load_adapter
from careedit.experts.fingerprint import BaseShapes, shapes_of_base
from careedit.experts.formats import LoraState
from careedit.experts.manifest import MANIFEST_FILE, ExpertManifest, Name, Sentence, Sha256
from careedit.experts.store import Folder, default_cache, is_url
from careedit.files import json_digest
from careedit.images import MAX_REFERENCES
from careedit.record import YamlRecord
from careedit.records import unknown_expert

SET_FILE = "expert_set.yaml"
"""Name of the file that makes a folder an expert set."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class BaseSpec(YamlRecord):
    """The frozen base of a set."""

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    """A folder inside the set ("./base"), an absolute path, an fsspec address, or a hub id ("organisation/name")."""
    revision: str | None = None
    """Revision of a hub id."""
    max_sequence_length: Annotated[int, Field(ge=1, le=512)] = 512
    """T5 tokens per prompt."""
    fingerprint: Sha256
    """`BaseShapes.fingerprint` of its transformer."""
    sha256: Sha256 | None = None
    """`folder_digest` of a base folder, so that other weights of the same shape are told apart; None where unknown."""

    @property
    def is_hub_id(self) -> bool:
        """Whether `path` names a repository on the Hugging Face hub."""
        return not is_url(self.path) and not self.path.startswith((".", "/")) and bool(_HUB_ID.fullmatch(self.path))


class PanelSpec(YamlRecord):
    """How a picture is fitted to a panel of the canvas."""

    size: Annotated[int, Field(ge=16, le=4096)]
    """Side of a panel, in pixels."""
    fit: Literal["letterbox", "resize"] = "letterbox"
    """The rule of `careedit.images.fit_panel`."""
    multiple: Annotated[int, Field(ge=1, le=256)] = 16
    """Sides are multiples of this many pixels."""


class Defaults(YamlRecord):
    """What an edit uses where its request says nothing."""

    steps: Annotated[int, Field(ge=1, le=200)]
    """Denoising steps."""
    guidance: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """Guidance scale; None for a base that takes none."""
    top_k: Annotated[int, Field(ge=1, le=16)] = 1
    """How many experts the router may mix."""
    start: Literal["noise", "source"] = "noise"
    """What denoising starts from: "noise" for FLUX.1-Fill and its like; "source", the source with noise upon it, for a base
    that was trained so."""
    noise_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Spread of the noise that an edit starts from. Less than the 1 of training gives up variety between seeds, and what
    a small base mistakes in noise for a picture."""


class RouterSpec(YamlRecord):
    """Which router chooses the experts."""

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = "rules"
    """"rules", "fixed", or another registered router."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Its settings; a file among them is named with its sha256."""


class ExpertSetFile(YamlRecord):
    """The content of `expert_set.yaml`."""

    format_version: Literal[1] = 1
    """Version of this file's format."""
    name: Name
    """Name of the set."""
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
    """Version of the set, as its makers count it."""
    description: Sentence | None = None
    """What it is for."""
    base: BaseSpec
    """The base."""
    panel: PanelSpec
    """Panel size and fitting."""
    defaults: Defaults
    """Steps, guidance and top-k."""
    router: RouterSpec = RouterSpec()
    """The router."""
    application: Application = "merged"
    """How experts are applied unless the caller says otherwise; it changes speed and memory, not the edit."""
    experts: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = ()
    """Folders of the experts: inside the set ("experts/erase"), absolute, or fsspec addresses."""

    @model_validator(mode="after")
    def _check_unique(self) -> ExpertSetFile:
        if len(set(self.experts)) != len(self.experts):
            raise ManifestError(f"The expert set {self.name!r} lists an expert twice; remove one of the two.")
        return self


@dataclass(frozen=True)
class ExpertSet:
    """A set that was read and checked: every manifest is valid and fits the base. No weight was read.

    It is also an `AdapterLibrary`: appliers load experts from it by name.
    """

    spec: ExpertSetFile
    """The set's file."""
    folder: Folder
    """Where it was read from."""
    manifests: Mapping[str, ExpertManifest]
    """Manifest per expert name, in the set's order."""
    places: Mapping[str, Folder]
    """Folder per expert name."""

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
        """References that an edit may have: as many as the base's canvas has panels for."""
        return MAX_REFERENCES

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts, in the set's order."""
        return tuple(self.manifests)

    @cached_property
    def sha256(self) -> str:
        """Hash over what decides an edit: base, panel, defaults, router, and every expert's manifest (with its hash).

        Name, version, local paths, the order of the experts and `application` do not enter it.
        """
        base, defaults = self.spec.base, self.spec.defaults
        content = {
            "format_version": self.spec.format_version,
            "base": {
                **base.model_dump(mode="json", exclude={"path", "revision"}),
                "hub": [base.path, base.revision] if base.is_hub_id else None,
            },
            "panel": self.spec.panel.model_dump(mode="json"),
            # A set from before there were a start and a noise scale keeps its hash: its edits are the same.
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
        """What `FluxFillPipeline.from_pretrained` takes: a local folder (fetched if it is remote) or a hub id."""
        return resolve_base(self.spec.base, self.folder)

    @cached_property
    def shapes(self) -> BaseShapes:
        """The base's shapes, from its configuration; raises `ManifestError` if they are not the stated ones."""
        shapes = shapes_of_base(self.base_path, revision=self.spec.base.revision)
        if shapes.fingerprint != self.spec.base.fingerprint:
            raise ManifestError(
                f"The base of the expert set {self.name!r} has the fingerprint {shapes.fingerprint[:12]}, its file says "
                f"{self.spec.base.fingerprint[:12]}; put the right base there or correct the file."
            )
        return shapes

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
        return check_adapter(self.adapter_path(name), self.shapes, manifest=self.manifest(name)).parameters

    def load(self, name: str) -> LoraState:
        """Reads one expert's weights, every check done."""
        return load_adapter(self.adapter_path(name), self.shapes, manifest=self.manifest(name))


def load_expert_set(
    ref: str | os.PathLike[str], *, cache: Path | None = None, storage_options: Mapping[str, Any] | None = None
) -> ExpertSet:
    """Reads the set that `ref` names and checks all its manifests; reads no weights.

    `ref` is the name of a set inside the package ("tiny"), a local folder, an fsspec address, or a registry's name for one
    ("models:/tiny@champion"). `storage_options` go to its filesystem. Raises `ExpertError`, `ManifestError`, `AdapterError` or `BaseMismatchError`, each a sentence.
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
