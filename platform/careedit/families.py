"""What is known of each family of bases before any weight is read. No torch: the ingress and the planner read this too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from careedit.errors import ExpertError

INDEX = "model_index.json"
"""The file that names the pipeline class of a folder and its components."""

GuidanceKind = Literal["embedded", "branches", "none"]
"""How a base takes guidance: as an input of the transformer, as a second row without the instruction, or not at all."""

Quantisation = Literal["fp8", "int8", "nf4"]
"""Number formats of a quantised transformer: 8-bit floats, 8-bit integers, 4-bit normal floats."""

QUANTISED_BYTES: Mapping[str, float] = MappingProxyType({"fp8": 1.0, "int8": 1.0, "nf4": 0.5 + 4 / 64})
"""Bytes of a quantised weight. The scales of fp8 and int8 are one per output; nf4 has a 4-byte scale per 64 weights."""


def in_blocks(path: str) -> bool:
    """Whether a module of a transformer belongs to one of its numbered blocks, whose linear layers are quantised."""
    return path.split(".")[1:2] != [] and path.split(".")[1].isdigit()


@dataclass(frozen=True)
class Facts:
    """One family of bases: a diffusers pipeline class, and what editing, experts and serving need to know about it."""

    name: str
    """Name of the family, as configurations and traces show it."""
    pipeline: str
    """The diffusers class that `model_index.json` names in `_class_name`."""
    components: Mapping[str, str]
    """Class of each component by the component's name; a subclass is accepted."""
    lora_mixin: str
    """The class of `diffusers.loaders` that converts LoRA files for this family; "" where diffusers has none."""
    targets: str
    """Pattern over module paths: every attention and feed-forward projection, the usual targets of a LoRA."""
    layout: Literal["canvas", "sequence"]
    """"canvas": source and target are panels of one picture. "sequence": the pictures' tokens follow the target's."""
    guidance: GuidanceKind
    """How this family takes guidance, unless its configuration says otherwise (`BaseShapes.takes_guidance`)."""
    default_guidance: float
    """Guidance scale of an edit that names none, as in the diffusers pipeline."""
    default_steps: int
    """Denoising steps that the family's released weights are meant for."""
    references: int
    """Maximum number of references next to the source."""
    mask: Literal["native", "kept"]
    """"native": the transformer reads the mask. "kept": latents outside the mask are set to the source's after each step."""
    multiple: int
    """Panel sides are multiples of this many pixels."""
    text_tokens: int
    """Maximum number of tokens of a prompt."""
    shift: Literal["linear", "fitted"] = field(default="linear", kw_only=True)
    """How the schedule's shift depends on the number of tokens: "linear" by the scheduler's settings, "fitted" by a formula."""
    licence: str
    """Licence of the released weights, for people to read before they use them."""
    variants: Mapping[str, tuple[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    """Switches that distinguish bases of the same shapes: the names of the variants without and with each switch."""

    @property
    def text_components(self) -> tuple[str, ...]:
        """The components that read prompts: text encoders, their tokenizers and processors."""
        return tuple(name for name in self.components if name not in ("transformer", "vae", "scheduler"))

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The components that read prompts and have weights."""
        return tuple(name for name in self.components if name.startswith("text_encoder"))

    @property
    def starts(self) -> tuple[str, ...]:
        """What denoising may start from: "noise", and for the canvas layout also "source"."""
        return ("noise", "source") if self.layout == "canvas" else ("noise",)


_FLUX1 = (
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|transformer_blocks\.\d+\.(ff|ff_context)\.net\.(0\.proj|2)"
    r"|single_transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v)|proj_mlp|proj_out)"
)
_FLUX2 = (
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|transformer_blocks\.\d+\.(ff|ff_context)\.(linear_in|linear_out)"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
)
_QWEN = (
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|transformer_blocks\.\d+\.(img_mlp|txt_mlp)\.net\.(0\.proj|2)"
)
_FLUX1_COMPONENTS = {
    "transformer": "FluxTransformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "PreTrainedTokenizerBase",
    "text_encoder_2": "T5EncoderModel",
    "tokenizer_2": "PreTrainedTokenizerBase",
    "scheduler": "FlowMatchEulerDiscreteScheduler",
}
_KLEIN_COMPONENTS = {
    "transformer": "Flux2Transformer2DModel",
    "vae": "AutoencoderKLFlux2",
    "text_encoder": "Qwen3ForCausalLM",
    "tokenizer": "PreTrainedTokenizerBase",
    "scheduler": "FlowMatchEulerDiscreteScheduler",
}
_BFL = "FLUX.1 [dev] Non-Commercial License"

FLUX_FILL = Facts(
    name="flux-fill",
    pipeline="FluxFillPipeline",
    components=MappingProxyType(_FLUX1_COMPONENTS),
    lora_mixin="FluxLoraLoaderMixin",
    targets=_FLUX1,
    layout="canvas",
    guidance="embedded",
    default_guidance=30.0,
    default_steps=28,
    references=1,
    mask="native",
    multiple=16,
    text_tokens=512,
    licence=_BFL,
)
FLUX_KONTEXT = Facts(
    name="flux-kontext",
    pipeline="FluxKontextPipeline",
    components=MappingProxyType(_FLUX1_COMPONENTS),
    lora_mixin="FluxLoraLoaderMixin",
    targets=_FLUX1,
    layout="sequence",
    guidance="embedded",
    default_guidance=3.5,
    default_steps=28,
    references=0,  # the weights were trained on one picture
    mask="kept",
    multiple=16,
    text_tokens=512,
    licence=_BFL,
)
FLUX2_KLEIN = Facts(
    name="flux2-klein",
    shift="fitted",
    pipeline="Flux2KleinPipeline",
    components=MappingProxyType(_KLEIN_COMPONENTS),
    lora_mixin="Flux2LoraLoaderMixin",
    targets=_FLUX2,
    layout="sequence",
    guidance="branches",
    default_guidance=4.0,
    default_steps=50,
    references=3,
    mask="kept",
    multiple=16,
    text_tokens=512,
    licence="Apache-2.0 (klein 4B and base 4B); FLUX Non-Commercial License (9B)",
    variants=MappingProxyType({"is_distilled": ("base", "distilled")}),
)
FLUX2_KLEIN_KV = replace(
    FLUX2_KLEIN,
    name="flux2-klein-kv",
    pipeline="Flux2KleinKVPipeline",
    guidance="none",
    default_steps=4,
    licence="FLUX Non-Commercial License",
    variants=MappingProxyType({}),
)
QWEN_EDIT_PLUS = Facts(
    name="qwen-image-edit-plus",
    pipeline="QwenImageEditPlusPipeline",
    components=MappingProxyType(
        {
            "transformer": "QwenImageTransformer2DModel",
            "vae": "AutoencoderKLQwenImage",
            "text_encoder": "Qwen2_5_VLForConditionalGeneration",
            "tokenizer": "PreTrainedTokenizerBase",
            "processor": "ProcessorMixin",
            "scheduler": "FlowMatchEulerDiscreteScheduler",
        }
    ),
    lora_mixin="QwenImageLoraLoaderMixin",
    targets=_QWEN,
    layout="sequence",
    guidance="branches",
    default_guidance=4.0,
    default_steps=40,
    references=2,
    mask="kept",
    multiple=32,
    text_tokens=1024,
    licence="Apache-2.0",
    variants=MappingProxyType({"zero_cond_t": ("2509", "2511")}),
)
LONGCAT_EDIT = Facts(
    name="longcat-image-edit",
    pipeline="LongCatImageEditPipeline",
    components=MappingProxyType(
        {
            "transformer": "LongCatImageTransformer2DModel",
            "vae": "AutoencoderKL",
            "text_encoder": "Qwen2_5_VLForConditionalGeneration",
            "tokenizer": "PreTrainedTokenizerBase",
            "text_processor": "ProcessorMixin",
            "scheduler": "FlowMatchEulerDiscreteScheduler",
        }
    ),
    lora_mixin="",
    targets=_FLUX1,
    layout="sequence",
    guidance="branches",
    default_guidance=4.5,
    default_steps=50,
    references=0,
    mask="kept",
    multiple=16,
    text_tokens=512,
    licence="Apache-2.0",
)

FACTS: Mapping[str, Facts] = MappingProxyType(
    {
        facts.pipeline: facts
        for facts in (FLUX_FILL, FLUX_KONTEXT, FLUX2_KLEIN, FLUX2_KLEIN_KV, QWEN_EDIT_PLUS, LONGCAT_EDIT)
    }
)
"""The families by pipeline class. It is fixed: the index of a downloaded folder must not decide which code runs."""


def facts_of_pipeline(pipeline: object, where: str) -> Facts:
    """The family that loads the pipeline class `pipeline`; raises `ExpertError` naming `where` and those that work."""
    facts = FACTS.get(pipeline) if isinstance(pipeline, str) else None
    if facts is None:
        raise ExpertError(f"The base {where!r} is a {pipeline}; the pipelines that work are {', '.join(FACTS)}.")
    return facts


def read_index(path_or_hub_id: str | Path, *, revision: str | None = None) -> tuple[str, dict[str, Any]]:
    """The name of a base as diffusers takes it, and its `model_index.json`; raises `ExpertError` if it is missing.

    Of a hub id only the index is fetched, so another kind of pipeline is refused before gigabytes are fetched.
    """
    from huggingface_hub import hf_hub_download  # here, since most callers read a folder
    from huggingface_hub.errors import GatedRepoError

    name = str(path_or_hub_id)
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        name = str(folder)
    elif isinstance(path_or_hub_id, Path) or folder.is_absolute() or name.count("/") != 1:
        raise ExpertError(
            f"The base folder {name!r} does not exist; give the folder of a diffusers pipeline or a hub id 'owner/name'."
        )
    try:
        path = folder / INDEX if folder.is_dir() else Path(hf_hub_download(name, INDEX, revision=revision))
        index = json.loads(path.read_text("utf-8"))
    except GatedRepoError as error:
        raise ExpertError(
            f"The hub gives the base {name!r} only to accounts that accepted its licence; accept it on the page of {name}, "
            "then log in with `hf auth login`."
        ) from error
    except (OSError, ValueError) as error:
        what = f"has no readable {INDEX}" if folder.is_dir() else "is not a folder, and the hub does not have it"
        raise ExpertError(f"The base {name!r} {what}; give the folder of a diffusers pipeline or a hub id.") from error
    return name, index if isinstance(index, dict) else {}
