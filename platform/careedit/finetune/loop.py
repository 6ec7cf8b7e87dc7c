"""The training loop of every recipe. A run that was stopped continues to the same losses.

A recipe gives `loss(step, generator)`. The generator's seed depends on (seed, step) alone, so the data and noise of a step
depend on nothing but its number. A loss that is not a number ends the run with an error.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup_lr_rate as cosine_schedule

from careedit.errors import CareEditError
from careedit.files import atomic_path, write_atomic
from careedit.finetune.optimizers import optimizers_for
from careedit.finetune.precision import NumberFormat, settle, using
from careedit.progress import keeping, note, progress

Loss = Callable[[int, torch.Generator], Mapping[str, Tensor]]
"""(step, generator) -> named scalars. The entry "loss" is minimised; other entries are for the recipe's own use."""
CURVE_EVERY = 50
"""Steps between two points of the loss curve. Checkpoints are made at these steps."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long and how fast a recipe learns."""

    steps: int
    """Total number of optimizer steps."""
    learning_rate: float
    """Peak learning rate, reached after the warm-up."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly to its peak. Default: 100."""
    final_share: float = 0.05
    """Learning rate at the end, as a share of the peak; it falls along a cosine. Default: 0.05."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW). Default: 0.01."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's decay rates of the gradient's mean and of its square. Default: 0.9 and 0.98."""
    clip: float = 1.0
    """Gradient norm above which gradients are scaled down. Default: 1."""
    seed: int = 0
    """Seed of data and noise. Default: 0."""
    ema: float = 0.0
    """Decay of the weights' moving average, which becomes the result. Default: 0, no average."""
    checkpoint_seconds: float = 60.0
    """Wall-clock seconds between two checkpoints, at least. Default: 60."""
    batches: int = 1
    """Number of the recipe's usual batches that one step learns from. Default: 1. Use more where a larger batch costs
    hardly more time, as on a GPU, with fewer steps; the learning rate stays."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The record of a finished run, from which model cards are made."""

    name: str
    """Name of the run, as in `train`."""
    config: TrainConfig
    """Settings with which the run was made."""
    seconds: float
    """Wall-clock seconds of training, summed over all resumed parts."""
    parameters: int
    """Number of trained parameters, single values counted."""
    curve: tuple[tuple[int, float], ...]
    """(step, mean loss since the entry before)."""
    number_format: NumberFormat | None = None
    """Format of the matrix products, with the measured speed of both formats. None in a report from before it was recorded."""

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_atomic(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> TrainReport:
        """Read a report that `save` wrote."""
        data = json.loads(path.read_text("utf-8"))
        config = {**data["config"], "betas": tuple(data["config"]["betas"])}
        curve = tuple(tuple(point) for point in data["curve"])
        number_format = NumberFormat.from_document(data.get("number_format"))
        return cls(**{**data, "config": TrainConfig(**config), "curve": curve, "number_format": number_format})


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The generator of one step. Uses with different `stream` are independent."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + stream) * 2_654_435_761 + step) % 2**63)


class Timed(Exception):
    """How `timing` ends a run of `train`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.3g} s per step")
        self.seconds = seconds


_TIMED: ContextVar[tuple[str, int] | None] = ContextVar("timed", default=None)


def timing(name: str, steps: int, run: Callable[[], object]) -> float:
    """Wall-clock seconds of one step in the run of `train` whose name begins with `name`, measured on `steps` steps.

    `run` calls a recipe as usual. It ends after the timed steps, without a checkpoint or a result. Any other call of `train`
    before that makes one step.
    """
    token = _TIMED.set((name, steps))
    try:
        run()
    except Timed as timed:
        return timed.seconds
    finally:
        _TIMED.reset(token)
    raise LookupError(f"The recipe has no training run {name!r}.")


def kept_format(checkpoint: Path) -> NumberFormat | None:
    """The number format of a checkpoint; None if the file does not exist."""
    if not checkpoint.exists():
        return None
    return NumberFormat.from_document(
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("number_format")
    )


def train(
    name: str,
    parameters: list[nn.Parameter],
    loss: Loss,
    config: TrainConfig,
    folder: Path,
    *,
    matrices: Sequence[nn.Parameter] = (),
) -> TrainReport:
    """Train in place, with checkpoints in `folder/NAME.ckpt`. At the end the parameters are their moving average (if `ema`).

    Muon updates those of `parameters` that are also in `matrices`, AdamW all others.
    A checkpoint of one device continues on any other. Matrix products use the active number format, or else the faster one on the parameters' device. A resumed run keeps
    the format of its checkpoint unless another one was requested.
    Raises `CareEditError` if the loss is not a number (the last good checkpoint stays) or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, timed = folder / f"{name}.ckpt", _TIMED.get()
    optimizers = optimizers_for(
        parameters, matrices, learning_rate=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    schedules = [
        cosine_schedule(part, config.warmup, config.steps, min_lr_rate=config.final_share) for part in optimizers
    ]
    average: Any = EMAModel(parameters, decay=config.ema, foreach=True) if config.ema else None
    stateful: list[Any] = [*optimizers, *schedules, *([average] if config.ema else [])]
    first, spent, curve, kept = 0, 0.0, list[tuple[int, float]](), None
    if checkpoint.exists() and timed is None:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if {**asdict(TrainConfig(1, 0.0)), **state["config"]} != asdict(config) or "states" not in state:
            raise CareEditError(
                f"{checkpoint} was made with other settings or by an older version of careedit; delete it or train into "
                "another folder."
            )
        first, spent, curve = state["step"], state["seconds"], [tuple(point) for point in state["curve"]]
        for parameter, value in zip(parameters, state["parameters"], strict=True):
            parameter.data.copy_(value)
        for part, value in zip(stateful, state["states"], strict=True):
            part.load_state_dict(value)
        if average is not None:
            average.to(parameters[0].device)
        kept = NumberFormat.from_document(state["number_format"])
    if kept is not None and first >= config.steps:
        number_format, message = kept, ""
    else:
        number_format, message = settle(name, str(parameters[0].device), kept)
    if message:
        note(message)

    def save(step: int, seconds: float) -> None:
        state = {
            "step": step,
            "seconds": seconds,
            "curve": curve,
            "config": asdict(config),
            "parameters": [p.detach() for p in parameters],
            "states": [part.state_dict() for part in stateful],
            "number_format": asdict(number_format),
        }
        try:
            with atomic_path(checkpoint) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            raise CareEditError(
                f"The checkpoint {checkpoint} cannot be written ({error}); free some space and rerun."
            ) from error

    def advance(step: int) -> float:
        value = loss(step, step_generator(config.seed, step))["loss"]
        for optimizer in optimizers:
            optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        if not (math.isfinite(value.item()) and math.isfinite(norm.item())):
            good = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was due yet"
            raise CareEditError(
                f"{name}: the loss at step {step} is not a number; {good}. Lower the learning rate and start again."
            )
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if average is not None:
            average.step(parameters)
        return value.item()

    if timed is not None:
        with using(number_format):
            first_loss = advance(0)  # also sets the kernels up
            if name.startswith(timed[0]):
                begun = time.monotonic()
                for step in range(1, timed[1] + 1):
                    advance(step)
                raise Timed((time.monotonic() - begun) / timed[1])
        return TrainReport(name, replace(config, steps=1), 0.0, 0, ((1, first_loss),), number_format)

    started = last_saved = time.monotonic()
    recent: list[float] = []
    saved = first or None

    def kept_now() -> str:
        if saved is None:
            return f"{name} had no checkpoint yet, so it starts again; run the same command."
        return f"{name} is kept up to step {saved:,} of {config.steps:,} in {checkpoint}; run the same command again to go on."

    with using(number_format), keeping(kept_now), progress(name, config.steps) as bar:
        bar.advance(first)
        for step in range(first, config.steps):
            value = advance(step)
            recent.append(value)
            if len(recent) == CURVE_EVERY or step + 1 == config.steps:
                curve.append((step + 1, sum(recent) / len(recent)))
                recent.clear()
            now = time.monotonic()
            if now - last_saved > config.checkpoint_seconds and not recent:
                save(step + 1, spent + now - started)
                last_saved, saved = now, step + 1
            bar.describe(f"{name}, loss {curve[-1][1] if curve else value:.4f}")
            bar.advance()
    seconds = spent + time.monotonic() - started
    save(config.steps, seconds)
    if average is not None:
        average.copy_to(parameters)
    return TrainReport(name, config, seconds, sum(p.numel() for p in parameters), tuple(curve), number_format)
