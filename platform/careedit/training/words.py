"""What each word of an instruction means: the labels, and the probe that makes the text encoders learn them.

A text encoder of production size comes pretrained; the tiny one starts from nothing, and the velocity's error alone hardly
teaches it which of two named objects is the one to change (docs/notebook.md). So it must say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from careedit.editing import EditorBase
from careedit.editing.prompts import in_context_prompt
from careedit.tiny.operations import OPERATIONS, RELATIONS
from careedit.tiny.phrases import LOOK_NAMES, NUMBERS, group_name
from careedit.tiny.samples import Sample, draw_sample
from careedit.tiny.scene import BACKDROPS, BACKGROUNDS, COLOURS, DIRECTIONS, MOODS, POSITIONS, SHAPES, SIZES
from careedit.training.flow import encode_text
from careedit.training.labels import NONE, UNKNOWN
from careedit.training.loop import TrainConfig, train
from careedit.training.optimizers import hidden_matrices

SENTENCES = 512
"""Instructions per operation in the pool."""
BATCH = 64
"""Instructions per step."""
DEFAULT = TrainConfig(steps=1200, learning_rate=2e-3, betas=(0.9, 0.98))
WORD_WEIGHT = 0.1
"""Weight of the word probe's cross-entropies, a sum over attributes, in the base's loss."""
WORD_EVERY = 4
"""Steps of the base from one such loss to the next: enough to keep what was learned."""

_OBJECTS = ("x", "y", "z", "xs")
WORD_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "operation": tuple(OPERATIONS),
    "slot": (NONE, *_OBJECTS, "p", "n", "c", "s", "t", "d", "r", "look"),
    "shape": (NONE, *SHAPES),
    "colour": (NONE, *COLOURS),
    "size": (NONE, *SIZES),
    "value": tuple(dict.fromkeys((
        NONE, *POSITIONS, *NUMBERS, *COLOURS, *BACKGROUNDS, *SIZES, *BACKDROPS, *DIRECTIONS, *MOODS, *RELATIONS,
        *LOOK_NAMES.values(),
    ))),
}  # fmt: skip
"""Values per attribute. Shape, colour and size are those of the object that the word's phrase names; any other phrase, a
position for example, is one value; the operation is the whole instruction's."""

_SINGULAR = {group_name(shape, 2): shape for shape in SHAPES}


def word_labels(sample: Sample) -> NDArray[np.uint8]:
    """[len(WORD_ATTRIBUTES), words of the instruction], indices into `WORD_ATTRIBUTES`."""
    columns: list[tuple[str, str, str, str, str, str]] = []
    for piece in re.split(r"(\{\w+\})", sample.phrasing):
        slot = piece[1:-1] if piece.startswith("{") else NONE
        phrase = piece if slot == NONE else sample.slots[slot]
        words = phrase.split()
        shape = colour = size = value = NONE
        if slot in _OBJECTS:
            named = [_SINGULAR.get(word, word) for word in words]
            shape, colour, size = (
                next((word for word in named if word in known), NONE) for known in (SHAPES, COLOURS, SIZES)
            )
        elif slot != NONE:
            value = phrase
        columns += [(sample.operation, slot, shape, colour, size, value)] * len(words)
    tables = tuple(WORD_ATTRIBUTES.values())
    return np.array([[t.index(v) for t, v in zip(tables, c, strict=True)] for c in columns], np.uint8).T


def word_pool(base: EditorBase, experts: Mapping[str, tuple[str, ...]], folder: Path) -> Mapping[str, Tensor]:
    """Training instructions with labels, kept in `folder`: "t5", "clip" token ids [N, L], "labels" [N, attributes, L].

    `experts` are the operations per expert (`careedit.training.items.EXPERT_KINDS`).
    """
    path = folder / "words.safetensors"
    if path.exists():
        return load_file(path)
    names = [name for operations in experts.values() for name in dict.fromkeys(operations)]
    samples = [
        draw_sample(name, 10_000_000 + i)
        for name in track(names, description="words", console=Console(stderr=True))
        for i in range(SENTENCES)
    ]
    prompts = [in_context_prompt(s.instruction, references=int(s.reference is not None)) for s in samples]
    lengths: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    t5 = base.tokenizer_2(prompts, max_length=base.max_sequence_length, **lengths).input_ids
    labels = torch.full((len(samples), len(WORD_ATTRIBUTES), t5.shape[1]), UNKNOWN, dtype=torch.uint8)
    for row, sample in enumerate(samples):
        words = torch.from_numpy(word_labels(sample))[:, : t5.shape[1] - 2]
        labels[row, :, 1 : 1 + words.shape[1]] = words  # the frame is one token, every word another
    pool = {
        "t5": t5.short(),
        "clip": base.tokenizer(prompts, max_length=40, **lengths).input_ids.short(),
        "labels": labels,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(pool, path)
    return pool


class WordProbe(nn.Module):
    """Linear probes that read each word's meaning from its embedding, and the operation from the pooled one."""

    def __init__(self, base: EditorBase) -> None:
        super().__init__()
        width, pooled = cast(Any, base.text_encoder_2.config).d_model, cast(Any, base.text_encoder.config).hidden_size
        self.words = nn.Linear(width, sum(map(len, WORD_ATTRIBUTES.values())))
        self.pooled = nn.Linear(pooled, len(WORD_ATTRIBUTES["operation"]))

    def forward(self, tokens: Tensor, pooled: Tensor, labels: Tensor) -> Tensor:
        """Sum of mean cross-entropies of `labels` [B, attributes, L], from token and pooled embeddings [B, L, d], [B, d_p]."""
        operation = labels[:, 0, 1].long()
        loss = functional.cross_entropy(self.pooled(pooled.float()), operation)
        parts = self.words(tokens.float()).split([len(values) for values in WORD_ATTRIBUTES.values()], dim=2)
        for attribute, part in enumerate(parts):
            truth = labels[:, attribute].long()
            loss = loss + functional.cross_entropy(part.transpose(1, 2), truth, ignore_index=UNKNOWN)
        return loss


def teach_words(
    base: EditorBase, folder: Path, experts: Mapping[str, tuple[str, ...]], config: TrainConfig = DEFAULT
) -> Callable[[torch.Generator], Tensor]:
    """Train the text encoders to say what words mean; returns that loss, of instructions drawn by the generator.

    `experts` as for `word_pool`. The probe stays as it is from then on, so the encoders keep the meanings where they are.
    """
    pool = word_pool(base, experts, folder / "pools")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        probe = WordProbe(base)
    encoders = (base.text_encoder, base.text_encoder_2)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pool["t5"]), (BATCH,), generator=generator)
        with torch.autocast(base.device.type, torch.bfloat16):
            tokens, pooled = encode_text(base, pool["t5"][chosen].long(), pool["clip"][chosen].long())
        result: Tensor = probe(tokens, pooled, pool["labels"][chosen])
        return result

    for encoder in encoders:
        encoder.requires_grad_(True)
    trained = [parameter for module in (*encoders, probe) for parameter in module.parameters()]
    matrices = hidden_matrices(*encoders)
    train("words", trained, lambda _, generator: {"loss": loss(generator)}, config, folder, matrices=matrices)
    probe.requires_grad_(False)
    return loss
