"""Any transformers image-text-to-text model as a judge: P("yes") against P("no") from one forward pass, no text generated.

As VQAScore (arXiv 2404.01291) does it, but over yes and no alone, so that the number is a probability of the answer.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from careedit import plugins
from careedit.errors import InputError
from careedit.files import folder_digest
from careedit.hub import split_hub_id, warn_unless_pinned
from careedit.loading import find_device, quiet_loading
from careedit.scoring.scorer import Answer, Question
from careedit.scoring.sent import digest_of_request, probe_question
from careedit.scoring.vqa import VqaScorer

BATCH = 8
"""Questions per forward pass."""
SPELLINGS = {
    word: tuple(space + spelt for spelt in (word, word.title(), word.upper()) for space in ("", " "))
    for word in ("yes", "no")
}
"""How a tokenizer may write each answer."""
TINY = "tiny"
"""Name of the judge that careedit ships."""
_MODEL_FILES = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")


class TransformersAsker:
    """Asks an image-text-to-text model; an `Asker`.

    `model` and `processor` are what `AutoModelForImageTextToText` and `AutoProcessor` give. Raises `InputError` for a
    processor without pictures or chat template, or a tokenizer that spells yes or no with several tokens only.
    """

    backend = "transformers"

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str,
        revision: str,
        batch: int = BATCH,
        folder: Path | None = None,
    ) -> None:
        """`folder` has the model's files, if they are local; `revision` may be any name for their state."""
        if batch < 1:
            raise InputError(f"batch is {batch}; at least one question is asked at a time.")
        check_processor(processor, name)
        self.network, self.processor = model.eval().requires_grad_(False), processor
        self.model, self.revision, self.batch = name, revision, batch
        self._folder = folder
        self.yes, self.no = answer_tokens(processor.tokenizer, name)
        self.context = _context_of(model.config)
        self._options = {
            key: value
            for key, value in (("logits_to_keep", 1), ("use_cache", False))
            if key in inspect.signature(model.forward).parameters
        }

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Number format, weights, and what the processor makes of a question (`careedit.scoring.sent`)."""
        inputs = self.encode([probe_question(96, 64)])
        shapes = {name: list(getattr(value, "shape", [])) for name, value in inputs.items()}
        reading = {key: value for key, value in self.processor.image_processor.to_dict().items() if key[0] != "_"}
        asked = {"inputs": shapes, "tokens": inputs["input_ids"].tolist(), "pictures": reading}
        settings = {"dtype": str(self.network.dtype).removeprefix("torch."), "request": digest_of_request(asked)}
        return settings if self._folder is None else {**settings, "weights": hash_model(self._folder)}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """See `careedit.scoring.scorer.Asker`."""
        answers: dict[int, Answer] = {}
        # Questions alike go together: less padding, and no batch mixes texts with pictures and without.
        order = sorted(range(len(questions)), key=lambda i: (len(questions[i].images), len(questions[i].words)))
        for _, group in groupby(order, key=lambda i: len(questions[i].images)):
            alike = list(group)
            for first in range(0, len(alike), self.batch):
                chunk = alike[first : first + self.batch]
                answers.update(zip(chunk, self._answers([questions[i] for i in chunk]), strict=True))
        return [answers[i] for i in range(len(questions))]

    def encode(self, questions: Sequence[Question]) -> Any:
        """The model's inputs for questions with equally many pictures each: a batch, padded on the left."""
        conversations = [[{"role": "user", "content": _content(question)}] for question in questions]
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            # An instruction is a stranger's text: what looks like a control token in it is read as letters.
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True, "padding_side": "left"},
        )

    def answer_logits(self, logits: Tensor) -> Tensor:
        """[B, vocabulary] at the answer position to [B, 2]: all spellings of no, all spellings of yes."""
        return torch.stack([logits[:, ids].float().logsumexp(dim=1) for ids in (self.no, self.yes)], dim=1)

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers of one batch; a question that cannot be asked leaves the others alone."""
        if not questions:
            return []
        try:
            inputs = self.encode(questions)
        except (ValueError, TypeError, OSError) as error:
            if len(questions) > 1:
                return [answer for question in questions for answer in self._answers([question])]
            return [
                Answer(error=f"The judge's processor refuses the question ({error}); give another picture or text.")
            ]
        lengths = [int(length) for length in inputs["attention_mask"].sum(dim=1)]
        if max(lengths) > self.context:
            rest = [question for question, n in zip(questions, lengths, strict=True) if n <= self.context]
            given = iter(self._answers(rest))
            return [next(given) if n <= self.context else self._too_long(n) for n in lengths]
        return [
            Answer(yes=value)
            if math.isfinite(value)
            else Answer(error="The judge's answer is not a number; load it with another dtype.")
            for value in self._probabilities(inputs)
        ]

    @torch.inference_mode()
    def next_logits(self, inputs: Any) -> Tensor:
        """[B, vocabulary]: the first token of each answer to the questions that `encode` encoded."""
        device, dtype = self.network.device, self.network.dtype
        # Left padding: the last position is every question's answer position.
        logits: Tensor = self.network(**inputs.to(device, dtype), **self._options).logits[:, -1]
        return logits

    def _probabilities(self, inputs: Any) -> list[float]:
        return cast("list[float]", self.answer_logits(self.next_logits(inputs)).softmax(dim=1)[:, 1].tolist())

    def _too_long(self, length: int) -> Answer:
        return Answer(
            error=f"The question takes {length} tokens but {self.model} reads {self.context}; shorten the instruction or "
            "give smaller pictures."
        )


@dataclass(frozen=True)
class ModelFiles:
    """The files of an image-text-to-text model of transformers, in a folder or on the hub."""

    path: str
    """The folder, or the hub id without a revision."""
    revision: str | None = None
    """The commit, branch or tag of the hub; of a folder, any name for its state."""

    @classmethod
    def of(cls, source: str | os.PathLike[str], revision: str | None = None) -> ModelFiles:
        """The files of a folder or of "owner/name@commit"; a warning is logged for a model of the hub without a commit."""
        path, stated = split_hub_id(str(source))
        warn_unless_pinned("The judge", path, revision or stated)
        return cls(path, revision or stated)

    @property
    def folder(self) -> Path | None:
        """The folder; None for a model of the hub."""
        return Path(self.path) if os.path.isdir(self.path) else None

    @property
    def name(self) -> str:
        """The name by which the judge is known: the hub id, or the name of the folder."""
        return self.path if self.folder is None else self.folder.resolve().name

    def processor(self) -> Any:
        """The processor, which takes images and has a chat template. Raises `InputError`."""
        try:
            processor = cast(Any, AutoProcessor).from_pretrained(self.path, **self._options)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"The judge {self.path!r} has no processor that can be loaded ({_first(error)})."
            ) from error
        check_processor(processor, self.name)
        return processor

    def config(self) -> Any:
        """The configuration. Raises `InputError`."""
        try:
            return AutoConfig.from_pretrained(self.path, **self._options)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"The judge {self.path!r} has no configuration that can be loaded ({_first(error)})."
            ) from error

    def load(self, dtype: torch.dtype) -> Any:
        """The model with its weights. Raises `InputError`."""
        try:
            with quiet_loading():
                return cast(Any, AutoModelForImageTextToText).from_pretrained(self.path, dtype=dtype, **self._options)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise InputError(
                f"The judge {self.path!r} cannot be loaded ({_first(error)}); give an image-text-to-text model of transformers, "
                "by folder or hub id."
            ) from error

    def known_as(self, config: Any) -> str:
        """The commit, the stated revision, or the hash of a folder; "unknown" if none is known."""
        if self.folder is not None:
            return self.revision or hash_model(self.folder)
        return str(getattr(config, "_commit_hash", None) or self.revision or "unknown")

    @property
    def _options(self) -> dict[str, Any]:
        # Without it, transformers would ask on a terminal whether to run a model's code.
        options: dict[str, Any] = {"trust_remote_code": False}
        return options if self.folder is not None or self.revision is None else {**options, "revision": self.revision}


def load_asker(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    batch: int = BATCH,
) -> TransformersAsker:
    """Load a judge by hub id ("owner/name@commit") or folder.

    `device` is by default a GPU where there is one; `dtype` by default float32 on a CPU and bfloat16 on a GPU.
    `revision` is a hub commit, branch or tag, in place of the one in `source` (the commit is what the judge is then known
    by); without a commit, a warning is logged. A folder is known by the sha256 of its model's files unless `revision` names it. Raises `InputError` if the model does not exist, and as
    `TransformersAsker` does.
    """
    found = ModelFiles.of(source, revision)
    device = find_device(device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    processor = found.processor()
    answer_tokens(processor.tokenizer, found.name)  # before gigabytes are read
    model = found.load(dtype).to(device)
    known = found.known_as(model.config)
    return TransformersAsker(model, processor, name=found.name, revision=known, batch=batch, folder=found.folder)


def load_judge(
    source: str | os.PathLike[str] = TINY,
    *,
    revision: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    batch: int = BATCH,
) -> VqaScorer:
    """A scorer by `load_asker`'s model; "tiny" is the judge that comes with careedit."""
    packaged = plugins.load(plugins.JUDGES, str(source), error=InputError)
    if packaged is not None:
        source = packaged()
    elif str(source) == TINY:
        raise InputError(
            "No installed package has a tiny judge; name another by folder or hub id, or reinstall careedit."
        )
    return VqaScorer(load_asker(source, revision=revision, device=device, dtype=dtype, batch=batch))


