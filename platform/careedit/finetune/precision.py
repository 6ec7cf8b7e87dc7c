"""The number format of matrix products in training, chosen by a short measurement on the device.

Mixed precision is faster only on a device that has units for it. A CPU without bfloat16 instructions emulates them, about
80 times slower than float32 (docs/notebook.md, "bfloat16 on a CPU without units for it"). So both formats are timed once
at the start, and bfloat16 is used only if it is clearly faster. Only this module turns autocast on in training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from careedit.errors import InputError

FormatName = Literal["float32", "bfloat16"]
Reason = Literal["measured", "requested", "checkpoint"]

GAIN = 1.2
"""Minimum speed of bfloat16, as a multiple of float32's, to be chosen: it is less exact."""
_WIDTHS = {"cpu": (256, 1024), "cuda": (3072, 12288)}
"""(in, out) features of the timed product: a feed-forward layer of a small base on a CPU, and one of FLUX.1 on a GPU."""
_ROWS = (64, 2048)
"""Minimum and maximum rows. 64 rows take 0.2 s where bfloat16 is emulated; 2048 rows fill a fast device."""
_ENOUGH = 0.02
"""Minimum seconds of a timing that counts. After a shorter one the rows are doubled."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """In which format a run multiplies matrices, and why."""

    name: FormatName
    """"float32", or "bfloat16" (autocast: weights and their averages stay in float32)."""
    reason: Reason
    """"measured": the faster one here. "requested": by --dtype. "checkpoint": the format of the resumed run."""
    device: str
    """The device that trains, for example "cpu" or "cuda:1"."""
    gflops: Mapping[str, float] | None = None
    """Measured speed of each format in 10^9 floating-point operations per second. None if nothing was measured."""

    def __str__(self) -> str:
        why = {"measured": "the faster one", "requested": "as requested", "checkpoint": "the checkpoint's"}[self.reason]
        figures = ", ".join(f"{name} {value:.3g} GFLOP/s" for name, value in (self.gflops or {}).items())
        return (
            f"{self.name} ({why} on this {torch.device(self.device).type}{f'; measured: {figures}' if figures else ''})"
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> NumberFormat | None:
        """The record that `dataclasses.asdict` made; None for None."""
        return None if document is None else cls(**document)


_ACTIVE: ContextVar[NumberFormat | None] = ContextVar("number_format", default=None)


@lru_cache
def measure(device: str, threads: int) -> Mapping[str, float]:
    """Speed of a matrix product, forward and backward, in float32 and under bfloat16 autocast, in GFLOP/s.

    Takes well under a second. `device` is "cpu", "cuda" or "cuda:N", `threads` is torch's number of threads. The result is
    cached for the process.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return {name: _speed(name, torch.device(device)) for name in get_args(FormatName)}


def _speed(name: FormatName, device: torch.device) -> float:
    inner, outer = _WIDTHS.get(device.type, _WIDTHS["cpu"])
    weight = torch.full(
        (outer, inner), 0.01, device=device, requires_grad=True
    )  # no random numbers, so seeds keep their meaning
    rows, maximum = _ROWS
    while True:
        inputs = torch.full((rows, inner), 0.1, device=device, requires_grad=True)
        seconds = min(_seconds(name, weight, inputs) for _ in range(2))  # the first one also sets the kernels up
        if seconds > _ENOUGH or rows == maximum:
            return 6 * rows * inner * outer / seconds / 1e9  # one product forward, two backward
        rows *= 2


def _seconds(name: FormatName, weight: Tensor, inputs: Tensor) -> float:
    _wait(inputs.device)
    started = time.perf_counter()
    with _autocast(name, inputs.device.type):
        output = functional.linear(inputs, weight)
    output.float().square().sum().backward()  # type: ignore[no-untyped-call]
    _wait(inputs.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def choose(device: str = "cpu", requested: str | None = None, kept: NumberFormat | None = None) -> NumberFormat:
    """The format to train in on `device`: `requested`, otherwise `kept` (a checkpoint's), otherwise the faster one.

    The format of a checkpoint of another kind of device is not kept: it may be far slower here.

    Raises `InputError` for an unknown format.
    """
    if requested is not None and requested not in get_args(FormatName):
        raise InputError(f"The number format {requested!r} is unknown; use {' or '.join(get_args(FormatName))}.")
    speeds = measure(device, torch.get_num_threads())
    fastest: FormatName = "bfloat16" if speeds["bfloat16"] > GAIN * speeds["float32"] else "float32"
    name = cast(FormatName, requested or fastest)
    reason: Reason = "requested" if requested else "measured"
    return _keeping(kept, NumberFormat(name, reason, str(device), dict(speeds)))


def _keeping(kept: NumberFormat | None, chosen: NumberFormat) -> NumberFormat:
    if kept is None or kept.name == chosen.name or chosen.reason == "requested" or _elsewhere(kept, chosen):
        return chosen
    return replace(chosen, name=kept.name, reason="checkpoint")


def _elsewhere(kept: NumberFormat, chosen: NumberFormat) -> bool:
    return torch.device(kept.device).type != torch.device(chosen.device).type


@contextmanager
def using(chosen: NumberFormat) -> Iterator[NumberFormat]:
    """Make `chosen` the format of every `products` inside the context."""
    token = _ACTIVE.set(chosen)
    try:
        yield chosen
    finally:
        _ACTIVE.reset(token)


def active() -> NumberFormat | None:
    """The format that a command or the loop has chosen. None outside both."""
    return _ACTIVE.get()


def training_device() -> torch.device:
    """The device of the active number format, on which recipes train; the CPU outside a command."""
    chosen = _ACTIVE.get()
    return torch.device("cpu" if chosen is None else chosen.device)


def products(device: torch.device | str, weights: torch.dtype = torch.float32) -> AbstractContextManager[Any]:
    """The context in which training runs its models: autocast, or nothing for float32.

    Frozen weights in half precision always need autocast, because their inputs are float32.
    """
    kind = torch.device(device).type
    name = "bfloat16" if weights != torch.float32 else (_ACTIVE.get() or choose(str(device))).name
    return _autocast(name, kind)


def settle(name: str, device: str, kept: NumberFormat | None) -> tuple[NumberFormat, str]:
    """The format of one run of the loop, and a message about it for the user.

    `kept` is the format of the run's checkpoint, None for a new run. A resumed run keeps it unless a format was requested.
    `name` is the run's name. The message is empty if the command has printed it already.
    """
    before = active()
    wanted = before or choose(device)
    chosen = _keeping(kept, wanted)
    if chosen.name != wanted.name:
        message = f"{name} continues in {chosen.name}, the number format of its checkpoint; --dtype {wanted.name} changes that."
    elif kept is not None and kept.name != chosen.name:
        why = "as requested" if chosen.reason == "requested" else f"the faster one on this {torch.device(device).type}"
        where = f" on a {torch.device(kept.device).type}" if _elsewhere(kept, chosen) else ""
        message = f"{name} continues in {chosen.name}, {why}; its checkpoint was made in {kept.name}{where}."
    else:
        message = "" if before else f"Number format: {chosen}."
    return chosen, message


def _autocast(name: FormatName, kind: str) -> AbstractContextManager[Any]:
    return torch.autocast(kind, torch.bfloat16) if name == "bfloat16" else nullcontext()
