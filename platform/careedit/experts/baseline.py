"""The unified LoRA that lies in an expert set beside its experts: what routing has to beat."""

from __future__ import annotations

import os

from careedit.experts.check import check_base
from careedit.experts.manifest import MANIFEST_FILE, ExpertManifest
from careedit.experts.set import ExpertSet, RouterSpec
from careedit.experts.store import Folder

UNIFIED_FOLDER = "baselines/unified"
"""Where a set keeps its unified LoRA: an expert folder that its file does not list, so nothing is ever routed to it."""


def baseline_set(expert_set: ExpertSet, folder: str | os.PathLike[str] | None = None) -> ExpertSet:
    """The base, panel and defaults of a set, with one expert only: the one in `folder` (default `UNIFIED_FOLDER`).

    Raises `ExpertError` where there is none, `BaseMismatchError` where it was made for another base.
    """
    own = expert_set.folder
    place = own.child(UNIFIED_FOLDER) if folder is None else Folder(os.fspath(folder), {}, own.cache)
    manifest = ExpertManifest.from_yaml(place.read_text(MANIFEST_FILE), MANIFEST_FILE)
    check_base(manifest, expert_set.spec.base.fingerprint)
    # No routed expert is left, so no router that knows them either.
    spec = expert_set.spec.model_copy(update={"router": RouterSpec(), "experts": ()})
    return ExpertSet(spec=spec, folder=own, manifests={manifest.name: manifest}, places={manifest.name: place})


def has_baseline(expert_set: ExpertSet) -> bool:
    """Whether a local set has a unified LoRA, whole or broken."""
    local = expert_set.folder.local
    return local is not None and (local / UNIFIED_FOLDER / MANIFEST_FILE).is_file()
