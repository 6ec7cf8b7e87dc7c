"""Writing adapters: what training targets, and the file it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from careedit.errors import AdapterError, ManifestError
from careedit.experts.alphas import METADATA_KEY, config_of_json
from careedit.experts.check import AdapterPlan, check_adapter, load_adapter
from careedit.experts.fingerprint import BaseShapes
from careedit.experts.manifest import BaseReference, ExpertManifest
from careedit.files import file_digest, write_atomic
from careedit.record import error_sentence

DEFAULT_TARGETS = (
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|transformer_blocks\.\d+\.(ff|ff_context)\.net\.(0\.proj|2)"
    r"|single_transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v)|proj_mlp|proj_out)"
)
"""Every attention and feed-forward projection of a FLUX transformer; for peft's `LoraConfig(target_modules=...)`."""

ICEDIT_TARGETS = (
    r"x_embedder|transformer_blocks\.\d+\.(norm1\.linear|attn\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.(to_q|to_k|to_v))"
)
"""What ICEdit's released normal LoRA targets (River-Zhang/ICEdit, train/train/config/normal_lora.yaml)."""


def save_adapter(path: str | Path, lora_state_dict: Mapping[str, Tensor], rank: int, alpha: float) -> str:
    """Writes a trained LoRA as diffusers does, loadable by `FluxFillPipeline.load_lora_weights`; returns its sha256.

    `lora_state_dict` is peft's `get_peft_model_state_dict(transformer)`: keys `<module>.lora_A.weight` [rank, in] and
    `<module>.lora_B.weight` [out, rank]. The same weights give the same bytes. Raises `AdapterError`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path.name} must end in .safetensors; adapters are kept in no other format.")
    tensors: dict[str, Tensor] = {}
    for key, tensor in sorted(lora_state_dict.items()):
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            raise AdapterError(f"The key {key!r} is no LoRA weight; pass get_peft_model_state_dict(transformer).")
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(
                f"The weights {key!r} are NaN or infinite; the training has diverged, nothing was saved."
            )
        if rank not in tensor.shape:
            raise AdapterError(f"The weights {key!r} have shape {tuple(tensor.shape)}, not rank {rank}; pass its rank.")
        tensors[f"transformer.{key.removeprefix('transformer.')}"] = tensor.detach().cpu().contiguous()
    config = {
        "transformer.r": rank,
        "transformer.lora_alpha": alpha,
        "transformer.target_modules": sorted({key.removeprefix("transformer.").split(".lora_")[0] for key in tensors}),
    }
    # One metadata field only: safetensors writes several in random order, and the hash would not repeat.
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

    `alpha` is for a file that states none; one that states another is refused. A peft file may state it in the
    `adapter_config.json` beside it.
    Raises as `load_adapter`: a file that cannot be used gets no manifest.
    """
    path = Path(adapter)
    plan = check_adapter(path, shapes)
    if plan.layout == "peft":
        alpha = _peft_alpha(path.parent / "adapter_config.json", path, plan, alpha)
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


def _peft_alpha(config: Path, adapter: Path, plan: AdapterPlan, given: float | None) -> float | None:
    """The alpha of a peft file: that of the configuration beside it, which must agree with `given` and the tensors."""
    if not config.is_file():
        return given
    where = f"The adapter {adapter.name}"
    try:
        stated = config_of_json(config.read_text("utf-8"), f"{config.name} beside it", where)
    except OSError as error:
        raise AdapterError(f"{config.name} beside {adapter.name} cannot be read ({error.strerror}).") from error
    if stated is None or stated.alpha is None:
        return given
    if stated.alpha_pattern or stated.rslora:
        raise AdapterError(
            f"{adapter.name} scales its modules in a way that one alpha cannot state; load it with peft and "
            "save it with FluxFillPipeline.save_lora_weights."
        )
    stated.check_ranks({name: rank for name, (rank, _, _) in plan.modules.items()}, {}, where)
    if given is not None and given != stated.alpha:
        raise AdapterError(
            f"{where} has two alphas: {stated.alpha_source} says {stated.alpha:g}, the alpha given (--alpha) says "
            f"{given:g}; correct one of them."
        )
    return stated.alpha
