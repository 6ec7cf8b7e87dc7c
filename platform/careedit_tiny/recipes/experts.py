"""Recipes of the LoRA experts, and of the one LoRA that does everything: rank-r adapters on every projection of the
frozen base.

The unified LoRA is the baseline that routing has to beat: as many parameters as all experts together, as many samples as
all experts together saw, from the same pools, by the same schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from careedit.editing import FluxFill
from careedit.finetune.expert import add_lora, lora_state
from careedit.finetune.flow import flow_loss
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.pool import load_pool
from careedit.finetune.precision import training_device
from careedit_tiny.recipes.base.heads import TaughtHeads
from careedit_tiny.recipes.base.probe import scene_probe
from careedit_tiny.recipes.base.train import NOISE_SCALE, START, base_to
from careedit_tiny.recipes.base.words import load_words

BATCH = 16
RANK = 32
"""Rank of an expert's LoRA."""
EXPERT_STEPS: Mapping[str, int] = {"erase": 800, "compose": 5000, "style": 1000, "identity": 1000, "reference": 1600}
"""Steps per expert: the harder its edits, the more."""
UNIFIED = "unified"
"""Name of the LoRA that is trained on everything."""


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """How one LoRA is trained."""

    rank: int
    """Rank of its matrices; alpha is the same."""
    shares: Mapping[str, int]
    """Pools that it learns from, and their shares of the steps."""
    config: TrainConfig
    """Settings of its training run."""


def _config(steps: int, learning_rate: float) -> TrainConfig:
    return TrainConfig(steps=steps, learning_rate=learning_rate, warmup=50, weight_decay=0.0, ema=0.99)


RECIPES: Mapping[str, LoraRecipe] = {
    **{name: LoraRecipe(RANK, {name: steps}, _config(steps, 1e-3)) for name, steps in EXPERT_STEPS.items()},
    # Adam moves every column of A and B by the same amount: five times as many move the product more (arXiv 2312.03732).
    UNIFIED: LoraRecipe(RANK * len(EXPERT_STEPS), EXPERT_STEPS, _config(sum(EXPERT_STEPS.values()), 5e-4)),
}
"""The experts of the tiny family and their baseline."""


def train_lora(
    name: str, recipe: LoraRecipe, base: FluxFill, folder: Path, config: TrainConfig | None = None
) -> tuple[dict[str, Tensor], TrainReport]:
    """Train LoRA `name` on the pools in `folder/pools`; returns peft's state dict of the adapter.

    The base is frozen and left as it was: the adapter is taken off before the function returns.
    """
    config = config or recipe.config
    count = BATCH * config.batches
    pools = {pool: load_pool(pool, folder / "pools") for pool in recipe.shares}
    shares = torch.tensor(list(recipe.shares.values()), dtype=torch.float32)
    base = base_to(base, training_device())
    transformer = base.transformer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        trained = add_lora(transformer, name, recipe.rank)
        probe = scene_probe(transformer, folder)
    cast(Any, transformer).to(training_device())
    probe.to(training_device())
    heads = TaughtHeads(transformer, load_words(folder)[1].to(training_device()))
    trained += probe.parameters()

    def loss(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        pool = pools[tuple(pools)[int(torch.multinomial(shares, 1, generator=generator))]]
        chosen = torch.randint(len(pool["t5"]), (count,), generator=generator)
        return {
            "loss": flow_loss(
                base, pool, chosen, generator, auxiliary=[probe.term, heads], start=START, noise_scale=NOISE_SCALE
            )
        }

    try:
        report = train(f"expert-{name}", trained, loss, config, folder)
        return lora_state(transformer, name), report
    finally:
        probe.detach()
        heads.detach()
        cast(Any, transformer).unload_lora()
        base_to(base, torch.device("cpu"))
