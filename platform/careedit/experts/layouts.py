"""The header and keys of a LoRA file: its layout, and the meaning of each key.

Every key is accounted for: it is a matrix of a pair, or a pair's alpha. Otherwise the file is refused, and the error names
the key. `careedit.experts.conversion` sees to it that every pair reaches the transformer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from careedit.errors import AdapterError
from careedit.families import Facts

Layout = Literal["diffusers", "peft"]

PREFIX, PEFT_PREFIX, BFL_PREFIX, KOHYA_PREFIX = "transformer.", "base_model.model.", "diffusion_model.", "lora_unet_"
KEY = re.compile(
    r"^(?P<layer>.+?)\.(?:lora_(?P<ab>[AB])(?:\.default)?\.weight|(?:lora[._])?(?P<way>down|up)\.weight|(?P<alpha>alpha))$"
)
_BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")
_FLUX1 = (*_BLOCKS, "x_embedder.", "context_embedder.", "time_text_embed.", "norm_out.", "proj_out.")
_ROOTS: Mapping[str, tuple[str, ...]] = {
    "FluxTransformer2DModel": _FLUX1,
    "LongCatImageTransformer2DModel": (*_FLUX1, "time_embed."),
    "Flux2Transformer2DModel": (
        *_BLOCKS,
        "x_embedder.",
        "context_embedder.",
        "time_guidance_embed.",
        "double_stream_modulation_img.linear.",
        "double_stream_modulation_txt.linear.",
        "single_stream_modulation.linear.",
        "norm_out.",
        "proj_out.",
    ),
    "QwenImageTransformer2DModel": (*_BLOCKS[:1], "img_in.", "txt_in.", "time_text_embed.", "norm_out.", "proj_out."),
}
"""How module paths start, by the class of the transformer."""
_BFL = re.compile(r"(^|\.)(double_blocks|single_blocks|final_layer|(img|txt|time|vector|guidance)_in)\.")
_REFUSED = (
    (
        re.compile(r"(^|[._])(experts?|moe|router|route|gating|gate)([._]|\d|$)"),
        "is a MoE-LoRA, several experts and a token router inside each layer, which no LoRA loader takes; use the "
        + "normal LoRA of the same release, or average its experts into one LoRA first",
    ),
    (re.compile(r"dora_scale|lora_magnitude_vector"), "is a DoRA, which cannot be mixed per row; export a plain LoRA"),
    (
        re.compile(r"lokr_|hada_|lora_mid|oft_|\.boft|glora"),
        "is not a plain LoRA (LoKr, LoHa, Tucker, OFT); export one",
    ),
    (
        re.compile(r"\.diff(_b)?$|\.set_weight$"),
        "also changes weights or biases directly; export the LoRA alone",
    ),
    (re.compile(r"\.bias$|lora_bias"), "also trains biases; train it with bias='none'"),
    (
        re.compile(r"^(text_encoder|lora_te|text_encoders\.|text_model\.|lora_prior_te|te\d?[._]|clip_[lg]\.|t5xxl\.)"),
        "also changes a text encoder, which experts share; export its transformer part alone",
    ),
    (re.compile(r"(norm_q|norm_k|norm_added_q|norm_added_k|query_norm|key_norm)\."), "is a control LoRA with norms"),
)


DTYPES = ("F64", "F32", "F16", "BF16")
"""Number formats that an adapter may use."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class AdapterHeader:
    """The names and shapes of all tensors of a file, and its metadata."""

    tensors: Mapping[str, tuple[int, ...]]
    """Shape of each tensor by its key, in the order of the data."""
    metadata: Mapping[str, str]
    """Text fields of the header, by name."""


