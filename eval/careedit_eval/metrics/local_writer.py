"""A judge that writes, run here: an image-text-to-text model of transformers, with a LoRA of peft if one is given.

EditScore and PVC-Judge are published as such LoRAs of Qwen2.5-VL and Qwen3-VL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from careedit.errors import AdapterError, CareEditError, InputError
from careedit.experts.alphas import config_of_json
from careedit.files import json_digest
from careedit.loading import default_dtype, find_device
from careedit.scoring.sent import TEXT, digest_of_request, probe_picture
from careedit.scoring.vlm import ModelFiles, hash_model
from careedit_eval.errors import MetricError, reason_of
from careedit_eval.metrics.options import LocalJudge
from careedit_eval.metrics.writer import MAX_TOKENS, Message

FACTOR = 28
"""The number by which sides can be divided after `LocalJudge.pixels`, as in the package qwen_vl_utils, whatever the model."""
PREFIX = "base_model.model."
"""The beginning of the names of an adapter's tensors."""
TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
"""The fields of adapter_config.json that say which layers it changes."""
OLDER_NAMES = (
    (re.compile(r"^base_model\.model\.model\.(?=layers\.)"), "base_model.model.model.language_model."),
    (re.compile(r"^base_model\.model\.visual\."), "base_model.model.model.visual."),
)
"""How adapters name their tensors that were saved by transformers before 4.52, and the names since."""


class TransformersWriter:
    """A `Writer` that asks a model message by message, so that an answer does not depend on others."""

    backend = "transformers"

    def __init__(
        self,
        network: Any,
        processor: Any,
        judge: LocalJudge,
        *,
        name: str,
        revision: str,
        weights: Mapping[str, str],
        max_tokens: int | None = MAX_TOKENS,
        system: str = "",
    ) -> None:
        """`weights` are hashes for the identity; `max_tokens` limits an answer, and None means 512; `system` is the system's
        message, and "" leaves it to the model's own template."""
        self.network, self.processor, self.judge = network.eval().requires_grad_(False), processor, judge
        self.model, self.revision = name, revision
        self._weights, self._system = dict(weights), system
        self._max_tokens = MAX_TOKENS if max_tokens is None else max_tokens

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Number format, weights, sampling, and what the processor makes of a message (`careedit.scoring.sent`)."""
        picture = probe_picture(96, 64)
        inputs = self.encode((picture, picture, TEXT))
        shapes = {key: list(getattr(one, "shape", [])) for key, one in inputs.items()}
        reading = {key: str(one) for key, one in self.processor.image_processor.to_dict().items() if key[0] != "_"}
        asked = {"inputs": shapes, "tokens": inputs["input_ids"].tolist(), "pictures": reading}
        sampling = {name: getattr(self.judge, name) for name in ("temperature", "top_p", "top_k", "seed", "pixels")}
        return {
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "request": digest_of_request(asked),
            "sampling": json_digest({**sampling, "max_tokens": self._max_tokens, "system": self._system}),
            **self._weights,
        }

    def write(self, messages: Sequence[Message], *, turn: int = 0) -> list[str | CareEditError]:
        """See `careedit_eval.metrics.writer.Writer`."""
        found: list[str | CareEditError] = []
        for message in messages:
            try:
                found.append(self._write(message, self.judge.seed + turn))
            except (ValueError, TypeError, OSError) as error:
                why = f"The judge's processor refuses the message ({reason_of(error)}); give another picture or text."
                found.append(MetricError(why))
            except MetricError as error:
                found.append(error)
        return found

    def encode(self, message: Message) -> Any:
        """The inputs of one message."""
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": self._resized(part)}
            for part in message
        ]
        system = [{"role": "system", "content": [{"type": "text", "text": self._system}]}] if self._system else []
        return self.processor.apply_chat_template(
            [*system, {"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            # An instruction is a stranger's text: what looks like a control token in it is read as letters.
            sanitize_control_tokens=True,
        )

    @torch.inference_mode()
    def _write(self, message: Message, seed: int) -> str:
        inputs = self.encode(message).to(self.network.device, self.network.dtype)
        length = inputs["input_ids"].shape[1]
        context = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and length + self._max_tokens > context:
            raise MetricError(
                f"The message takes {length} tokens, and its answer up to {self._max_tokens}, but {self.model} reads {context}; "
                "shorten the instruction or give smaller pictures."
            )
        options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self.judge.temperature > 0:
            options = {"do_sample": True} | {
                name: getattr(self.judge, name) for name in ("temperature", "top_p", "top_k")
            }
        device = self.network.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            made = self.network.generate(**inputs, max_new_tokens=self._max_tokens, **options)
        answer: str = self.processor.batch_decode(
            made[:, length:], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )[0]
        return answer.strip()

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.judge.pixels is None:
            return image
        low, high = self.judge.pixels
        height, width = smart_resize(image.height, image.width, FACTOR, min_pixels=low, max_pixels=high)
        return image.resize((width, height), Image.Resampling.BICUBIC)


def local_writer(judge: LocalJudge, *, max_tokens: int | None = MAX_TOKENS, system: str = "") -> TransformersWriter:
    """The writer of a judge's options, its model loaded once per process. Raises `InputError`."""
    network, processor, name, revision, weights = _loaded(judge.model, judge.revision, judge.adapter, judge.device)
    return TransformersWriter(
        network, processor, judge, name=name, revision=revision, weights=weights, max_tokens=max_tokens, system=system
    )


