"""LoRA files in the layouts that exist, read as one: module path -> (A, B, alpha) for a `FluxTransformer2DModel`.

What `FluxFillPipeline.load_lora_weights` accepts for the transformer is accepted, through diffusers' own converters:

* diffusers (`transformer.<module>.lora_A.weight`), alpha from `<module>.alpha` keys or from the file's
  `lora_adapter_metadata`, else alpha = rank; ICEdit's released normal LoRA is of this layout (rank = alpha = 32);
* the older `<module>.lora.down.weight`, kohya / ComfyUI (`lora_unet_...lora_down`), XLabs (`processor.qkv_lora1...`).

peft's own files (`base_model.model.<module>.lora_A.weight`) are accepted too; they state no alpha, the manifest does.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
from diffusers import FluxFillPipeline
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from peft.utils.other import get_pattern_key
from torch import Tensor

from careedit.errors import AdapterError
from careedit.experts.header import AdapterHeader

METADATA_KEY = "lora_adapter_metadata"
"""Header field in which diffusers states r, alpha and targets."""

Layout = Literal["diffusers", "peft"]

_PREFIX, _PEFT_PREFIX = "transformer.", "base_model.model."
_ROOTS = (
    "transformer_blocks.",
    "single_transformer_blocks.",
    "x_embedder.",
    "context_embedder.",
    "time_text_embed.",
    "norm_out.",
    "proj_out.",
)
_KEY = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
_REFUSED = (
    (
        re.compile(r"(^|[._])(experts?|moe|router|route|gating|gate)([._]|\d|$)"),
        "is a MoE-LoRA, several experts and a token router inside each layer, which no LoRA loader takes; use the "
        + "normal LoRA of the same release, or average its experts into one LoRA first",
    ),
    (re.compile(r"dora_scale|lora_magnitude_vector"), "is a DoRA, which cannot be mixed per row; export a plain LoRA"),
    (re.compile(r"lokr_|hada_|lora_mid"), "is a LoKr, LoHa or Tucker adapter; export a plain LoRA"),
    (re.compile(r"\.bias$"), "trains biases beside its LoRA; train it with bias='none'"),
    (
        re.compile(r"^(text_encoder|lora_te|text_encoders\.)"),
        "also changes a text encoder, which experts share; export its transformer part alone",
    ),
    (re.compile(r"(norm_q|norm_k|norm_added_q|norm_added_k|query_norm|key_norm)\."), "is a control LoRA with norms"),
)


@dataclass(frozen=True)
class LoraModule:
    """The update of one linear module: W + (alpha / rank) * up @ down."""

    down: Tensor
    """A, shape [rank, in features]."""
    up: Tensor
    """B, shape [out features, rank]."""
    alpha: float
    """LoRA's alpha."""

    @property
    def rank(self) -> int:
        """Number of rows of A."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class LoraState:
    """One adapter, ready to be applied."""

    modules: Mapping[str, LoraModule]
    """By module path inside the transformer, e.g. `transformer_blocks.0.attn.to_q`."""

    @cached_property
    def rank(self) -> int:
        """The largest rank of its modules."""
        return max(module.rank for module in self.modules.values())

    @cached_property
    def alpha(self) -> float:
        """The most common alpha of its modules."""
        return Counter(module.alpha for module in self.modules.values()).most_common(1)[0][0]

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(module.down.numel() + module.up.numel() for module in self.modules.values())


def layout_of(keys: Mapping[str, Any]) -> Layout:
    """Which layout the keys of a file are in."""
    return "peft" if any(key.startswith(_PEFT_PREFIX) and not _is_bfl(key) for key in keys) else "diffusers"


def stand_ins(header: AdapterHeader) -> dict[str, Tensor]:
    """Tensors of the header's shapes that take no memory, to run a conversion before a weight is read."""
    one = torch.ones((), dtype=torch.bfloat16)
    return {key: one.expand(info.shape) for key, info in header.tensors.items()}


