"""Pipelines of real size with random weights, made on the device itself, for measurements that need no download.

The configurations are those of the released weights. Reduced ones have the same classes and a few thousand weights, so that
a CPU runs the same code. Speed does not depend on the values of weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from careedit.editing import FAMILIES, EditJob, Family
from careedit.experts import BaseShapes, LoraModule, LoraState, MemoryLibrary, shapes_of
from careedit.families import FLUX2_KLEIN, FLUX_FILL, FLUX_KONTEXT, QWEN_EDIT_PLUS, Facts
from careedit.images import canvas_mask, compose_canvas

Config = Mapping[str, Any]

_FLUX1_VAE: Config = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_FEW_CHANNELS: Config = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
_CLIP: Config = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_T5: Config = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"}  # fmt: skip
_QWEN3: Config = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
_SMALL_QWEN3: Config = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 28,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "tie_word_embeddings": True,
}
_VISION: Config = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN_VL: Config = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
}
_SMALL_VISION: Config = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [1]}  # fmt: skip
_SMALL_VL: Config = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
}
_SMALL_HEADS: Config = {"num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2}
_TOKENS = ("<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")  # fmt: skip
_CHAT = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """Configurations of a pipeline's networks, each what distinguishes it from the defaults of its class."""

    transformer: Config
    """Configuration of the transformer."""
    vae: Config = field(default_factory=dict)
    """Configuration of the autoencoder."""
    text: Config = field(default_factory=dict)
    """Configuration of the text encoder: T5's, Qwen3's, or the language part of Qwen2.5-VL."""
    other: Config = field(default_factory=dict)
    """Configuration of the second encoder: CLIP's, or the vision part of Qwen2.5-VL."""


@dataclass(frozen=True)
class Kind:
    """One base that can be measured."""

    facts: Facts
    """Its family."""
    steps: int
    """Denoising steps of the released weights."""
    real: Size
    """Configurations of the released weights."""
    reduced: Size
    """Small configurations of the same classes."""
    options: Config = field(default_factory=dict)
    """Plain values of the pipeline's configuration."""