@lru_cache(maxsize=1)
def _loaded(
    model: str, revision: str | None, adapter: str | None, device: str | None
) -> tuple[Any, Any, str, str, Mapping[str, str]]:
    """Model, processor, name, revision, and the hashes of local weights."""
    files = ModelFiles.of(model, revision)
    folder = None if adapter is None else Path(adapter).expanduser()
    place = find_device(device)
    processor = files.processor()
    network = files.load(default_dtype(place))
    known, name, weights = files.known_as(network.config), files.name, {}
    if files.folder is not None:
        weights["weights"] = hash_model(files.folder)
    if folder is not None:
        merge_lora(network, folder)
        weights["adapter"] = hash_model(folder)
        name = f"{name} with {folder.resolve().name}"
    return network.to(place), processor, name, known, weights


def merge_lora(network: nn.Module, folder: Path) -> None:
    """Add an adapter of peft to the weights of a model.

    Raises `InputError` for an adapter that is not a plain LoRA, and for a tensor that is missing, unexpected, or of another shape,
    by name.
    """
    file, where = folder / "adapter_model.safetensors", f"The adapter {str(folder)!r}"
    try:
        text = (folder / "adapter_config.json").read_text("utf-8")
        stated = json.loads(text)
        tensors = load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{where} cannot be read ({reason_of(error)}); give a folder with adapter_config.json and adapter_model.safetensors."
        ) from error
    if not isinstance(stated, dict) or stated.get("peft_type") != "LORA":
        kind = stated.get("peft_type") if isinstance(stated, dict) else None
        raise InputError(f"{where} is of the kind {kind}, but careedit merges LoRAs; give one.")
    try:
        config = config_of_json(text, "its adapter_config.json", where)
        targets = LoraConfig(**{name: stated[name] for name in TARGETS if stated.get(name) is not None})
    except (AdapterError, ValueError, TypeError) as error:
        raise InputError(f"{where} cannot be added ({reason_of(error)}).") from error
    if config is None or config.alpha is None:
        raise InputError(f"{where} states no lora_alpha in its adapter_config.json; get it again.")
    for pattern, name in OLDER_NAMES:
        tensors = {pattern.sub(name, key): tensor for key, tensor in tensors.items()}
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    wanted = {name for name in layers if check_target_module_exists(targets, name)}
    expected = {f"{PREFIX}{name}.lora_{side}.weight" for name in wanted for side in "AB"}
    for what, names in (("an unexpected tensor", tensors.keys() - expected), ("no tensor", expected - tensors.keys())):
        if names or not expected:
            named = f" {min(names)!r}" if names else " that its target_modules name"
            raise InputError(f"{where} has {what}{named}; give the adapter of this model.")
    for name in wanted:
        down, up = (tensors[f"{PREFIX}{name}.lora_{side}.weight"].float() for side in "AB")
        weight, rank = layers[name].weight, len(down)
        if down.ndim != 2 or up.ndim != 2 or down.shape[1] != weight.shape[1] or up.shape != (len(weight), rank):
            raise InputError(
                f"{where} has {PREFIX}{name} of {list(down.shape)} and {list(up.shape)}, which does not fit {list(weight.shape)}; "
                "give the adapter of this model."
            )
        delta = up @ down * (config.alpha_of(name, rank) / rank)
        weight.data += delta.to(weight.dtype)
