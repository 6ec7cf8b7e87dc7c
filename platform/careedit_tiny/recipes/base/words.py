"""What each word of an instruction means: the labels, and the probe that makes T5 learn them.

A text encoder of production size comes pretrained; the tiny one starts from nothing, and the velocity's error alone hardly
teaches it which of two named objects is the one to change (docs/notebook.md). So it must say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from careedit.editing.families import in_context_prompt
from careedit.errors import CareEditError
from careedit.files import write_atomic
from careedit.finetune.curve import check_curve, save_report
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.optimizers import hidden_matrices
from careedit.finetune.precision import products, training_device
from careedit.progress import counted
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, build_pipeline
from careedit_tiny.recipes.base.items import EXPERT_KINDS, corpus, loosely
from careedit_tiny.recipes.base.items import UNKNOWN as UNHEARD
from careedit_tiny.recipes.base.labels import NONE, UNKNOWN
from careedit_tiny.world.operations import OPERATIONS, RELATIONS
from careedit_tiny.world.phrases import LOOK_NAMES, NUMBERS, group_name
from careedit_tiny.world.samples import Sample, draw_sample
from careedit_tiny.world.scene import BACKDROPS, BACKGROUNDS, COLOURS, DIRECTIONS, MOODS, POSITIONS, SHAPES, SIZES

SENTENCES = 512
"""Number of instructions per operation in the pool."""
BATCH = 64
"""Number of instructions per step."""
DEFAULT = TrainConfig(steps=1200, learning_rate=2e-3, betas=(0.9, 0.98))
PROBE_FILE = "probe.safetensors"
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


NEIGHBOUR, DECAY, FAR = 5.0, 0.7, 8.0
"""Logits with which T5's heads start: for the neighbouring word, per word of distance, for the wrong side."""


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


def word_pool(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Mapping[str, Tensor]:
    """Training instructions with labels, kept in `folder`: T5's token ids "t5" [N, L], "labels" [N, attributes, L]."""
    path = folder / "words.safetensors"
    if path.exists():
        return load_file(path)
    names = [name for operations in EXPERT_KINDS.values() for name in dict.fromkeys(operations)]
    samples = [draw_sample(name, 10_000_000 + i) for name in counted(names, "words") for i in range(SENTENCES)]
    rng = Random("words")  # every word stays in its place, where its label is
    loose = [loosely(sample, rng, dropped=0.0) for sample in samples]
    prompts = [
        in_context_prompt(w, references=int(s.reference is not None)) for w, s in zip(loose, samples, strict=True)
    ]
    length = MAX_SEQUENCE_LENGTH
    t5 = tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids
    labels = torch.full((len(samples), len(WORD_ATTRIBUTES), length), UNKNOWN, dtype=torch.uint8)
    for row, (sample, words) in enumerate(zip(samples, loose, strict=True)):
        tokens = [2 if word == UNHEARD else 1 for word in words.split()]  # an unknown word is two tokens
        known = torch.from_numpy(word_labels(sample)).repeat_interleave(torch.tensor(tokens), dim=1)[:, : length - 2]
        labels[row, :, 1 : 1 + known.shape[1]] = known  # the frame is one token, every known word another
    pool = {"t5": t5.short(), "labels": labels}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save(pool))
    return pool


class WordProbe(nn.Linear):
    """Reads each word's meaning, a logit per value of `WORD_ATTRIBUTES`, from its embedding."""

    def __init__(self, encoder: T5EncoderModel) -> None:
        super().__init__(cast(Any, encoder.config).d_model, sum(map(len, WORD_ATTRIBUTES.values())))

    def read(self, tokens: Tensor) -> dict[str, Tensor]:
        """Logits per attribute, [B, L, values], of T5's tokens [B, L, d]."""
        parts = self(tokens.float()).split([len(values) for values in WORD_ATTRIBUTES.values()], dim=2)
        return dict(zip(WORD_ATTRIBUTES, parts, strict=True))


def word_loss(
    encoder: T5EncoderModel,
    probe: WordProbe,
    pool: Mapping[str, Tensor],
    generator: torch.Generator,
    *,
    batches: int = 1,
) -> Tensor:
    """Sum over attributes of the probe's mean cross-entropies on `batches` times `BATCH` instructions of the pool; a scalar."""
    chosen = torch.randint(len(pool["t5"]), (BATCH * batches,), generator=generator)
    with products(encoder.device):
        tokens = encoder(pool["t5"][chosen].long().to(encoder.device)).last_hidden_state
    labels, loss = pool["labels"][chosen].to(encoder.device), torch.zeros((), device=encoder.device)
    for attribute, part in enumerate(probe.read(tokens).values()):
        truth = labels[:, attribute].long()
        loss = loss + functional.cross_entropy(part.transpose(1, 2), truth, ignore_index=UNKNOWN)
    return loss


def look_around(encoder: T5EncoderModel) -> None:
    """Start T5's heads at the word before, the word after, all words before and all words after, the near ones first.

    From T5's own start, near zero, the biases take thousands of steps to tell neighbours from the rest, and so
    "replace the red circle with a blue square" from the other way round (docs/notebook.md).
    """
    bias = cast(Any, encoder).encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data
    half = len(bias) // 2  # the upper half of the buckets is for the words that follow
    distance = torch.arange(half, dtype=bias.dtype)
    bias.zero_()
    bias[1, 0] = bias[half + 1, 1] = NEIGHBOUR
    bias[:half, 2], bias[half:, 2] = -DECAY * distance, -FAR
    bias[half:, 3], bias[1:half, 3] = -DECAY * distance, -FAR


def make_words(folder: Path, config: TrainConfig = DEFAULT) -> TrainReport:
    """Train T5 to say what words mean; it and its probe are left in `folder/words`, the report in `folder`."""
    check_curve()
    new = cast(Any, build_pipeline(corpus(), seed=config.seed))
    encoder: T5EncoderModel = new.text_encoder_2
    look_around(encoder)
    cast(Any, encoder).to(training_device())
    pool = word_pool(new.tokenizer_2, folder / "pools")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        probe = WordProbe(encoder)
    probe.to(encoder.device)

    def loss(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"loss": word_loss(encoder, probe, pool, generator, batches=config.batches)}

    trained = [*encoder.parameters(), *probe.parameters()]
    report = train("words", trained, loss, config, folder, matrices=hidden_matrices(encoder))
    cast(Any, encoder).cpu()
    save_words(encoder, probe, folder)
    save_report(report, folder / "words.json")
    return report


def save_words(encoder: T5EncoderModel, probe: WordProbe, folder: Path) -> None:
    """Write both to `folder/words`."""
    cast(Any, encoder).save_pretrained(folder / "words")
    state = {name: value.cpu() for name, value in probe.state_dict().items()}
    write_atomic(folder / "words" / PROBE_FILE, save(state))


def load_words(folder: Path) -> tuple[T5EncoderModel, WordProbe]:
    """The T5 that `careedit train words` left in `folder`, and its probe, which stays as it is: T5 keeps its meanings."""
    if not (folder / "words").is_dir():
        raise CareEditError(f"There is no T5 that knows the words in {folder}; run 'careedit train words' first.")
    encoder: T5EncoderModel = cast(Any, T5EncoderModel).from_pretrained(folder / "words", dtype=torch.float32)
    probe = WordProbe(encoder)
    probe.load_state_dict(load_file(folder / "words" / PROBE_FILE))
    return encoder, probe.requires_grad_(False)
