"""The number format of a recipe's matrix products, chosen by a short measurement on the device.

Mixed precision pays only where the device has units for it. A CPU without bfloat16 instructions emulates them, some 80
times slower than float32 (docs/notebook.md, "bfloat16 on a CPU without units for it"). So both formats are timed once at the start, and bfloat16 is used only
where it is clearly faster. This is the one place in which training turns autocast on.
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
"""How many times as fast bfloat16 must be to be chosen: it is less exact."""
_WIDTHS = {"cpu": (256, 1024), "cuda": (3072, 12288)}
"""(in, out) features of the timed product: a feed-forward layer of the tiny base, and one of FLUX.1."""
_ROWS = (64, 2048)
"""Fewest and most rows: 64 take 0.2 s where bfloat16 is emulated, 2048 fill a device that is fast."""
_ENOUGH = 0.02
"""Seconds from which a timing counts; below it, the rows are doubled."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """In which format a recipe multiplies matrices, and why."""

    name: FormatName
    """"float32", or "bfloat16" (autocast; weights and their averages stay float32)."""
    reason: Reason
    """"measured": the faster one here. "requested": by --dtype. "checkpoint": the resumed run's."""
    device: str
    """Type of the device, e.g. "cpu"."""
    gflops: Mapping[str, float] | None = None
    """Measured speed of each format in 10^9 floating-point operations per second; None where nothing was measured."""

    def __str__(self) -> str:
        why = {"measured": "the faster one", "requested": "as requested", "checkpoint": "the checkpoint's"}[self.reason]
        figures = ", ".join(f"{name} {value:.3g} GFLOP/s" for name, value in (self.gflops or {}).items())
        return f"{self.name} ({why} on this {self.device}{f'; measured: {figures}' if figures else ''})"

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> NumberFormat | None:
        """The record that `dataclasses.asdict` wrote; None where an older run wrote none."""
        return None if document is None else cls(**document)


OLD = NumberFormat("bfloat16", "checkpoint", "cpu")
"""What a checkpoint without a format was made in."""

_ACTIVE: ContextVar[NumberFormat | None] = ContextVar("number_format", default=None)


@lru_cache
def measure(device: str, threads: int) -> Mapping[str, float]:
    """Speed of a matrix product, forward and backward, in float32 and under bfloat16 autocast, in GFLOP/s.

    Takes well under a second. `device` is "cpu", "cuda" or "cuda:N", `threads` torch's own; the result is kept for the
    life of the process.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return {name: _speed(name, torch.device(device)) for name in get_args(FormatName)}


def _speed(name: FormatName, device: torch.device) -> float:
    inner, outer = _WIDTHS.get(device.type, _WIDTHS["cpu"])
    weight = torch.full(
        (outer, inner), 0.01, device=device, requires_grad=True
    )  # draws nothing: seeds stay as they are
    rows, most = _ROWS
    while True:
        inputs = torch.full((rows, inner), 0.1, device=device, requires_grad=True)
        seconds = min(_seconds(name, weight, inputs) for _ in range(2))  # the first one also sets the kernels up
        if seconds > _ENOUGH or rows == most:
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
    """The format to train in on `device`: `requested`, else `kept` of a checkpoint, else the faster one.

    Raises `InputError` for an unknown format.
    """
    if requested is not None and requested not in get_args(FormatName):
        raise InputError(f"The number format {requested!r} is unknown here; use {' or '.join(get_args(FormatName))}.")
    speeds = measure(device, torch.get_num_threads())
    fastest: FormatName = "bfloat16" if speeds["bfloat16"] > GAIN * speeds["float32"] else "float32"
    name = cast(FormatName, requested or fastest)
    reason: Reason = "requested" if requested else "measured"
    return _keeping(kept, NumberFormat(name, reason, torch.device(device).type, dict(speeds)))


def _keeping(kept: NumberFormat | None, chosen: NumberFormat) -> NumberFormat:
    if kept is None or kept.name == chosen.name or chosen.reason == "requested":
        return chosen
    return replace(chosen, name=kept.name, reason="checkpoint")


@contextmanager
def using(chosen: NumberFormat) -> Iterator[NumberFormat]:
    """Makes `chosen` the format of every `products` inside the context."""
    token = _ACTIVE.set(chosen)
    try:
        yield chosen
    finally:
        _ACTIVE.reset(token)


def active() -> NumberFormat | None:
    """The format that a command or the loop has chosen; None outside both."""
    return _ACTIVE.get()


def products(device: torch.device | str, weights: torch.dtype = torch.float32) -> AbstractContextManager[Any]:
    """The context in which a recipe runs its models: autocast, or nothing where the format is float32.

    Frozen weights that are kept in half precision need autocast in any case: their inputs are float32.
    """
    kind = torch.device(device).type
    name = "bfloat16" if weights != torch.float32 else (_ACTIVE.get() or choose(str(device))).name
    return _autocast(name, kind)


def settle(name: str, device: str, kept: NumberFormat | None) -> tuple[NumberFormat, str]:
    """The format of one run of the loop, and what to say about it.

    `kept` is that of its checkpoint, None for a new run. A resumed run keeps it, unless a format was requested. `name` is
    the run's. The text is empty where the command has said it already.
    """
    before = active()
    wanted = before or choose(device)
    chosen = _keeping(kept, wanted)
    if chosen.name != wanted.name:
        told = (
            f"{name} goes on in {chosen.name}, the number format of its checkpoint; --dtype {wanted.name} changes that."
        )
    elif kept is not None and kept.name != chosen.name:
        told = f"{name} goes on in {chosen.name}, as requested; its checkpoint was made in {kept.name}."
    else:
        told = "" if before else f"Number format: {chosen}."
    return chosen, told


def _autocast(name: FormatName, kind: str) -> AbstractContextManager[Any]:
    return torch.autocast(kind, torch.bfloat16) if name == "bfloat16" else nullcontext()
