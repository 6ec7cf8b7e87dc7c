"""Loading a base from a folder or the hub, and the device that holds it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from careedit.editing.families import FAMILIES, Family
from careedit.errors import ExpertError, InputError
from careedit.families import INDEX, facts_of_pipeline, read_index


def find_device(wanted: torch.device | str | None) -> torch.device:
    """`wanted`, or by default a GPU if there is one, else the CPU. Raises `InputError` for a device that does not exist."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no kind of its own for this
        raise InputError(f"This machine has no device {str(wanted)!r}; use cpu, or a GPU such as cuda.") from error
    return device


COMPILED = ", compiled blocks"
"""The end of the runtime of an edit whose transformer blocks are compiled."""


def runtime_of(device: torch.device, *, compiled: bool = False) -> str:
    """What computes on `device`: torch's version, the processor's or GPU's kind, and whether blocks are compiled.

    Another one may round differently.
    """
    kind = platform.machine() + " " + torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    return f"torch {torch.__version__}, {kind}{COMPILED if compiled else ''}"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the progress bars that diffusers and transformers draw per component and per weight."""
    shown = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def load_base(
    path_or_hub_id: str | Path,
    *,
    revision: str | None = None,
    max_sequence_length: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Family:
    """Load a base from a diffusers pipeline folder or, by the same code, from the hub ("black-forest-labs/FLUX.1-Fill-dev").

    Its `model_index.json` names the pipeline class, which decides the family. `revision` pins a hub commit. Only
    safetensors files are read. Raises `ExpertError` for a missing folder, a pipeline that is not in `FACTS`, and a missing,
    damaged or wrong component.
    """
    name, index = read_index(path_or_hub_id, revision=revision)
    facts = facts_of_pipeline(index.get("_class_name"), name)
    for component in facts.components:
        entry = index.get(component)
        # Nothing else is imported by name: an index must not decide which code runs.
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in ("diffusers", "transformers")):
            raise ExpertError(f"The base {name!r} names no {component} from diffusers or transformers in its {INDEX}.")
    try:
        with quiet_loading():
            pipe = getattr(diffusers, facts.pipeline).from_pretrained(
                name, revision=revision, dtype=dtype or torch.float32, use_safetensors=True
            )
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ExpertError(
            f"The base {name!r} could not be loaded, a component is missing or damaged: {reason}."
        ) from error
    return FAMILIES[facts.pipeline].from_pipeline(pipe, max_sequence_length=max_sequence_length, device=device)
