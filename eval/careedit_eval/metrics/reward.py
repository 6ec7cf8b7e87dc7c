"""EditReward (arXiv 2509.26346): a Qwen-VL with two heads that give scores of an edit, as TIGER-Lab publishes it.

The checkpoint is one file with the whole model: the base, whose embeddings have a row for `<|Reward|>`, and `rm_heads`. Each head
reads its own question about the source and the edit, and gives a mean and the logarithm of a deviation at that token. The score
is the mean of both heads' means. Two details of the published code change scores, and are kept: on Qwen2.5-VL it numbers all
tokens one after another, images too, where the base has a number per row and column; and it resizes each image to about
200,704 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from careedit.errors import InputError
from careedit.files import file_digest, json_digest
from careedit.loading import default_dtype, find_device, quiet_loading
from careedit.scoring.sent import digest_of_request, probe_picture
from careedit.scoring.vlm import ModelFiles
from careedit_eval.errors import MetricError, reason_of
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, one_by_one
from careedit_eval.metrics.options import RewardOptions
from careedit_eval.metrics.prompts import read_prompts
from careedit_eval.records import JudgeAnswer, Measurement, Metric, MetricSpec, Output

CLASSES: Mapping[str, Any] = {
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}
"""The classes of bases by model type. MiMo-VL is a Qwen2.5-VL."""
NUMBERED_IN_SEQUENCE = ("qwen2_5_vl",)
"""The bases whose images the published code resizes, and whose tokens it numbers one after another."""
TOKEN = "<|Reward|>"
"""The token at which the heads read."""
PIXELS, FACTOR = 256 * 28 * 28, 28
"""The number of pixels of an image, and the number by which its sides can be divided."""
HIDDEN = (1024, 16)
"""The widths of a head's inner layers."""
HEADS: Mapping[str, str] = {"following": "INSTRUCTION_EDIT_FOLLOWING", "quality": "INSTRUCTION_EDIT_QUALITY"}
"""The names of the published prompts, in the order of the heads."""
ENDING = "prompt_with_special_token"
"""The name of the published text that follows each prompt; it has the token."""
PROMPT_FILES = ("prompts.py", "data_collator_qwen_edit.py")
"""The published files with these texts, in the folder EditReward/dataset."""
PLACE = "{text_prompt}"
"""What the instruction replaces in a prompt."""


