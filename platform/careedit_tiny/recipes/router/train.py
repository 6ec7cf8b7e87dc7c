"""Recipe of the learned router: labels of kind first, then measured outcomes, then calibration.

The loss is the cross-entropy of the expert probabilities, plus that of feasibility, plus CARE-Edit's load balance; on
measured outcomes also the reward that the best expert's probability forgoes (Switch-style: the softmax before top-k, so
that choosing one expert has a gradient).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from careedit.encoders import OpenClipEncoder
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import products
from careedit.routing.transformer import (
    RouterConfig,
    RouterLogits,
    RouterModel,
    fit_temperature,
    largest_threshold,
    load_balance,
    top_k_weights,
)
from careedit_tiny.recipes.router.pool import GROUPS, RouterPool

DEFAULT = TrainConfig(steps=1500, learning_rate=1e-3, warmup=100, weight_decay=0.02, betas=(0.9, 0.98), ema=0.995)
OUTCOMES = TrainConfig(steps=300, learning_rate=2e-4, warmup=30, weight_decay=0.02, betas=(0.9, 0.98), ema=0.99)
"""The second stage, on measured outcomes."""
BATCH = 64
"""Edits per step."""
PER_GROUP = 600
"""Training edits per group of `GROUPS`."""
FEASIBLE_WEIGHT, BALANCE_WEIGHT, REWARD_WEIGHT = 0.5, 0.01, 0.2
FALSE_ALARMS = 0.018
"""Share of feasible validation edits that may be taken for infeasible; the goal is 2 % on others."""
CONFIDENCE = 0.35
"""Where no expert is likelier than this, the base edits alone."""
OUTCOME_GROUP = "outcome"


def new_model(encoder: OpenClipEncoder, experts: Sequence[str], *, seed: int = 0) -> RouterModel:
    """An untrained router for these experts, of 2 layers and 8 heads."""
    config = RouterConfig(
        experts=tuple(experts),
        encoder_width=encoder.width,
        visual_tokens=encoder.visual_count,
        text_tokens=int(encoder.model.context_length),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RouterModel(config)


def forward(model: RouterModel, pool: RouterPool, chosen: Sequence[int], texts: Sequence[Tensor]) -> RouterLogits:
    """The logits of the chosen edits in their order; those without a reference do not pay for its tokens."""
    rows = pool.reference_index[torch.as_tensor(chosen, dtype=torch.long)]
    experts = torch.zeros(len(chosen), len(model.config.experts))
    feasible = torch.zeros(len(chosen))
    for part in (rows < 0, rows >= 0):
        index = part.nonzero()[:, 0]
        if len(index):
            batch = pool.batch([chosen[i] for i in index.tolist()], [texts[i] for i in index.tolist()])
            logits = model(batch)
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
        forgone = best - (top_k_weights(logits.experts, 1) * targets).sum(dim=-1)
        loss = loss + REWARD_WEIGHT * forgone[rewarded].mean()
    return loss


def fit(
    name: str,
    model: RouterModel,
    encoder: OpenClipEncoder,
    pool: RouterPool,
    config: TrainConfig,
    folder: Path,
    *,
    groups: Sequence[str] = GROUPS,
) -> TrainReport:
    """Train `model` in place on a pool, its instructions said in other words at every step."""
    outcome = torch.tensor([group == OUTCOME_GROUP for group in pool.groups])

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        rng = Random(int(torch.randint(2**62, (1,), generator=generator)))
        chosen = pool.draw(BATCH, groups, rng)
        # Cloned: text encodings are made in inference mode, whose tensors autograd refuses.
        texts = [text.cpu().clone() for text in encoder.text_batch(pool.said_otherwise(chosen, rng))]
        with products("cpu"):
            logits = forward(model, pool, chosen, texts)
        index = torch.tensor(chosen)
        return {"loss": router_loss(logits, pool.targets[index], pool.feasible[index], rewarded=outcome[index])}

    model.train().requires_grad_(True)
    report = train(name, list(model.parameters()), loss, config, folder)
    model.eval().requires_grad_(False)
    return report


@torch.inference_mode()
def predict(model: RouterModel, encoder: OpenClipEncoder, pool: RouterPool) -> RouterLogits:
    """The logits of a whole pool, its instructions as they stand."""
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
