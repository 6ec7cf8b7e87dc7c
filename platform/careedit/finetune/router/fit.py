"""How a router is trained: a loss over labelled edits, then calibration on edits that it was not trained on.

The loss is the cross-entropy of the expert probabilities, plus that of feasibility, plus CARE-Edit's load balance. On
measured outcomes it adds the reward that the best expert's probability misses (as in Switch: the softmax before top-k, so
that choosing one expert has a gradient).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from careedit.encoders import OpenClipEncoder
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import products, training_device
from careedit.finetune.router.pool import RouterPool
from careedit.routing.transformer import (
    RouterLogits,
    RouterModel,
    fit_temperature,
    largest_threshold,
    load_balance,
    top_k_weights,
)

BATCH = 64
"""Number of edits per optimizer step."""
FEASIBLE_WEIGHT, BALANCE_WEIGHT, REWARD_WEIGHT = 0.5, 0.01, 0.2
FALSE_ALARMS = 0.018
"""Share of feasible validation edits that may be taken for infeasible. The goal is 2 % on other edits."""
CONFIDENCE = 0.35
"""Where no expert is more probable than this, the base model edits alone."""
OUTCOME_GROUP = "outcome"
"""Group of the edits whose targets come from measured outcomes."""
NOISE_SHARE = 0.06
"""Share of an instruction's words that `noisy` replaces."""

Rephrase = Callable[[str, str | None, Random], str]
"""(instruction, its operation or None, random numbers) -> the instruction in other words."""


@cache
def english_words(known: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """4,000 words of three to nine letters from CLIP's vocabulary that are not in `known`; the same at every call."""
    words = (token.removesuffix("</w>") for token in open_clip.SimpleTokenizer().encoder if token.endswith("</w>"))
    fitting = [word for word in words if re.fullmatch("[a-z]{3,9}", word) and word not in known]
    return tuple(Random("unheard").sample(fitting, 4000))


def noisy(instruction: str, _: str | None, rng: Random, words: Sequence[str] | None = None) -> str:
    """The instruction with a few words replaced by random ones of `words` (default: `english_words`)."""
    others = english_words() if words is None else words
    return " ".join(rng.choice(others) if rng.random() < NOISE_SHARE else word for word in instruction.split())


def forward(model: RouterModel, pool: RouterPool, chosen: Sequence[int], texts: Sequence[Tensor]) -> RouterLogits:
    """The logits of the chosen edits in their order. Edits without a reference are computed without its tokens."""
    rows = pool.reference_index[torch.as_tensor(chosen, dtype=torch.long)]
    device = next(model.parameters()).device
    experts = torch.zeros(len(chosen), len(model.config.experts), device=device)
    feasible = torch.zeros(len(chosen), device=device)
    for part in (rows < 0, rows >= 0):
        index = part.nonzero()[:, 0]
        if len(index):
            batch = pool.batch([chosen[i] for i in index.tolist()], [texts[i] for i in index.tolist()])
            logits, index = model(batch.to(device)), index.to(device)
            experts = experts.index_put((index,), logits.experts.float())
            feasible = feasible.index_put((index,), logits.feasible.float())
    return RouterLogits(experts, feasible)


def router_loss(logits: RouterLogits, targets: Tensor, feasible: Tensor, *, rewarded: Tensor | None = None) -> Tensor:
    """The loss of B edits; `rewarded` [B] marks those whose targets come from measured outcomes."""
    loss = (
        F.cross_entropy(logits.experts, targets)
        + FEASIBLE_WEIGHT * F.binary_cross_entropy_with_logits(logits.feasible, feasible)
        + BALANCE_WEIGHT * load_balance(logits.experts)
    )
    if rewarded is not None and rewarded.any():
        best = targets.amax(dim=-1)
        missed = best - (top_k_weights(logits.experts, 1) * targets).sum(dim=-1)
        loss = loss + REWARD_WEIGHT * missed[rewarded].mean()
    return loss


def fit(
    name: str,
    model: RouterModel,
    encoder: OpenClipEncoder,
    pool: RouterPool,
    config: TrainConfig,
    folder: Path,
    *,
    groups: Sequence[str],
    rephrase: Rephrase = noisy,
) -> TrainReport:
    """Train `model` in place on a pool. Each edit of a batch is of one of `groups`; `rephrase` changes its instruction."""
    outcome = torch.tensor([group == OUTCOME_GROUP for group in pool.groups])
    device = training_device()

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        rng = Random(int(torch.randint(2**62, (1,), generator=generator)))
        chosen = pool.draw(BATCH * config.batches, groups, rng)
        # Cloned: text encodings are made in inference mode, whose tensors autograd refuses.
        said = [rephrase(pool.texts[i], pool.operations[i], rng) for i in chosen]
        texts = [text.cpu().clone() for text in encoder.text_batch(said)]
        with products(device):
            logits = forward(model, pool, chosen, texts)
        index = torch.tensor(chosen)
        targets, feasible, rewarded = (values[index].to(device) for values in (pool.targets, pool.feasible, outcome))
        return {"loss": router_loss(logits, targets, feasible, rewarded=rewarded)}

    model.train().requires_grad_(True).to(device)
    report = train(name, list(model.parameters()), loss, config, folder)
    model.eval().requires_grad_(False).cpu()
    return report


@torch.inference_mode()
def predict(model: RouterModel, encoder: OpenClipEncoder, pool: RouterPool) -> RouterLogits:
    """The logits of a whole pool, with its instructions unchanged."""
    parts = []
    for chunk in torch.split(torch.arange(len(pool)), 128):
        chosen = chunk.tolist()
        texts = [text.cpu() for text in encoder.text_batch([pool.texts[i] for i in chosen])]
        parts.append(forward(model, pool, chosen, texts))
    return RouterLogits(torch.cat([part.experts for part in parts]), torch.cat([part.feasible for part in parts]))


def calibrated(model: RouterModel, encoder: OpenClipEncoder, validation: RouterPool) -> RouterModel:
    """The model with temperatures and thresholds fitted on edits that it was not trained on."""
    logits = predict(model, encoder, validation)
    possible = validation.feasible > 0.5
    temperature = fit_temperature(logits.experts[possible], validation.targets[possible].argmax(dim=-1))
    warmth, threshold = 1.0, 0.0
    if (~possible).any():
        warmth = fit_temperature(logits.feasible, validation.feasible)
        threshold = largest_threshold(
            torch.sigmoid(logits.feasible[possible].double() / warmth), false_alarms=FALSE_ALARMS
        )
    model.config = model.config.model_copy(
        update={
            "temperature": temperature,
            "feasible_temperature": warmth,
            "feasible_threshold": threshold,
            "confidence_threshold": CONFIDENCE,
        }
    )
    return model


def with_steps(config: TrainConfig, steps: int | None) -> TrainConfig:
    """The configuration with another number of steps."""
    return config if steps is None else replace(config, steps=steps, warmup=min(config.warmup, max(1, steps // 10)))