class RewardModel:
    """The base with its heads; scores one edit at a time, so that a score does not depend on others."""

    def __init__(self, network: Any, heads: Sequence[nn.Module], processor: Any, prompts: Sequence[str]) -> None:
        """`prompts` are the whole questions of the heads, with `PLACE` and `TOKEN` in each."""
        self.network, self.processor, self.prompts = network.eval().requires_grad_(False), processor, tuple(prompts)
        self.heads = nn.ModuleList(heads).to(network.device).float().eval().requires_grad_(False)
        self.token = int(processor.tokenizer.convert_tokens_to_ids(TOKEN))
        self._control = sorted(processor.tokenizer.get_added_vocab())
        self._in_sequence = network.config.model_type in NUMBERED_IN_SEQUENCE

    @property
    def preprocessing(self) -> str:
        """What happens to an image before the processor gets it, in words."""
        if not self._in_sequence:
            return "source and edit in their own size"
        return f"source and edit resized to about {PIXELS} pixels each, Pillow's bicubic"

    @torch.inference_mode()
    def rewards(self, source: Image.Image, edited: Image.Image, instruction: str) -> list[tuple[float, float]]:
        """Mean and logarithm of the deviation, of each head. Raises `MetricError` for an instruction with a control token."""
        control = [token for token in self._control if token in instruction]
        if control:
            raise MetricError(
                f"The instruction has {control[0]!r}, which the judge reads as a control token; correct it."
            )
        found = []
        for prompt, head in zip(self.prompts, self.heads, strict=True):
            inputs = self.encode(source, edited, prompt.replace(PLACE, instruction))
            hidden = self._hidden(inputs.to(self.network.device, self.network.dtype))
            mean, deviation = head(hidden.float()).tolist()
            found.append((mean, deviation))
        return found

    def encode(self, source: Image.Image, edited: Image.Image, text: str) -> Any:
        """The inputs of one question."""
        images = [self._resized(source), self._resized(edited)]
        content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]
        words = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return self.processor(text=[words], images=images, return_tensors="pt")

    def _resized(self, image: Image.Image) -> Image.Image:
        if not self._in_sequence:
            return image
        height, width = smart_resize(image.height, image.width, FACTOR, min_pixels=PIXELS, max_pixels=PIXELS)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def _hidden(self, inputs: Any) -> Tensor:
        """The last hidden state at the token, [width]."""
        ids = inputs["input_ids"]
        positions = {}
        if self._in_sequence:
            positions["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand(3, 1, -1)
        states = self.network.model(**inputs, **positions, use_cache=False).last_hidden_state
        return cast(Tensor, states[0, (ids[0] == self.token).nonzero().item()])


class EditReward:
    """The score of each head and their mean; higher is better, on no fixed scale."""

    needs: frozenset[str] = frozenset()

    def __init__(self, model: RewardModel, *, name: str, revision: str, base: str) -> None:
        """`name` and `revision` are of the checkpoint; `base` is the revision of the folder with configuration and processor."""
        self._model, self._name, self._revision, self._base = model, name, revision, base

    @cached_property
    def spec(self) -> MetricSpec:
        """See `careedit_eval.records.Metric`."""
        outputs = ("editreward", *(f"editreward_{head}" for head in HEADS))
        probe = probe_picture()
        inputs = self._model.encode(probe, probe, self._model.prompts[0])
        reading = {
            key: str(one) for key, one in self._model.processor.image_processor.to_dict().items() if key[0] != "_"
        }
        shapes = {key: list(getattr(one, "shape", [])) for key, one in inputs.items()}
        asked = {"inputs": shapes, "tokens": inputs["input_ids"].tolist(), "pictures": reading}
        return MetricSpec(
            name="editreward",
            outputs=tuple(Output(name=name, better="higher") for name in outputs),
            protocol="editreward-1",
            backbone=f"transformers {self._name}",
            revision=self._revision,
            preprocessing=self._model.preprocessing,
            reference="source and text",
            text_field="instruction",
            dtype=str(self._model.network.dtype).removeprefix("torch."),
            settings={
                "base": self._base,
                "prompts": json_digest(self._model.prompts),
                "request": digest_of_request(asked),
            },
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        return one_by_one(batch, self._one)

    def _one(self, item: ScoreItem) -> Measurement:
        if item.sample.references:
            raise NotApplicableError("sees no reference image")
        rewards = self._model.rewards(item.pictures.source, item.edited, item.sample.instruction)
        heads = {f"editreward_{head}": mean for head, (mean, _) in zip(HEADS, rewards, strict=True)}
        answers = tuple(
            JudgeAnswer(about=head, asked=f"the prompt {prompt}", reply=f"{mean:.6g}, log deviation {deviation:.6g}")
            for (head, prompt), (mean, deviation) in zip(HEADS.items(), rewards, strict=True)
        )
        return Measurement(values={"editreward": sum(heads.values()) / len(heads), **heads}, answers=answers)


def editreward(options: RewardOptions) -> Metric:
    """EditReward from its options. Raises `InputError`."""
    return _load(options.weights, options.base, options.revision, options.prompts, options.device)


@lru_cache(maxsize=1)
def _load(weights: str, base: str, revision: str | None, prompts: str, device: str | None) -> EditReward:
    questions = questions_from(Path(prompts).expanduser())
    file = weights_file(Path(weights).expanduser())
    files = ModelFiles.of(base, revision)
    processor, config = files.processor(), files.config()
    if config.model_type not in CLASSES:
        raise InputError(
            f"The base {base!r} is a {config.model_type}, but EditReward has one of {', '.join(CLASSES)}; give the base that "
            "the checkpoint was trained from."
        )
    processor.tokenizer.add_tokens([TOKEN], special_tokens=True)
    place = find_device(device)
    network, heads = build(config, read_tensors(file), file, len(processor.tokenizer), default_dtype(place))
    name = file.resolve().parent.name if file.stem == "model" else file.stem
    model = RewardModel(network.to(place), heads, processor, questions)
    return EditReward(model, name=name, revision=file_digest(file), base=files.known_as(config))


def questions_from(folder: Path) -> list[str]:
    """The questions of the heads, from the published folder with their texts. Raises `InputError`."""
    texts = {name: text for file in PROMPT_FILES for name, text in read_prompts(str(folder / file)).items()}
    missing = [name for name in (*HEADS.values(), ENDING) if name not in texts]
    if missing:
        raise InputError(
            f"{str(folder)!r} has no prompt {missing[0]!r}; give the folder EditReward/dataset of TIGER-AI-Lab/EditReward."
        )
    questions = [texts[name] + texts[ENDING] for name in HEADS.values()]
    for name, text in zip(HEADS.values(), questions, strict=True):
        if PLACE not in text or text.count(TOKEN) != 1:
            raise InputError(f"The prompt {name!r} needs {PLACE} and one {TOKEN}; give the published files.")
    return questions


def weights_file(path: Path) -> Path:
    """The file of a checkpoint, given by its path or its folder. Raises `InputError`."""
    if path.is_file():
        return path
    found = [path / name for name in ("model.safetensors", "model.pth") if (path / name).is_file()]
    if not found:
        raise InputError(f"{str(path)!r} has no model.safetensors and no model.pth; give the folder of the checkpoint.")
    return found[0]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name. A model.pth is read without executing anything. Raises `InputError`."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, SafetensorError, ValueError, RuntimeError, EOFError) as error:
        raise InputError(f"The checkpoint {str(file)!r} cannot be read ({reason_of(error)}); get it again.") from error
    except Exception as error:  # pickle's own, for what is not tensors
        raise InputError(f"The checkpoint {str(file)!r} holds more than tensors; give model.safetensors.") from error
    found = found.get("model", found) if isinstance(found, dict) else {}
    if not found or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"The checkpoint {str(file)!r} holds no tensors by name; get it again.")
    return cast("dict[str, Tensor]", found)


def build(
    config: Any, tensors: Mapping[str, Tensor], file: Path, words: int, dtype: torch.dtype
) -> tuple[Any, list[nn.Module]]:
    """The base and its heads with the tensors of a checkpoint. `words` is the number of words of the tokenizer.

    Raises `InputError` that names a tensor which is missing, unexpected, or of another shape.
    """
    text = config.get_text_config()
    heads = {f"head_{number}": _head(text.hidden_size) for number in range(len(HEADS))}
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(("rm_head.", "rm_heads."))}
    modules = nn.ModuleDict({"rm_heads": nn.ModuleDict(heads)})
    _check_tensors(own, modules.state_dict(), file)
    modules.load_state_dict(own)
    rest = {name: tensor for name, tensor in tensors.items() if name not in own}
    rows = next((len(tensor) for name, tensor in rest.items() if name.endswith("embed_tokens.weight")), words)
    if rows != words:
        raise InputError(
            f"The checkpoint {str(file)!r} has embeddings of {rows} words, but the tokenizer of its base has {words} with "
            f"{TOKEN}; give the base that it was trained from."
        )
    text.vocab_size = words
    try:
        with quiet_loading():
            network, info = CLASSES[config.model_type].from_pretrained(
                None,
                config=config,
                state_dict=rest,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"The checkpoint {str(file)!r} does not fit its base ({reason_of(error)}).") from error
    for key, what in (
        ("unexpected_keys", "an unexpected tensor"),
        ("missing_keys", "no tensor"),
        ("mismatched_keys", "another shape of"),
    ):
        if info[key]:
            raise InputError(f"The checkpoint {str(file)!r} has {what} {_first(info[key])!r}; give the base of it.")
    return network, list(heads.values())


def _head(width: int) -> nn.Module:
    first, second = HIDDEN
    layers = (
        nn.Linear(width, first),
        nn.ReLU(),
        nn.Dropout(0.05),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, 2),
    )
    return nn.Sequential(*layers)


def _check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    """Raise `InputError` unless the heads have exactly the published tensors."""
    for what, names in (
        ("no tensor", wanted.keys() - found.keys()),
        ("an unexpected tensor", found.keys() - wanted.keys()),
    ):
        if names:
            raise InputError(
                f"The checkpoint {str(file)!r} has {what} {min(names)!r}; careedit reads EditReward's two heads of three layers."
            )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise InputError(
                f"The checkpoint {str(file)!r} has {name!r} of {list(found[name].shape)}, not {list(tensor.shape)}; careedit "
                "reads EditReward's two heads of three layers."
            )


def _first(keys: Any) -> str:
    one = min(keys)
    return str(one[0] if isinstance(one, tuple) else one)