def _flux1(facts: Facts, real: int, reduced: int) -> Kind:
    small_vae = {**_FLUX1_VAE, **_FEW_CHANNELS, "latent_channels": 4}
    small = {**_SMALL_HEADS, "num_single_layers": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32}
    small |= {"in_channels": reduced, "out_channels": 16, "guidance_embeds": True, "axes_dims_rope": (8, 12, 12)}
    return Kind(
        facts,
        28,
        Size({"in_channels": real, "out_channels": 64, "guidance_embeds": True}, _FLUX1_VAE, _T5, _CLIP),
        Size(
            small,
            small_vae,
            {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 64},
            {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
        ),
    )


_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "klein": Kind(
            FLUX2_KLEIN,
            4,
            Size({"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False}, {}, _QWEN3),  # fmt: skip
            Size(
                {**_SMALL_HEADS, "num_single_layers": 2, "in_channels": 16, "joint_attention_dim": 48, "guidance_embeds": False, "axes_dims_rope": (8, 8, 8, 8)},  # fmt: skip
                {**_FEW_CHANNELS, "latent_channels": 4},
                _SMALL_QWEN3,
            ),
            {"is_distilled": True},
        ),
        "qwen": Kind(
            QWEN_EDIT_PLUS,
            40,
            Size({"zero_cond_t": True}, {}, _QWEN_VL, _VISION),
            Size(
                {**_SMALL_HEADS, "in_channels": 16, "out_channels": 4, "joint_attention_dim": 32, "axes_dims_rope": (8, 12, 12), "zero_cond_t": True},  # fmt: skip
                {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4},  # fmt: skip
                _SMALL_VL,
                {**_VISION, **_SMALL_VISION},
            ),
        ),
        "fill": _flux1(FLUX_FILL, 384, 2 * 16 + 256),
        "kontext": _flux1(FLUX_KONTEXT, 64, 16),
    }
)

NAMES = tuple(_KINDS)
"""The bases that can be measured."""


@dataclass(frozen=True, eq=False)
class Base:
    """A base with random weights and experts."""

    kind: Kind
    """What was built."""
    family: Family
    """The base as the engine takes it."""
    pipeline: Any
    """diffusers' own pipeline over the same components."""
    library: MemoryLibrary
    """Random experts on every attention and feed-forward projection, in the memory of the device."""
    shapes: BaseShapes
    """Parameter shapes of the transformer."""

    def stock(self, job: EditJob) -> Any:
        """Run an edit by diffusers' own pipeline; returns its picture."""
        width, height = job.source.size
        call: dict[str, Any] = {
            "image": job.source,
            "prompt": self.family.prompt(job),
            "width": width,
            "height": height,
            "num_inference_steps": job.steps,
            "generator": torch.Generator("cpu").manual_seed(job.seed),
        }
        if self.kind.facts is FLUX_FILL:
            canvas = compose_canvas([job.source, job.source])
            call |= {"image": canvas, "mask_image": canvas_mask(2, job.source.size, None), "width": canvas.width}
        elif self.kind.facts is FLUX2_KLEIN:
            call |= {"guidance_scale": 1.0}  # distilled
        elif self.kind.facts is FLUX_KONTEXT:
            call |= {"max_area": width * height, "_auto_resize": False}
        elif self.kind.facts is QWEN_EDIT_PLUS:
            call |= {"negative_prompt": " ", "true_cfg_scale": self.kind.facts.default_guidance}
        return self.pipeline(**call).images[0]


def build_base(
    name: str, *, reduced: bool, experts: int, rank: int, device: torch.device, dtype: torch.dtype
) -> Base:
    """The base `name` of `NAMES`. Weights are made on the device; nothing of their size passes through the host."""
    kind = _KINDS[name]
    facts = kind.facts
    built = _networks(facts, kind.reduced if reduced else kind.real)
    made = {name: _filled(network, device, dtype) for name, network in built.items()}
    for part in facts.components:
        if part.startswith("tokenizer"):
            made[part] = _tokenizer(77 if part == "tokenizer" and "tokenizer_2" in facts.components else 512)
    if "processor" in facts.components:
        made["processor"] = transformers.Qwen2VLProcessor(
            image_processor=transformers.Qwen2VLImageProcessor(),
            tokenizer=made["tokenizer"],
            video_processor=transformers.Qwen2VLVideoProcessor(),
            chat_template=_CHAT,
        )
    settings = {"use_dynamic_shifting": True, "shift": 3.0}
    made["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(**settings)
    pipeline = getattr(diffusers, facts.pipeline)(**made, **kind.options)
    pipeline.set_progress_bar_config(disable=True)
    family = FAMILIES[facts.pipeline].from_pipeline(pipeline)
    shapes = shapes_of(family.transformer, facts, pipeline.config)
    adapters = {f"expert{number}": _adapter(shapes, rank, device, dtype) for number in range(experts)}
    return Base(kind, family, pipeline, MemoryLibrary(adapters, shapes), shapes)


def _networks(facts: Facts, size: Size) -> dict[str, nn.Module]:
    """The networks with their parameters on the meta device and their buffers on the CPU."""
    made: dict[str, Any] = {}
    with init_empty_weights(include_buffers=False):
        for part in ("transformer", "vae"):
            kind = getattr(diffusers, facts.components[part])
            made[part] = kind(**(size.transformer if part == "transformer" else size.vae))
        encoder = facts.components["text_encoder"]
        if encoder == "CLIPTextModel":
            clip: Any = transformers.CLIPTextConfig
            made["text_encoder"] = transformers.CLIPTextModel(clip(**size.other))
            made["text_encoder_2"] = transformers.T5EncoderModel(cast(Any, transformers.T5Config)(**size.text))
        elif encoder == "Qwen3ForCausalLM":
            made["text_encoder"] = transformers.Qwen3ForCausalLM(cast(Any, transformers.Qwen3Config)(**size.text))
        else:
            ids = {f"{one}_token_id": _TOKENS.index(f"<|{two}|>") for one, two in (
                ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end")
            )}  # fmt: skip
            config = cast(Any, transformers.Qwen2_5_VLConfig)(text_config=size.text, vision_config=size.other, **ids)
            made["text_encoder"] = transformers.Qwen2_5_VLForConditionalGeneration(config)
    for network in made.values():
        if isinstance(network, transformers.PreTrainedModel):
            network.tie_weights()  # the meta device lost it
    return made


@torch.no_grad()
def _filled(network: Any, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network on the device: matrices at random, vectors as norms and biases start, buffers as they were made."""
    made: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in made:
                value = torch.empty(parameter.shape, dtype=dtype, device=device)
                if value.dim() > 1:
                    value.normal_(0.0, float(value[0].numel()) ** -0.5)
                else:
                    value.fill_(0.0 if name == "bias" else 1.0)
                made[id(parameter)] = nn.Parameter(value, requires_grad=False)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return cast(nn.Module, network.eval())


def _tokenizer(length: int) -> Any:
    """One token per word, all of them unknown: about as many tokens as the released tokenizers make of a sentence."""
    words = Tokenizer(models.WordLevel({token: number for number, token in enumerate(_TOKENS)}, unk_token=_TOKENS[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": _TOKENS[0], "pad_token": _TOKENS[1], "eos_token": _TOKENS[1]}
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=length, extra_special_tokens=list(_TOKENS[2:]), **special
    )
    made.chat_template = _CHAT
    return made


def _adapter(shapes: BaseShapes, rank: int, device: torch.device, dtype: torch.dtype) -> LoraState:
    modules = {
        name: LoraModule(
            torch.randn(rank, inner, device=device, dtype=dtype) / inner**0.5,
            torch.randn(outer, rank, device=device, dtype=dtype) * 0.02,
            float(rank),
        )
        for name, (outer, inner) in shapes.linear.items()
        if re.fullmatch(shapes.family.targets, name)
    }
    return LoraState(modules)