def read_header(path: Path, dtypes: Sequence[str] = DTYPES) -> AdapterHeader:
    """Reads and checks the header of `path`, whose tensors have one of the `dtypes`, under safetensors' names.

    A pickle, a truncated or an inconsistent file raises `AdapterError`.

    The safetensors library checks the format (https://huggingface.co/docs/safetensors): the header's length and JSON, each
    tensor's bytes against its type and shape, no gaps, no overlaps, and the file's size.
    """
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path.name} is not a .safetensors file; other formats can run code when they are opened.")
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
        with safe_open(path, framework="numpy") as file:  # maps the file, and reads only its header
            tensors = {}
            for key in file.offset_keys():
                entry = file.get_slice(key)
                if entry.get_dtype() not in dtypes:
                    raise AdapterError(
                        f"{path.name} stores {key!r} as {entry.get_dtype()}; such a file has {', '.join(dtypes)} only; "
                        "convert it to one of them."
                    )
                tensors[key] = tuple(entry.get_shape())
            return AdapterHeader(tensors=tensors, metadata=file.metadata() or {})
    except OSError as error:
        raise AdapterError(f"{path.name} cannot be read ({error.strerror}); check that it exists.") from error
    except SafetensorError as error:
        # Only after safetensors refuses it: the length of a good header may start with a pickle's bytes (640 is 80 02).
        if start.startswith(_PICKLES):
            raise AdapterError(f"{path.name} is a pickle named .safetensors; convert it to safetensors.") from error
        raise AdapterError(f"{path.name} is not a valid safetensors file ({error}); get it again.") from error


@dataclass(frozen=True)
class Layer:
    """One pair of matrices of a file, under the file's own name."""

    down: Tensor
    """The matrix A, shape [rank, in features]."""
    up: Tensor
    """The matrix B, shape [out features, rank]."""
    alpha: Tensor | None
    """The layer's own alpha, a single value; None if the file does not state it."""

    @property
    def rank(self) -> int:
        """Number of rows of A."""
        return int(self.down.shape[0])


def is_flux1(family: Facts) -> bool:
    """Whether diffusers reads LoRA files for this family as for FLUX.1."""
    return family.lora_mixin == "FluxLoraLoaderMixin"


def is_own(layer: str, family: Facts) -> bool:
    """Whether a layer's name, without prefixes, is a module path of the family's transformer class in diffusers."""
    return f"{layer}.".startswith(_ROOTS[family.components["transformer"]])


def is_bfl(key: str, family: Facts) -> bool:
    """Whether a key uses Black Forest Labs' module names rather than diffusers'."""
    return _BFL.search(key) is not None if is_flux1(family) else not is_own(module_of(key), family)


def with_prefix(key: str, family: Facts) -> str:
    """A key with diffusers' prefix in place of peft's or none, if it has diffusers' own name."""
    if key.startswith(PEFT_PREFIX) and not is_bfl(key, family):
        key = key.removeprefix(PEFT_PREFIX)
    return PREFIX + key if is_own(key, family) else key


def layout_of(keys: Mapping[str, Any], family: Facts) -> Layout:
    """The layout of the keys of a file, as a manifest states it."""
    return "peft" if any(key.startswith(PEFT_PREFIX) and not is_bfl(key, family) for key in keys) else "diffusers"


def name_of_layout(keys: Mapping[str, Any], family: Facts) -> str:
    """The display name of a file's layout; for FLUX.1 the tests are those of `lora_state_dict`, in its order."""
    if layout_of(keys, family) == "peft":
        return "peft"
    down = any(".lora_down.weight" in key for key in keys)
    if not is_flux1(family):
        prefixes = {KOHYA_PREFIX: "kohya", PEFT_PREFIX: "peft, other names", BFL_PREFIX: "ai-toolkit / ComfyUI"}
        found = (name for prefix, name in prefixes.items() if any(key.startswith(prefix) for key in keys))
        return next(found, "diffusers with lora_down" if down else "diffusers")
    if down:
        named = any(with_prefix(key, family).startswith(PREFIX) for key in keys)
        return "diffusers with lora_down" if named else "kohya / ComfyUI"
    if any("processor" in key for key in keys):
        return "XLabs"
    if any(PEFT_PREFIX in key for key in keys):
        return "fal"
    return "diffusers"


