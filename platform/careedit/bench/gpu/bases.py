"""Pipelines of real size with random weights, made on the device itself, for measurements that need no download.

`bases.yaml` has the configurations. Speed does not depend on the values of weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, cast

import diffusers
import torch
import transformers
import yaml
from accelerate import init_empty_weights
from pydantic import Field
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from careedit.bench.stock import run_stock
from careedit.editing import FAMILIES, EditJob, Family
from careedit.experts import BaseShapes, LoraModule, LoraState, MemoryLibrary, shapes_of
from careedit.families import FACTS, Facts
from careedit.record import Record

Config = Mapping[str, Any]

_TOKENS = (
    "<unk>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CHAT = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


class Size(Record):
    """Configurations of a pipeline's networks, each without the defaults of its class."""

    transformer: Config
    """Configuration of the transformer, which predicts the velocity."""
    vae: Config = Field(default_factory=dict)
    """Configuration of the autoencoder. Default: that of its class."""
    text: Config
    """Configuration of the text encoder: T5's, Qwen3's, or the language part of Qwen2.5-VL."""
    second: Config = Field(default_factory=dict)
    """Configuration of the second encoder: CLIP's, or the vision part of Qwen2.5-VL. Default: there is one encoder."""


class Kind(Record):
    """One base that can be measured."""

    pipeline: str
    """Its pipeline class, which names the family."""
    steps: int
    """Number of denoising steps of the released weights."""
    real: Size
    """Configurations of the released weights."""
    reduced: Size
    """Small configurations of the same classes, for a CPU."""
    options: Config = Field(default_factory=dict)
    """Plain values of the pipeline's configuration. Default: none are set."""

    @property
    def facts(self) -> Facts:
        """The family."""
        return FACTS[self.pipeline]


_TEXT = files(__package__).joinpath("bases.yaml").read_text("utf-8")
_KINDS: Mapping[str, Kind] = MappingProxyType({name: Kind(**fields) for name, fields in yaml.safe_load(_TEXT).items()})
NAMES = tuple(_KINDS)
"""The bases that can be measured."""


@dataclass(frozen=True, eq=False)
class Base:
    """A base with random weights and experts."""

    kind: Kind
    """The kind of base that was built."""
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
        return run_stock(self.pipeline, self.family, job)


def build_base(name: str, *, reduced: bool, experts: int, rank: int, device: torch.device, dtype: torch.dtype) -> Base:
    """The base `name` of `NAMES`. Weights are made on the device; nothing of their size passes through the host."""
    kind = _KINDS[name]
    facts = kind.facts
    built = _networks(facts, kind.reduced if reduced else kind.real)
    made: dict[str, Any] = {name: _filled(network, device, dtype) for name, network in built.items()}
    for part in facts.components:
        if part.startswith("tokenizer"):
            made[part] = _tokenizer(77 if part == "tokenizer" and "tokenizer_2" in facts.components else 512)
    if "processor" in facts.components:
        made["processor"] = cast(Any, transformers.Qwen2VLProcessor)(
            image_processor=transformers.Qwen2VLImageProcessor(),
            tokenizer=made["tokenizer"],
            video_processor=transformers.Qwen2VLVideoProcessor(),
            chat_template=_CHAT,
        )
    settings = {"use_dynamic_shifting": True, "shift": 3.0}
    made["scheduler"] = cast(Any, diffusers.FlowMatchEulerDiscreteScheduler)(**settings)
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
            made["text_encoder"] = transformers.CLIPTextModel(clip(**size.second))
            made["text_encoder_2"] = transformers.T5EncoderModel(cast(Any, transformers.T5Config)(**size.text))
        elif encoder == "Qwen3ForCausalLM":
            made["text_encoder"] = transformers.Qwen3ForCausalLM(cast(Any, transformers.Qwen3Config)(**size.text))
        else:
            ids = {
                f"{one}_token_id": _TOKENS.index(f"<|{two}|>")
                for one, two in (
                    ("image", "image_pad"),
                    ("video", "video_pad"),
                    ("vision_start", "vision_start"),
                    ("vision_end", "vision_end"),
                )
            }
            config = cast(Any, transformers.Qwen2_5_VLConfig)(text_config=size.text, vision_config=size.second, **ids)
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
    made = cast(Any, transformers.PreTrainedTokenizerFast)(
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
