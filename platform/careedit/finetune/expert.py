"""How an expert is trained on own rows: encoded rows, a LoRA on the frozen base, a validation loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from careedit.editing import Family, Start
from careedit.editing.families import SequenceFamily, as_fill
from careedit.errors import CareEditError
from careedit.experts import DEFAULT_TARGETS
from careedit.finetune.canvas import encode_canvas_rows
from careedit.finetune.data import Columns, Plan, Row, RowRules, Table, read_row
from careedit.finetune.flow import flow_loss
from careedit.finetune.loop import TrainConfig, TrainReport, step_generator, train
from careedit.finetune.sequence import encode_sequence_rows, release_encoders

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


class Rows(Protocol):
    """The encoded rows of one bucket."""

    def __len__(self) -> int:
        """Number of rows."""

    def loss(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The flow loss on the rows `chosen` (indices, [B]); a scalar."""


Pools = Mapping[str, Rows]
"""Encoded rows by bucket."""


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


def default_learning_rate(base: Family) -> float:
    """2e-3 for a base of fewer than `SMALL_BASE` parameters, 1e-4 for a larger one."""
    return 2e-3 if sum(p.numel() for p in base.transformer.parameters()) < SMALL_BASE else 1e-4


def own_config(base: Family, *, steps: int = STEPS, learning_rate: float | None = None, seed: int = 0, checkpoint_seconds: float = 60.0) -> TrainConfig:  # fmt: skip
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


def add_lora(transformer: nn.Module, name: str, rank: int, targets: str = DEFAULT_TARGETS) -> list[nn.Parameter]:
    """Freeze the transformer and put a new LoRA on the modules that match `targets`. Returns the LoRA's parameters."""
    transformer.requires_grad_(False)
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    cast(Any, transformer).add_adapter(lora, adapter_name=name)
    return [parameter for parameter in transformer.parameters() if parameter.requires_grad]


def lora_state(transformer: nn.Module, name: str) -> dict[str, Tensor]:
    """peft's state dict of a LoRA, in float32 on the CPU."""
    state = get_peft_model_state_dict(cast(Any, transformer), adapter_name=name)
    return {key: value.detach().float().cpu().clone() for key, value in state.items()}


def encode_rows(
    table: Table, columns: Columns, rules: RowRules, plan: Plan, base: Family, folder: Path, *,
    start: Start = "noise", noise_scale: float = 1.0,
) -> tuple[Pools, Pools]:  # fmt: skip
    """The planned rows as latents, kept in `folder`: those to train on, and those held out. Existing files are reused.

    `start` and `noise_scale` are what the expert set's edits start from.
    """
    found: list[dict[str, Rows]] = []
    for held_out in (False, True):
        pools: dict[str, Rows] = {}
        for bucket, indices in plan.buckets(held_out=held_out).items():
            row = partial(_row, table, columns, rules, indices)
            pools[bucket] = encode_bucket(
                bucket, row, len(indices), rules, base, folder, start=start, noise_scale=noise_scale
            )
        found.append(pools)
    if isinstance(base, SequenceFamily):
        release_encoders(base)
    return found[0], found[1]


def encode_bucket(
    bucket: str, row: Callable[[int], Row], count: int, rules: RowRules, base: Family, folder: Path, *,
    start: Start = "noise", noise_scale: float = 1.0,
) -> Rows:  # fmt: skip
    """`count` rows whose pictures have the same sizes, as latents, kept in `folder`. Existing files are reused.

    The name of the bucket ends in its panels and their size: "rows-2x64x64".
    """
    if isinstance(base, SequenceFamily):
        return encode_sequence_rows(bucket, row, count, rules, base, folder, noise_scale)
    flow = partial(flow_loss, start=start, noise_scale=noise_scale)
    return encode_canvas_rows(bucket, row, count, rules, as_fill(base), folder, flow, start)


def train_own(
    name: str, base: Family, pools: Pools, held_out: Pools, folder: Path, config: TrainConfig, *,
    rank: int = RANK, batch: int = BATCH, checkpoint_gradients: bool = False, adapter: Mapping[str, Tensor] | None = None,
) -> Trained:  # fmt: skip
    """Train a LoRA on `pools`, resuming from `folder`. The base is frozen and not changed.

    `adapter` is peft's state dict of a LoRA of the same rank to train further; None starts a new LoRA.
    """
    names = tuple(pools)
    shares = torch.tensor([float(len(pool)) for pool in pools.values()])

    def loss(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        bucket = names[int(torch.multinomial(shares, 1, generator=generator))]
        chosen = torch.randint(len(pools[bucket]), (batch,), generator=generator)
        return {"loss": pools[bucket].loss(chosen, generator)}

    with _lora(base, name, rank, config.seed, checkpoint_gradients, adapter) as trained:
        before = validation_loss(held_out, config.seed, batch)
        report = train(checkpoint_name(name), trained, loss, config, folder)
        after = validation_loss(held_out, config.seed, batch)
        state = lora_state(base.transformer, name)
    return Trained(state, report, None if before is None or after is None else (before, after))


def validation_loss(pools: Pools, seed: int, batch: int) -> float | None:
    """Mean loss on held-out rows, with the same noise at every call. None if `pools` is empty."""
    total, count = 0.0, 0
    with torch.no_grad():
        for pool in pools.values():
            rows = torch.arange(min(len(pool), max(1, _VALIDATION_ROWS - count)))
            for draw in range(_VALIDATION_DRAWS):
                for first, chosen in enumerate(torch.split(rows, batch)):
                    generator = step_generator(seed, draw * 1_000_000 + first, stream=1)
                    value = pool.loss(chosen, generator).item()
                    total += value * len(chosen) / _VALIDATION_DRAWS
            count += len(rows)
    if count and not math.isfinite(total):
        raise CareEditError("The loss on the held-out rows is not a number; train with --dtype float32.")
    return total / count if count else None


@contextmanager
def _lora(
    base: Family, name: str, rank: int, seed: int, checkpoint_gradients: bool, state: Mapping[str, Tensor] | None
) -> Iterator[list[nn.Parameter]]:
    """The trained parameters of a new LoRA on the base, in float32. The LoRA is removed at the end."""
    transformer = cast(Any, base.transformer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trained = add_lora(transformer, name, rank, base.facts.targets)
    if state is not None:
        set_peft_model_state_dict(transformer, dict(state), adapter_name=name)
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


def _row(table: Table, columns: Columns, rules: RowRules, indices: list[int], position: int) -> Row:
    return read_row(table, indices[position], columns, rules)