def module_of(layer: str) -> str:
    """The module path of a layer, in the layouts that use diffusers' own names."""
    return layer.removeprefix(PEFT_PREFIX).removeprefix(BFL_PREFIX).removeprefix(PREFIX)


def folds_alpha(keys: Mapping[str, Any], family: Facts) -> bool:
    """Whether the conversion multiplies each layer's alpha / rank into its matrices."""
    return is_flux1(family) and name_of_layout(keys, family) == "kohya / ComfyUI"


def check_alpha_keys(layers: Mapping[str, Layer], layout: str, family: Facts, where: str) -> None:
    """Raises `AdapterError` for an alpha that is negative or infinite, or that this layout's conversion drops."""
    for name, layer in layers.items():
        if layer.alpha is None:
            continue
        value = float(layer.alpha)
        if not (math.isfinite(value) and value >= 0):
            raise AdapterError(
                f"{where} states the alpha {value:g} for {name[:120]!r}; an alpha must be finite and at least 0."
            )
        if is_flux1(family) and layout not in ("diffusers", "kohya / ComfyUI", "peft"):
            raise AdapterError(
                f"{where} states {f'{name}.alpha'[:120]!r}, which load_lora_weights drops in this layout; export it "
                "with {family.pipeline}.save_lora_weights."
            )


def stand_ins(header: AdapterHeader, *, up: float = 1.0) -> dict[str, Tensor]:
    """Tensors of the header's shapes that take no memory, to try a conversion before a weight is read.

    `up` fills B: the conversion splits a fused layer whose B is block-diagonal, as one of zeros is, into smaller ranks.
    """
    one, filled = torch.ones((), dtype=torch.bfloat16), torch.full((), up, dtype=torch.bfloat16)
    return {
        key: (filled if key.endswith((".lora_up.weight", ".lora_B.weight")) else one).expand(shape)
        for key, shape in header.tensors.items()
    }


def layers_of(state: Mapping[str, Tensor], where: str) -> dict[str, Layer]:
    """The pairs of a file by its own layer names; raises `AdapterError` for a key that belongs to no pair."""
    for pattern, reason in _REFUSED:
        for key in state:
            if pattern.search(key):
                raise AdapterError(f"{where} {reason} (key {key[:120]!r}).")
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        match = KEY.match(key)
        if match is None:
            raise AdapterError(
                f"{where} holds {key[:120]!r}, which is not a LoRA weight of a transformer; export it again, or without "
                "this key."
            )
        part = "alpha" if match["alpha"] else "down" if "A" in (match["ab"] or "") or match["way"] == "down" else "up"
        found = parts.setdefault(match["layer"], {})
        if part in found:
            raise AdapterError(f"{where} states {match['layer'][:120]!r} twice, in two layouts; keep one of them.")
        found[part] = tensor
    if not parts:
        raise AdapterError(f"{where} holds no LoRA weights for the transformer; check that it is the right file.")
    return {name: _layer(name, found, where) for name, found in parts.items()}


def _layer(name: str, found: Mapping[str, Tensor], where: str) -> Layer:
    down, up, alpha = found.get("down"), found.get("up"), found.get("alpha")
    shown = name.removeprefix(PREFIX)[:120]
    paired = down is not None and up is not None and down.ndim == up.ndim == 2
    if not paired or down is None or up is None or down.shape[0] != up.shape[1] or not down.shape[0]:
        shapes = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in found.items())
        raise AdapterError(f"{where} has no matching pair of LoRA weights for {shown!r} ({shapes}); export it again.")
    if alpha is not None and alpha.numel() != 1:
        raise AdapterError(f"{where} states {alpha.numel()} values as the alpha of {shown!r}; it must be one value.")
    return Layer(down, up, alpha)
