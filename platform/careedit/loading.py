"""Loading libraries and models: quickly, quietly, and onto a device that exists. It imports no library of models itself."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from careedit.errors import ExpertError, InputError

if TYPE_CHECKING:
    import torch


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import libraries without Python's cyclic garbage collector; only imports belong into the block.

    Modules make a million objects that stay until the process ends. The collector would look at all of them again and
    again, which is a quarter of the time to import diffusers. Later collections leave them out too.
    """
    # On a CPU with bfloat16 units it asks for a package that fetches its kernels from a hub, and goes on without.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if not gc.isenabled():  # another thread imports as well, or the user wants none
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the progress bars that diffusers and transformers, where they are imported, draw per component and per weight."""
    names = ("diffusers.utils.logging", "transformers.utils.logging")
    logs = [sys.modules[name] for name in names if name in sys.modules]
    shown = [log for log in logs if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Without log lines, and with any error as one `ExpertError`; `what` is the model in its sentence: "vision model 'x'"."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except Exception as error:  # files, hub, configuration: each raises its own kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExpertError(f"The {what} cannot be loaded ({reason}); check its name, files and network.") from error
    finally:
        logging.disable(before)


def find_device(wanted: torch.device | str | None) -> torch.device:
    """`wanted`, or by default a GPU if there is one, else the CPU. Raises `InputError` for a device that does not exist."""
    import torch

    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no kind of its own for this
        raise InputError(f"This machine has no device {str(wanted)!r}; use cpu, or a GPU such as cuda.") from error
    return device


def default_dtype(device: torch.device) -> torch.dtype:
    """The number format of weights for which none is named: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32
