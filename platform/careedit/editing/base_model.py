"""Loading a base from a folder or the hub, and the device that holds it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from careedit.editing.families import FAMILIES, Family, PromptEncoder, placed
from careedit.editing.quantisation import check_quantisation, quantise, version_of
from careedit.errors import ExpertError
from careedit.experts import ExpertSet, LoraState
from careedit.experts.appliers import merge_for_good
from careedit.experts.manifest import SchedulerSettings
from careedit.experts.transformer_file import load_transformer_file
from careedit.families import INDEX, Facts, Quantisation, facts_of_pipeline, read_index
from careedit.hub import warn_unless_pinned
from careedit.loading import default_dtype, find_device, quiet_loading

_DYNAMIC = {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"}
"""Scheduler settings that decide a shift which is linear in the number of tokens."""


COMPILED = ", compiled blocks"
"""The end of the runtime of an edit whose transformer blocks are compiled."""


def runtime_of(device: torch.device, quantisation: Quantisation | None = None, *, compiled: bool = False) -> str:
    """What computes on `device`: torch's version, the processor's or GPU's kind, the package that computes with quantised
    weights, and whether blocks are compiled. Another one may round differently.
    """
    kind = platform.machine() + " " + torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    package = "" if quantisation is None else f", {version_of(quantisation)}"
    return f"torch {torch.__version__}, {kind}{package}{COMPILED if compiled else ''}"


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the context; None leaves them as they are."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


def load_base(
    path_or_hub_id: str | Path,
    *,
    revision: str | None = None,
    max_sequence_length: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    text_encoders: bool = True,
    lora: LoraState | None = None,
    scheduler: SchedulerSettings | None = None,
    quantisation: Quantisation | None = None,
    transformer: Path | None = None,
) -> Family:
    """Load a base from a diffusers pipeline folder or, by the same code, from the hub ("black-forest-labs/FLUX.1-Fill-dev").

    Its `model_index.json` names the pipeline class, which decides the family. `revision` pins a hub commit. Only
    safetensors files are read. Without `text_encoders` they are neither fetched nor read: `load_prompt_encoder` loads them
    elsewhere. `lora` is merged into the transformer, and `scheduler` replaces settings of the schedule. With `quantisation`
    the transformer's weights are quantised after that. `transformer` is a file of quantised weights, which are loaded instead
    of the base's own transformer. Raises `ExpertError` for a missing folder, a pipeline that is not in
    `FACTS`, and a missing, damaged or wrong component.
    """
    changed = {} if scheduler is None else scheduler.model_dump(exclude_none=True)

    def left_out(facts: Facts) -> Iterable[str]:
        if facts.shift == "fitted" and (unused := sorted(changed.keys() & _DYNAMIC)):
            raise ExpertError(
                f"The base {str(path_or_hub_id)!r} has a fitted shift, so its scheduler setting {unused[0]} has no effect; "
                "remove it."
            )
        return (*(() if text_encoders else facts.text_encoders), *(() if transformer is None else ("transformer",)))

    facts, pipe = _load(path_or_hub_id, revision, dtype, left_out)
    if changed:
        pipe.scheduler = cast(Any, FlowMatchEulerDiscreteScheduler).from_config(pipe.scheduler.config, **changed)
    if transformer is not None:
        pipe.transformer = load_transformer_file(
            transformer, facts, str(path_or_hub_id), revision=revision, dtype=dtype or torch.float32
        )
    if lora is not None:
        merge_for_good(pipe.transformer, lora)
    if quantisation is not None:
        quantise(pipe.transformer, quantisation, pipe.transformer.device if device is None else torch.device(device))
    return FAMILIES[facts.pipeline].from_pipeline(
        pipe, max_sequence_length=max_sequence_length, device=device, text_encoders=text_encoders
    )


def load_prompt_encoder(
    path_or_hub_id: str | Path,
    *,
    revision: str | None = None,
    max_sequence_length: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> PromptEncoder:
    """Load the text encoders of a base alone; transformer and VAE are neither fetched nor read. As `load_base`."""
    facts, pipe = _load(path_or_hub_id, revision, dtype, lambda facts: ("transformer", "vae"))
    length = facts.text_tokens if max_sequence_length is None else max_sequence_length
    components = placed(pipe, facts.text_components, device)
    return FAMILIES[facts.pipeline].prompt_encoder(
        **components,
        max_sequence_length=length,
        device=components["text_encoder"].device,
        dtype=components["text_encoder"].dtype,
    )


def _load(
    path_or_hub_id: str | Path,
    revision: str | None,
    dtype: torch.dtype | None,
    left_out: Callable[[Facts], Iterable[str]],
) -> tuple[Facts, Any]:
    """The pipeline of a base without the components `left_out`."""
    name, index = read_index(path_or_hub_id, revision=revision)
    warn_unless_pinned("The base", name, revision, "give its revision (base.revision in an expert set)")
    facts = facts_of_pipeline(index.get("_class_name"), name)
    for component in facts.components:
        entry = index.get(component)
        # Nothing else is imported by name: an index must not decide which code runs.
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in ("diffusers", "transformers")):
            raise ExpertError(f"The base {name!r} names no {component} from diffusers or transformers in its {INDEX}.")
    try:
        with quiet_loading():
            pipe = getattr(diffusers, facts.pipeline).from_pretrained(
                name,
                revision=revision,
                dtype=dtype or torch.float32,
                use_safetensors=True,
                **dict.fromkeys(left_out(facts)),
            )
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ExpertError(
            f"The base {name!r} could not be loaded, a component is missing or damaged: {reason}."
        ) from error
    return facts, pipe


def load_base_of(
    expert_set: ExpertSet,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    text_encoders: bool = True,
    quantisation: Quantisation | None = None,
) -> Family:
    """Load the base of an expert set, with the LoRA and the scheduler settings that the set adds to it.

    `dtype` is by default `default_dtype`. Raises as `find_device`, `load_base` and `load_adapter`.
    """
    spec, device = expert_set.spec.base, find_device(device)
    if quantisation is not None:
        check_quantisation(quantisation)
    if quantisation is not None and spec.transformer is not None:
        raise ExpertError(
            f"The base of the set {expert_set.name!r} is quantised already, by its file {spec.transformer.file}; remove "
            "quantisation."
        )
    transformer = expert_set.base_transformer()
    lora = expert_set.load_base_lora()  # checks the base's shapes too, before gigabytes of weights are read
    expert_set.check_base_files()
    return load_base(
        expert_set.base_path,
        revision=spec.revision,
        max_sequence_length=spec.max_sequence_length,
        device=device,
        dtype=dtype or default_dtype(device),
        text_encoders=text_encoders,
        lora=lora,
        scheduler=spec.scheduler,
        quantisation=quantisation,
        transformer=transformer,
    )
