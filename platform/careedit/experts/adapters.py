"""Adapter files: checked before they are trusted (first the header, then the hash, then the weights), read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from careedit.errors import AdapterError, BaseMismatchError, ManifestError
from careedit.experts.alphas import METADATA_KEY, OutsideAlpha, config_of_json
from careedit.experts.conversion import owners_of
from careedit.experts.formats import LoraModule, LoraState, canonical
from careedit.experts.layouts import (
    AdapterHeader,
    Layout,
    layers_of,
    layout_of,
    read_header,
    stand_ins,
)
from careedit.experts.manifest import BaseReference, ExpertManifest, check_base
from careedit.experts.origin import other_base, other_families
from careedit.experts.shapes import BaseShapes
from careedit.families import Facts
from careedit.files import file_digest, write_atomic
from careedit.record import error_sentence


@dataclass(frozen=True)
class AdapterPlan:
    """The update that a file makes to a base, known from its header alone."""

    modules: Mapping[str, tuple[int, int, int]]
    """(rank, in features, out features) of each module by its path."""
    rank: int
    """The largest rank. The weights of a fused layer may turn out to need a smaller one."""
    layout: Layout
    """Layout of the keys of the file."""

    @property
    def parameters(self) -> int:
        """Number of weights once applied."""
        return sum(rank * (inner + outer) for rank, inner, outer in self.modules.values())


def check_adapter(path: Path, shapes: BaseShapes, *, manifest: ExpertManifest | None = None) -> AdapterPlan:
    """Checks a file from its header alone: format, modules, shapes and ranks. Reads no tensor.

    Raises `BaseMismatchError` if the file does not fit `shapes`, `AdapterError` for every other problem.
    """
    where = f"The adapter {path.name}" if manifest is None else f"The adapter of expert {manifest.name!r}"
    if manifest is not None:
        check_base(manifest, shapes.fingerprint, shapes.label)
    header = read_header(path)
    family = shapes.family
    layout = layout_of(header.tensors, family)
    layers_of(stand_ins(header), where)
    if others := other_families(header.tensors, family):
        names = " or ".join(other.name for other in others)
        raise BaseMismatchError(
            f"{where} was made for {names}, but this base is {shapes.label}; use an adapter for this base."
        )
    layers = owners_of(stand_ins(header), family, where)
    state = fit(_shaped(header, family, where, up=1.0), shapes, where, layers)
    # Only the weights show whether a fused layer is split into smaller ranks; `load_adapter` checks that.
    if manifest is not None and not _shaped(header, family, where, up=0.0).rank <= manifest.rank <= state.rank:
        raise _other_rank(where, state, manifest)
    if manifest is not None and (manifest.format == "peft") != (layout == "peft"):
        raise AdapterError(f"{where} is a {layout} file, its manifest says {manifest.format}; correct the manifest.")
    modules = {
        name: (module.rank, int(module.down.shape[1]), int(module.up.shape[0]))
        for name, module in state.modules.items()
    }
    return AdapterPlan(modules=modules, rank=state.rank, layout=layout)


def _shaped(header: AdapterHeader, family: Facts, where: str, *, up: float) -> LoraState:
    return canonical(stand_ins(header, up=up), {}, where, family=family, outside=OutsideAlpha(1.0, "a placeholder"))


def _other_rank(where: str, state: LoraState, manifest: ExpertManifest) -> AdapterError:
    return AdapterError(f"{where} has rank {state.rank}, its manifest says {manifest.rank}; correct the manifest.")


def load_adapter(
    path: Path,
    shapes: BaseShapes,
    *,
    manifest: ExpertManifest | None = None,
    alpha: float | None = None,
    sha256: str | None = None,
) -> LoraState:
    """Checks and reads an adapter file.

    With a `manifest`, base, hash, rank and alpha must be as it states. Without one, `sha256` is the hash that the file
    must have (None: any), and `alpha` is for a file that does not state it.
    Returns CPU tensors in the file's own number format. Raises as `check_adapter`, and `AdapterError` for a wrong
    hash and for weights that are not finite.
    """
    where = f"The adapter {path.name}" if manifest is None else f"The adapter of expert {manifest.name!r}"
    check_adapter(path, shapes, manifest=manifest)
    header = read_header(path)
    # Hash and weights come from one read, so the bytes that are hashed are the bytes that are used.
    data = path.read_bytes()
    outside = None if alpha is None else OutsideAlpha(alpha, "the alpha given (--alpha)")
    wanted, source = (sha256, "the set's file") if manifest is None else (manifest.sha256, "its manifest")
    if wanted is not None and (digest := hashlib.sha256(data).hexdigest()) != wanted:
        raise AdapterError(f"{where} has the hash {digest[:12]}, {source} says {wanted[:12]}; get the file again.")
    if manifest is not None:
        outside = OutsideAlpha(manifest.alpha, "its manifest") if manifest.states_alpha else None
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise AdapterError(f"{where} cannot be read as safetensors ({error}); get it again.") from error
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(f"{where} has NaN or infinite weights in {key!r}; do not use it, train it again.")
    # In the file's order, as diffusers reads it: if only some layers state an alpha, the first one counts.
    tensors = {key: tensors[key] for key in header.tensors}
    state = canonical(tensors, header.metadata, where, family=shapes.family, outside=outside)
    if state.found is not None and (warnings := tuple(other_base(header.metadata, shapes))):
        state = replace(state, found=replace(state.found, warnings=(*state.found.warnings, *warnings)))
    state = fit(state, shapes, where)
    if manifest is not None and state.rank != manifest.rank:
        raise _other_rank(where, state, manifest)
    other = manifest is not None and abs(state.alpha - manifest.alpha) > 1e-6 * max(1.0, manifest.alpha)
    if manifest is not None and other and not manifest.states_alpha:
        raise AdapterError(f"{where} has alpha {state.alpha:g}, its manifest says {manifest.alpha:g}; correct it.")
    return state


def fit(state: LoraState, shapes: BaseShapes, where: str, layers: Mapping[str, str] | None = None) -> LoraState:
    """Checks `state` against a base's linear modules; raises `BaseMismatchError`, which names the layer as in the file.

    As in diffusers, an `x_embedder` update for a base with fewer input channels (FLUX.1-dev's 64 for Fill's 384) is
    padded with zeros.
    """
    modules: dict[str, LoraModule] = {}
    for name, module in state.modules.items():
        layer = (layers or {}).get(name, name)
        own = "" if layer.endswith(name) else f" (the file's {layer[:120]!r})"
        if name not in shapes.linear:
            raise BaseMismatchError(
                f"{where} does not fit this base: the base has no linear module {name!r}{own}; it is {shapes.label}."
            )
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


def save_adapter(path: str | Path, lora_state_dict: Mapping[str, Tensor], rank: int, alpha: float) -> str:
    """Writes a trained LoRA in diffusers' format, loadable by the pipeline's `load_lora_weights`; returns its sha256.

    `lora_state_dict` is peft's `get_peft_model_state_dict(transformer)`: keys `<module>.lora_A.weight` [rank, in] and
    `<module>.lora_B.weight` [out, rank]. The same weights give the same bytes. Raises `AdapterError`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path.name} must end in .safetensors; adapters use no other format.")
    tensors: dict[str, Tensor] = {}
    for key, tensor in sorted(lora_state_dict.items()):
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            raise AdapterError(f"The key {key!r} is not a LoRA weight; pass get_peft_model_state_dict(transformer).")
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(
                f"The weights {key!r} are NaN or infinite; the training has diverged. Nothing was saved."
            )
        if rank not in tensor.shape:
            raise AdapterError(f"The weights {key!r} have shape {tuple(tensor.shape)}, not rank {rank}; pass its rank.")
        tensors[f"transformer.{key.removeprefix('transformer.')}"] = tensor.detach().cpu().contiguous()
    config = {
        "transformer.r": rank,
        "transformer.lora_alpha": alpha,
        "transformer.target_modules": sorted({key.removeprefix("transformer.").split(".lora_")[0] for key in tensors}),
    }
    # Only one metadata field: safetensors writes several in random order, which would change the hash.
    data = save(tensors, metadata={METADATA_KEY: json.dumps(config, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
    return file_digest(path)


def make_manifest(
    adapter: str | Path,
    shapes: BaseShapes,
    *,
    name: str,
    competence: str,
    description: str,
    handles: tuple[str, ...],
    base_name: str,
    licence: str,
    provenance: str,
    alpha: float | None = None,
) -> ExpertManifest:
    """The manifest of an adapter file, with hash, rank, alpha and format read from the file itself.

    `alpha` is for a file that does not state it; a file that states another one is refused. A peft file may state it in
    the `adapter_config.json` of its folder. Raises as `load_adapter`: a file that cannot be used gets no manifest.
    """
    path = Path(adapter)
    plan = check_adapter(path, shapes)
    if plan.layout == "peft":
        alpha = _peft_alpha(path.parent / "adapter_config.json", path, plan, shapes, alpha)
    state = load_adapter(path, shapes, alpha=alpha)
    own = plan.layout != "peft" and state.found is not None and state.found.asked
    try:
        return ExpertManifest(
            name=name,
            competence=competence,
            description=description,
            handles=handles,
            file=path.name,
            sha256=file_digest(path),
            rank=state.rank,
            alpha=alpha if own and alpha is not None else state.alpha,
            alpha_source="manifest" if own else "file",
            format=plan.layout,
            base=BaseReference(name=base_name, fingerprint=shapes.fingerprint),
            licence=licence,
            provenance=provenance,
        )
    except ValidationError as error:
        raise ManifestError(error_sentence(error, f"The manifest of {path.name}")) from error


def _peft_alpha(
    config: Path, adapter: Path, plan: AdapterPlan, shapes: BaseShapes, given: float | None
) -> float | None:
    """The alpha of a peft file, from the configuration in its folder, which must agree with `given` and the tensors."""
    if not config.is_file():
        return given
    where = f"The adapter {adapter.name}"
    try:
        stated = config_of_json(config.read_text("utf-8"), f"{config.name} in its folder", where)
    except OSError as error:
        raise AdapterError(
            f"{config.name} in the folder of {adapter.name} cannot be read ({error.strerror}); check its permissions."
        ) from error
    if stated is None or stated.alpha is None:
        return given
    if stated.alpha_pattern or stated.rslora:
        raise AdapterError(
            f"{adapter.name} scales its modules in a way that one alpha cannot state; load it with peft and "
            f"save it with {shapes.family.pipeline}.save_lora_weights."
        )
    stated.check_ranks({name: rank for name, (rank, _, _) in plan.modules.items()}, {}, where)
    if given is not None and given != stated.alpha:
        raise AdapterError(
            f"{where} has two alphas: {stated.alpha_source} says {stated.alpha:g}, the alpha given (--alpha) says "
            f"{given:g}; correct one of them."
        )
    return stated.alpha
