"""Adapter files, checked before they are trusted: the header first, then the hash, then the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from careedit.errors import AdapterError, BaseMismatchError
from careedit.experts.alphas import Asked
from careedit.experts.fingerprint import BaseShapes
from careedit.experts.formats import LoraModule, LoraState, canonical
from careedit.experts.header import AdapterHeader, read_header
from careedit.experts.layouts import Layout, check_all_used, layers_of, layout_of, stand_ins
from careedit.experts.manifest import ExpertManifest, check_relative


@dataclass(frozen=True)
class AdapterPlan:
    """What a file will add to a base, known from its header alone."""

    modules: Mapping[str, tuple[int, int, int]]
    """(rank, in features, out features) per module path."""
    rank: int
    """The largest rank; the weights of a fused layer may turn out to need a smaller one."""
    layout: Layout
    """Which key layout the file is in."""

    @property
    def parameters(self) -> int:
        """Number of weights once applied."""
        return sum(rank * (inner + outer) for rank, inner, outer in self.modules.values())


def check_base(manifest: ExpertManifest, fingerprint: str) -> None:
    """Raises `BaseMismatchError` if the manifest names another base; opens no file."""
    if manifest.base.fingerprint != fingerprint:
        raise BaseMismatchError(
            f"The expert {manifest.name!r} does not fit this base: it was made for {manifest.base.name!r} "
            f"({manifest.base.fingerprint[:12]}), this base is {fingerprint[:12]}; use the base it was made for."
        )


def check_adapter(path: Path, shapes: BaseShapes, *, manifest: ExpertManifest | None = None) -> AdapterPlan:
    """Checks a file from its header alone: format, modules, shapes and ranks. Reads no tensor.

    Raises `BaseMismatchError` where it does not fit `shapes`, `AdapterError` for every other flaw.
    """
    where = f"The adapter {path.name}" if manifest is None else f"The adapter of expert {manifest.name!r}"
    if manifest is not None:
        check_base(manifest, shapes.fingerprint)
    header = read_header(path)
    layout = layout_of(header.tensors)
    layers_of(stand_ins(header), where)
    layers = check_all_used(stand_ins(header), where)
    state = fit(_shaped(header, where, up=1.0), shapes, where, layers)
    # Only the weights tell whether a fused layer is split into smaller ranks; `load_adapter` looks at them.
    if manifest is not None and not _shaped(header, where, up=0.0).rank <= manifest.rank <= state.rank:
        raise _other_rank(where, state, manifest)
    if manifest is not None and (manifest.format == "peft") != (layout == "peft"):
        raise AdapterError(f"{where} is a {layout} file, its manifest says {manifest.format}; correct the manifest.")
    modules = {
        name: (module.rank, int(module.down.shape[1]), int(module.up.shape[0]))
        for name, module in state.modules.items()
    }
    return AdapterPlan(modules=modules, rank=state.rank, layout=layout)


def _shaped(header: AdapterHeader, where: str, *, up: float) -> LoraState:
    return canonical(stand_ins(header, up=up), {}, where, asked=Asked(1.0, "a stand-in"))


def _other_rank(where: str, state: LoraState, manifest: ExpertManifest) -> AdapterError:
    return AdapterError(f"{where} has rank {state.rank}, its manifest says {manifest.rank}; correct the manifest.")


def load_adapter(
    path: Path, shapes: BaseShapes, *, manifest: ExpertManifest | None = None, alpha: float | None = None
) -> LoraState:
    """Checks and reads an adapter file.

    With a `manifest`, base, hash, rank and alpha must be as it states; `alpha` is for a file that states none.
    Returns CPU tensors in the file's own number format. Raises as `check_adapter`, and `AdapterError` for a wrong
    hash and for weights that are not finite.
    """
    where = f"The adapter {path.name}" if manifest is None else f"The adapter of expert {manifest.name!r}"
    check_adapter(path, shapes, manifest=manifest)
    header = read_header(path)
    # One read serves hash and weights, so the bytes that were hashed are the bytes that are used.
    data = path.read_bytes()
    asked = None if alpha is None else Asked(alpha, "the alpha given (--alpha)")
    if manifest is not None:
        digest = hashlib.sha256(data).hexdigest()
        if digest != manifest.sha256:
            raise AdapterError(
                f"{where} has the hash {digest[:12]}, its manifest says {manifest.sha256[:12]}; get the file again."
            )
        asked = Asked(manifest.alpha, "its manifest") if manifest.states_alpha else None
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise AdapterError(f"{where} cannot be read as safetensors ({error}); get it again.") from error
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(f"{where} has NaN or infinite weights in {key!r}; do not use it, train it again.")
    # In the file's order, as diffusers reads it: where only some layers state an alpha, the first one counts.
    tensors = {key: tensors[key] for key in header.tensors}
    state = fit(canonical(tensors, header.metadata, where, asked=asked), shapes, where)
    if manifest is not None and state.rank != manifest.rank:
        raise _other_rank(where, state, manifest)
    other = manifest is not None and abs(state.alpha - manifest.alpha) > 1e-6 * max(1.0, manifest.alpha)
    if manifest is not None and other and not manifest.states_alpha:
        raise AdapterError(f"{where} has alpha {state.alpha:g}, its manifest says {manifest.alpha:g}; correct it.")
    return state


def fit(state: LoraState, shapes: BaseShapes, where: str, layers: Mapping[str, str] | None = None) -> LoraState:
    """Checks `state` against a base's linear modules; raises `BaseMismatchError`, which names the file's own `layers`.

    As in diffusers, an `x_embedder` update for a base with fewer input channels (FLUX.1-dev's 64 for Fill's 384) is
    padded with zeros.
    """
    modules: dict[str, LoraModule] = {}
    for name, module in state.modules.items():
        layer = (layers or {}).get(name, name)
        own = "" if layer.endswith(name) else f" (the file's {layer[:120]!r})"
        if name not in shapes.linear:
            raise BaseMismatchError(f"{where} does not fit this base: the base has no linear module {name!r}{own}.")
        outer, inner = shapes.linear[name]
        if name == "x_embedder" and module.down.shape[1] < inner and module.up.shape[0] == outer:
            padding = (0, inner - int(module.down.shape[1]))
            module = replace(module, down=torch.nn.functional.pad(module.down, padding))
        if (module.up.shape[0], module.down.shape[1]) != (outer, inner):
            raise BaseMismatchError(
                f"{where} does not fit this base: {name!r} maps {inner} to {outer} features there, "
                f"{module.down.shape[1]} to {module.up.shape[0]} in the file{own}; use the base it was made for."
            )
        modules[name] = module
    return LoraState(modules, state.found)


def resolve_inside(folder: Path, name: str) -> Path:
    """The path of file `name` in `folder`; raises `AdapterError` if it, or a link in it, leads out of the folder."""
    check_relative(name)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise AdapterError(f"The file {name!r} is a link that leads out of its folder; put the file itself there.")
    if not path.is_file():
        raise AdapterError(f"There is no file {name!r} in {folder.name!r}; put it there or correct the manifest.")
    return path
