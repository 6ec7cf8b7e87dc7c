"""The bill of materials of an expert set: weights, data and recipes as components of CycloneDX (ML-BOM).

Weights are listed with their hash and licence, experts with what their manifest says about recipe and data, installed recipes and
benchmarks by the name of their plug-in. Files of a base on the hub are not fetched: its id and commit identify them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import careedit
from careedit import plugins
from careedit.errors import InputError
from careedit.experts.licence import base_licence
from careedit.experts.set import ExpertSet
from careedit.files import file_digest

Component = Mapping[str, Any]


def bill_of_materials(expert_set: ExpertSet) -> list[Component]:
    """The components of a set, each with a `bom-ref` of its own, in an order that does not change."""
    base = expert_set.spec.base
    found = base_licence(expert_set)
    commercial = {True: "allowed", False: "not allowed", None: "unknown"}[found.commercial]
    components: list[Component] = [
        {
            **_model(f"{expert_set.name}/base", base.path, found.licence),
            **({"version": base.revision} if base.revision else {}),
            "properties": [
                {"name": "careedit:fingerprint", "value": base.fingerprint},
                {"name": "careedit:commercial-use", "value": commercial},
            ],
        }
    ]
    for name, manifest in expert_set.manifests.items():
        components.append(
            {
                **_model(f"{expert_set.name}/experts/{name}", name, manifest.licence, sha256=manifest.sha256),
                "description": manifest.description,
                "modelCard": {"modelParameters": {"datasets": [{"type": "dataset", "name": manifest.provenance}]}},
                "properties": [{"name": "careedit:recipe", "value": manifest.provenance}],
            }
        )
    listed = {manifest.sha256 for manifest in expert_set.manifests.values()}
    root = expert_set.folder.local
    for path in sorted(root.rglob("*.safetensors")) if root is not None else ():
        digest = file_digest(path)
        if digest not in listed:
            name = path.relative_to(root).as_posix()  # type: ignore[arg-type]  # there is a folder if there is a path
            licence = found.licence if Path(base.path) in Path(name).parents else None
            components.append(_model(f"{expert_set.name}/files/{name}", name, licence, sha256=digest))
    return [*components, *_plugins(plugins.RECIPES, "source-code"), *_plugins(plugins.BENCHMARKS, "dataset")]


def add_to_bom(document: Any, components: list[Component]) -> dict[str, Any]:
    """A CycloneDX document in JSON with the components in it, in place of those with the same `bom-ref`.

    The document about careedit gets careedit's version, which `pyproject.toml`, from which it is made, does not state.
    """
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise InputError("The file is not a CycloneDX document in JSON; write one with `make sbom`.")
    ours = {component["bom-ref"] for component in components}
    others = [one for one in document.get("components", []) if one.get("bom-ref") not in ours]
    about = document.get("metadata", {})
    if (subject := about.get("component", {})).get("name") == careedit.__name__:
        about = {**about, "component": {**subject, "version": careedit.__version__}}
    return {**document, "metadata": about, "components": [*others, *components]}


def _model(ref: str, name: str, licence: str | None, *, sha256: str | None = None) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"careedit:{ref}",
        "name": name,
        **({"hashes": [{"alg": "SHA-256", "content": sha256}]} if sha256 else {}),
        **({"licenses": [{"license": {"name": licence}}]} if licence else {}),
    }


def _plugins(group: str, kind: str) -> list[Component]:
    """The installed plug-ins of a group, as data."""
    entries = {(entry.name, entry.value) for entry in metadata.entry_points(group=group)}
    return [
        {
            "type": "data",
            "bom-ref": f"careedit:{group}/{name}",
            "name": name,
            "data": [{"type": kind, "name": value}],
        }
        for name, value in sorted(entries)
    ]
