"""The one training loop of every recipe: resumable to the same losses, stopped by a sentence when a loss is not a number.

A recipe gives `loss(step, generator)`; the generator is seeded by (seed, step), so a step's data and noise depend on
nothing but its number, and a run killed at any moment goes on as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from careedit.errors import CareEditError
from careedit.files import atomic_path, write_atomic
from careedit.finetune.optimizers import Optimizers
from careedit.finetune.precision import OLD, NumberFormat, settle, using

Loss = Callable[[int, torch.Generator], Mapping[str, Tensor]]
"""(step, generator) -> named scalars; the entry "loss" is minimised, the others are recorded."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long and how fast a recipe learns."""

    steps: int
    """Optimizer steps in all."""
    learning_rate: float
    """Peak learning rate."""
    warmup: int = 100
    """Steps of linear warm-up."""
    final_share: float = 0.05
    """Learning rate at the end, as a share of the peak (cosine in between)."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's momenta."""
    clip: float = 1.0
    """Largest gradient norm."""
    seed: int = 0
    """Seed of data and noise."""
    ema: float = 0.0
    """Decay of the weights' moving average, which is what a recipe ships; 0 = none."""
    checkpoint_seconds: float = 60.0
    """Wall-clock seconds between checkpoints."""

    def learning_rate_at(self, step: int) -> float:
        """Warm-up, then cosine."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a finished run says of itself; model cards are made of it."""

    name: str
    config: TrainConfig
    seconds: float
    """Wall-clock seconds of training, all resumed parts together."""
    parameters: int
    """Trained parameters."""
    curve: tuple[tuple[int, float], ...]
    """(step, mean loss since the entry before)."""
    number_format: NumberFormat | None = None
    """Format of its matrix products, and how fast both formats were; None: bfloat16, before this was recorded."""

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_atomic(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> TrainReport:
        """Read what `save` wrote."""
        data = json.loads(path.read_text("utf-8"))
        config = {**data["config"], "betas": tuple(data["config"]["betas"])}
        curve = tuple(tuple(point) for point in data["curve"])
        number_format = NumberFormat.from_document(data.get("number_format"))
        return cls(**{**data, "config": TrainConfig(**config), "curve": curve, "number_format": number_format})


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The generator of one step; `stream` tells independent uses apart."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + stream) * 2_654_435_761 + step) % 2**63)


def kept_format(checkpoint: Path) -> NumberFormat | None:
    """The number format that a checkpoint was made in; None where there is no checkpoint."""
    if not checkpoint.exists():
        return None
    state = torch.load(checkpoint, weights_only=True, mmap=True)
    return NumberFormat.from_document(state.get("number_format")) or OLD


class Averages:
    """An exponential moving average of trainable parameters."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.shadow = [p.detach().clone() for p in parameters]

    def update(self, step: int) -> None:
        """Move towards the current weights; early steps count less (Adam-style warm-up of the decay)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.parameters], 1 - decay)

    def copy_to_parameters(self) -> None:
        """Make the average the weights."""
        for parameter, average in zip(self.parameters, self.shadow, strict=True):
            parameter.data.copy_(average)


def train(
    name: str,
    parameters: list[nn.Parameter],
    loss: Loss,
    config: TrainConfig,
    folder: Path,
    *,
    matrices: Sequence[nn.Parameter] = (),
) -> TrainReport:
    """Train in place, with checkpoints in `folder/NAME.ckpt`; on return the parameters hold the average (if `ema`).

    Those of `parameters` that are also in `matrices` are moved by Muon, all others by AdamW.
    Matrix products are in the number format that is active, or else the faster one on the parameters' device; a run that
    is resumed keeps that of its checkpoint unless another one was requested.
    Raises `CareEditError` when the loss is not a number (the last good checkpoint stays) or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{name}.ckpt"
    optimizer = Optimizers(parameters, matrices, betas=config.betas, weight_decay=config.weight_decay)
    averages = Averages(parameters, config.ema)
    first, spent, curve, kept = 0, 0.0, list[tuple[int, float]](), None
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] != asdict(config):
            raise CareEditError(f"{checkpoint} was made with other settings; delete it or train into another folder.")
        first, spent, curve = state["step"], state["seconds"], [tuple(point) for point in state["curve"]]
        optimizer.load_state_dict(state["optimizer"])
        for parameter, value in zip(parameters, state["parameters"], strict=True):
            parameter.data.copy_(value)
        averages.shadow = state["averages"]
        kept = NumberFormat.from_document(state.get("number_format")) or OLD
    console = Console(stderr=True)
    if kept is not None and first >= config.steps:
        number_format, told = kept, ""
    else:
        number_format, told = settle(name, str(parameters[0].device), kept)
    if told:
        console.print(told, highlight=False, soft_wrap=True)

    def save(step: int, seconds: float) -> None:
        state = {
            "step": step,
            "seconds": seconds,
            "curve": curve,
            "config": asdict(config),
            "optimizer": optimizer.state_dict(),
            "parameters": [p.detach() for p in parameters],
            "averages": averages.shadow,
            "number_format": asdict(number_format),
        }
        try:
            with atomic_path(checkpoint) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            raise CareEditError(
                f"The checkpoint {checkpoint} cannot be written ({error}); free some space and rerun."
            ) from error

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    started = last_saved = time.monotonic()
    recent: list[float] = []
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
    with using(number_format), bar as progress:
        task = progress.add_task(name, total=config.steps, completed=first, loss="-")
        for step in range(first, config.steps):
            value = loss(step, step_generator(config.seed, step))["loss"]
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, config.clip)
            if not (math.isfinite(value.item()) and math.isfinite(norm.item())):
                good = (
                    f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was due yet"
                )
                raise CareEditError(
                    f"{name}: the loss at step {step} is not a number; {good}. Lower the learning rate and start again."
                )
            optimizer.step(config.learning_rate_at(step))
            averages.update(step)
            recent.append(value.item())
            if len(recent) == 50 or step + 1 == config.steps:
                curve.append((step + 1, sum(recent) / len(recent)))
                recent.clear()
            now = time.monotonic()
            if now - last_saved > config.checkpoint_seconds and not recent:
                save(step + 1, spent + now - started)
                last_saved = now
            progress.update(task, advance=1, loss=f"{curve[-1][1]:.4f}" if curve else f"{value.item():.4f}")
    seconds = spent + time.monotonic() - started
    save(config.steps, seconds)
    if config.ema:
        averages.copy_to_parameters()
    return TrainReport(name, config, seconds, sum(p.numel() for p in parameters), tuple(curve), number_format)