def canonical(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], where: str, *, alpha: float | None = None
) -> LoraState:
    """Brings the tensors of a file, in any known layout, into the one form.

    `alpha` serves files of peft's layout, which state none. Raises `AdapterError` naming `where` for a layout that is
    unknown or cannot be applied. Tensors keep their number format; nothing is checked against a base here.
    """
    _refuse(state, where)
    layout = layout_of(state)
    try:
        converted, alphas, _ = cast(
            tuple[dict[str, Tensor], dict[str, Tensor] | None, Any],
            FluxFillPipeline.lora_state_dict(
                {_with_prefix(key): tensor for key, tensor in state.items()},
                return_alphas=True,
                return_lora_metadata=True,
            ),
        )
        converted = {_without_prefix(key): tensor for key, tensor in converted.items()}
        if not any(".lora_A." in key for key in converted):
            converted = convert_unet_state_dict_to_peft(converted)  # type: ignore[no-untyped-call]
    except Exception as error:  # the converters raise whatever their assumptions break on
        raise AdapterError(
            f"{where} has a key layout that diffusers cannot convert ({type(error).__name__}: {str(error)[:120]}); "
            "export it with FluxFillPipeline.save_lora_weights."
        ) from error
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in converted.items():
        match = _KEY.match(key)
        if match is None or tensor.ndim != 2:
            raise AdapterError(f"{where} holds {key!r}, which is no LoRA weight of a transformer; export it again.")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides:
        raise AdapterError(f"{where} holds no LoRA weights for the transformer; check that it is the right file.")
    for module, pair in sides.items():
        if len(pair) != 2 or pair["A"].shape[0] != pair["B"].shape[1] or not pair["A"].shape[0]:
            raise AdapterError(f"{where} has no matching pair of LoRA weights for {module!r}; export it again.")
    ranks = {module: int(pair["A"].shape[0]) for module, pair in sides.items()}
    stated = _alphas(ranks, alphas or {}, metadata, where)
    if stated is None:
        if layout == "peft" and alpha is None:
            raise AdapterError(f"{where} is a peft file, which states no alpha; state it in the manifest.")
        stated = {
            module: float(rank) if layout == "diffusers" else cast(float, alpha) for module, rank in ranks.items()
        }
    return LoraState({name: LoraModule(pair["A"], pair["B"], stated[name]) for name, pair in sorted(sides.items())})


def _refuse(keys: Mapping[str, Any], where: str) -> None:
    for pattern, reason in _REFUSED:
        for key in keys:
            if pattern.search(key):
                raise AdapterError(f"{where} {reason} (key {key[:120]!r}).")


def _is_bfl(key: str) -> bool:
    """Whether a key uses Black Forest Labs' module names rather than diffusers'."""
    return "double_blocks." in key or (".single_blocks." in key)


def _with_prefix(key: str) -> str:
    if key.startswith(_PEFT_PREFIX) and not _is_bfl(key):
        key = key.removeprefix(_PEFT_PREFIX)
    return _PREFIX + key if key.startswith(_ROOTS) else key


def _without_prefix(key: str) -> str:
    return key.removeprefix(_PREFIX)


def _alphas(
    ranks: Mapping[str, int], keys: Mapping[str, Tensor], metadata: Mapping[str, str], where: str
) -> dict[str, float] | None:
    """Alpha per module as the file states it, by diffusers' rules; None where it states none."""
    config = _metadata_config(metadata, where)
    if keys and config:
        raise AdapterError(f"{where} states alpha twice, in keys and in metadata; export it again with one of them.")
    if keys:
        values = {_without_prefix(key).split(".lora_A.")[0].replace(".alpha", ""): float(v) for key, v in keys.items()}
        common = Counter(values.values()).most_common(1)[0][0]
        return {module: values.get(module, common) for module in ranks}
    if not config:
        return None
    if config.get("use_dora") or config.get("lora_bias"):
        raise AdapterError(f"{where} is a DoRA or trains biases, which cannot be mixed per row; export a plain LoRA.")
    pattern = config.get("alpha_pattern") or {}
    try:
        alphas = {
            module: float(pattern.get(get_pattern_key(list(pattern), module), config["lora_alpha"])) for module in ranks
        }
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise AdapterError(f"{where} has LoRA metadata without a usable alpha; export it again.") from error
    if config.get("use_rslora"):  # rsLoRA scales by alpha / sqrt(rank)
        alphas = {module: value * math.sqrt(ranks[module]) for module, value in alphas.items()}
    return alphas


def _metadata_config(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    text = metadata.get(METADATA_KEY)
    if text is None:
        return {}
    try:
        fields = json.loads(text)
        return {_without_prefix(key): value for key, value in fields.items()}
    except (ValueError, AttributeError) as error:
        raise AdapterError(f"{where} has broken LoRA metadata; export it again.") from error