def check_processor(processor: Any, name: str) -> None:
    """Raises `InputError` for a processor that cannot put a question about pictures."""
    if getattr(processor, "image_processor", None) is None:
        raise InputError(
            f"The model {name!r} reads no pictures, only text; name an image-text-to-text model as a judge."
        )
    if getattr(processor, "chat_template", None) is None:
        raise InputError(
            f"The model {name!r} has no chat template; name one that is made to be asked, an instruct model."
        )


def answer_tokens(tokenizer: Any, name: str) -> tuple[list[int], list[int]]:
    """The ids that each mean yes, and those that each mean no: every spelling that is one token.

    Raises `InputError` if either has none.
    """
    found = []
    for spellings in SPELLINGS.values():
        encoded = [tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings]
        found.append(sorted({ids[0] for ids in encoded if len(ids) == 1 and ids[0] != tokenizer.unk_token_id}))
    yes, no = found
    if not yes or not no or set(yes) & set(no):
        raise InputError(
            f'The tokenizer of {name!r} has no single token for "{"yes" if not yes else "no"}", so its answer cannot be read '
            "from one forward pass; use another judge."
        )
    return yes, no


def hash_model(folder: Path) -> str:
    """sha256 over names and contents of a model folder's own files; cards and pictures do not count."""
    return folder_digest(folder, "*", suffixes=_MODEL_FILES)


def _content(question: Question) -> list[dict[str, Any]]:
    """The message's parts, as chat templates take them."""
    lead = [{"type": "text", "text": question.lead}] if question.lead else []
    pictures = [{"type": "image", "image": image} for image in question.images]
    return [*lead, *pictures, {"type": "text", "text": question.text}]


def _context_of(config: Any) -> int:
    """The most tokens that the language model reads."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)


def _first(error: Exception) -> str:
    """The first line of a message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
