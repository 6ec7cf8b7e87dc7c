"""How an expert is trained on own rows: canvases as latents, a LoRA on the frozen base, a validation loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from careedit.editing import FluxFill
from careedit.errors import CareEditError
from careedit.experts import shapes_of
from careedit.finetune.data import Columns, Plan, RowRules, Table, read_row, row_item
from careedit.finetune.flow import flow_loss
from careedit.finetune.loop import TrainConfig, TrainReport, step_generator, train
from careedit.finetune.pool import Item, build_pool, load_pool

STEPS = 1000
"""Default number of optimizer steps."""
BATCH = 8
"""Default number of rows per step."""
RANK = 16
"""Default rank of the LoRA."""
SMALL_BASE = 100_000_000
"""Number of transformer parameters below which the higher learning rate is the default."""
_VALIDATION_ROWS = 64
"""Maximum number of held-out rows in the validation loss."""
_VALIDATION_DRAWS = 8
"""Number of noise draws per held-out row."""
_SHARD_PIXELS = 2**23
"""Number of canvas pixels per file of latents."""

Pools = Mapping[str, Mapping[str, Tensor]]
"""Latents by bucket. All canvases of a bucket have one size."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a run."""

    adapter: Mapping[str, Tensor]
    """The LoRA as peft's state dict."""
    report: TrainReport
    """The record of the training."""
    validation: tuple[float, float] | None
    """Loss on the held-out rows with the base alone, then with the expert. None if no row is held out."""


def checkpoint_name(name: str) -> str:
    """Name of the run of expert `name`; its checkpoint adds `.ckpt`."""
    return f"expert-{name}"


def default_learning_rate(base: FluxFill) -> float:
    """2e-3 for a base of fewer than `SMALL_BASE` parameters, 1e-4 for a larger one."""
    return 2e-3 if sum(p.numel() for p in base.transformer.parameters()) < SMALL_BASE else 1e-4


def own_config(base: FluxFill, *, steps: int = STEPS, learning_rate: float | None = None, seed: int = 0, checkpoint_seconds: float = 60.0) -> TrainConfig:  # fmt: skip
    """Settings of a run on own rows: short warm-up, cosine schedule, no weight decay, averaged weights."""
    return TrainConfig(
        steps=steps,
        learning_rate=learning_rate or default_learning_rate(base),
        warmup=min(50, max(1, steps // 10)),
        weight_decay=0.0,
        ema=0.99,
        seed=seed,
        checkpoint_seconds=checkpoint_seconds,
    )


def add_lora(transformer: FluxTransformer2DModel, name: str, rank: int) -> list[nn.Parameter]:
    """Freeze the transformer and put a new LoRA on it. Returns the LoRA's parameters."""
    transformer.requires_grad_(False)
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=shapes_of(transformer).family.targets)
    cast(Any, transformer).add_adapter(lora, adapter_name=name)
    return [parameter for parameter in transformer.parameters() if parameter.requires_grad]


def lora_state(transformer: FluxTransformer2DModel, name: str) -> dict[str, Tensor]:
    """peft's state dict of a LoRA, in float32 on the CPU."""
    state = get_peft_model_state_dict(transformer, adapter_name=name)
    return {key: value.detach().float().cpu().clone() for key, value in state.items()}


def encode_rows(
    table: Table, columns: Columns, rules: RowRules, plan: Plan, base: FluxFill, folder: Path
) -> tuple[Pools, Pools]:
    """The planned rows as latents, kept in `folder`: those to train on, and those held out. Existing files are reused."""
    found: list[dict[str, Mapping[str, Tensor]]] = []
    for held_out in (False, True):
        pools: dict[str, Mapping[str, Tensor]] = {}
        for bucket, indices in plan.buckets(held_out=held_out).items():
            items = partial(_item, table, columns, rules, indices)
            _, width, height = (int(side) for side in bucket.rpartition("-")[2].split("x"))
            shard = max(1, min(512, _SHARD_PIXELS // (3 * width * height)))
            build_pool(bucket, items, len(indices), base, folder, shard_size=shard, clip_length=_clip_length(base))
            pools[bucket] = load_pool(bucket, folder)
        found.append(pools)
    return found[0], found[1]


def train_own(
    name: str, base: FluxFill, pools: Pools, held_out: Pools, folder: Path, config: TrainConfig, *,
    rank: int = RANK, batch: int = BATCH, checkpoint_gradients: bool = False, flow: Callable[..., Tensor] = flow_loss,
) -> Trained:  # fmt: skip
    """Train a LoRA on `pools`, resuming from `folder`. The base is frozen and not changed.

    `flow` is `flow_loss` with the start of the expert set's edits.
    """
    names = tuple(pools)
    shares = torch.tensor([float(len(pool["t5"])) for pool in pools.values()])

    def loss(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        bucket = names[int(torch.multinomial(shares, 1, generator=generator))]
        chosen = torch.randint(len(pools[bucket]["t5"]), (batch,), generator=generator)
        return {"loss": flow(base, pools[bucket], chosen, generator, panels=_panels(bucket))}

    with _lora(base, name, rank, config.seed, checkpoint_gradients) as trained:
        before = validation_loss(base, held_out, config.seed, batch, flow)
        report = train(checkpoint_name(name), trained, loss, config, folder)
        after = validation_loss(base, held_out, config.seed, batch, flow)
        adapter = lora_state(base.transformer, name)
    return Trained(adapter, report, None if before is None or after is None else (before, after))


def validation_loss(
    base: FluxFill, pools: Pools, seed: int, batch: int, flow: Callable[..., Tensor] = flow_loss
) -> float | None:
    """Mean loss on held-out rows, with the same noise at every call. None if `pools` is empty."""
    total, count = 0.0, 0
    with torch.no_grad():
        for bucket, pool in pools.items():
            rows = torch.arange(min(len(pool["t5"]), max(1, _VALIDATION_ROWS - count)))
            for draw in range(_VALIDATION_DRAWS):
                for first, chosen in enumerate(torch.split(rows, batch)):
                    generator = step_generator(seed, draw * 1_000_000 + first, stream=1)
                    value = flow(base, pool, chosen, generator, panels=_panels(bucket)).item()
                    total += value * len(chosen) / _VALIDATION_DRAWS
            count += len(rows)
    if count and not math.isfinite(total):
        raise CareEditError("The loss on the held-out rows is not a number; train with --dtype float32.")
    return total / count if count else None


@contextmanager
def _lora(base: FluxFill, name: str, rank: int, seed: int, checkpoint_gradients: bool) -> Iterator[list[nn.Parameter]]:
    """The trained parameters of a new LoRA on the base, in float32. The LoRA is removed at the end."""
    transformer = cast(Any, base.transformer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trained = add_lora(transformer, name, rank)
    for parameter in trained:
        parameter.data = parameter.data.float()
    if checkpoint_gradients:
        transformer.enable_gradient_checkpointing()
    try:
        yield trained
    finally:
        if checkpoint_gradients:
            transformer.disable_gradient_checkpointing()
        transformer.unload_lora()


def _item(table: Table, columns: Columns, rules: RowRules, indices: list[int], position: int) -> Item:
    return row_item(read_row(table, indices[position], columns, rules), rules)


def _panels(bucket: str) -> int:
    return int(bucket.rpartition("-")[2].split("x")[0])


def _clip_length(base: FluxFill) -> int:
    return min(77, int(base.tokenizer.model_max_length))
