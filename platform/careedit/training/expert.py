"""Recipe of a LoRA expert: rank-r adapters on every projection of the frozen base, trained on one competence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from careedit.editing import EditorBase
from careedit.experts import DEFAULT_TARGETS
from careedit.training.flow import Locator, flow_loss
from careedit.training.loop import TrainConfig, TrainReport, train
from careedit.training.pool import load_pool

DEFAULT = TrainConfig(steps=1200, learning_rate=2e-3, warmup=50, weight_decay=0.0, ema=0.99)
BATCH = 16
RANK = 32


def train_expert(
    name: str, base: EditorBase, folder: Path, config: TrainConfig = DEFAULT, *, rank: int = RANK
) -> tuple[dict[str, Tensor], TrainReport]:
    """Train expert `name` on the pool of its name in `folder/pools`; returns peft's state dict of the adapter.

    The base is frozen and left as it was: the adapter is taken off before the function returns.
    """
    pool = load_pool(name, folder / "pools")
    transformer = base.transformer
    transformer.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=DEFAULT_TARGETS), adapter_name=name)
        locator = Locator(transformer)
    trained = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    trained += locator.parameters()

    def loss(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        chosen = torch.randint(len(pool["t5"]), (BATCH,), generator=generator)
        return {"loss": flow_loss(base, pool, chosen, generator, locator)}

    try:
        report = train(f"expert-{name}", trained, loss, config, folder)
        state = get_peft_model_state_dict(transformer, adapter_name=name)
        return {key: value.detach().clone() for key, value in state.items()}, report
    finally:
        locator.detach()
        cast(Any, transformer).unload_lora()
