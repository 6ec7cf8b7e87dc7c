"""The encoder deployment: the text encoders of one base, for all expert replicas that edit with it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from careedit.editing import EncodingCache, Prompt, load_prompt_encoder
from careedit.editing.base_model import default_dtype, find_device, runtime_of
from careedit.editing.cache import Tensors
from careedit.errors import ExpertError
from careedit.experts import load_expert_set
from careedit.record import Record
from careedit_deployments.batched import Batched, Health
from careedit_deployments.config import Dtype, Telemetry
from careedit_deployments.encoder.identity import base_key
from careedit_deployments.errors import UnavailableError
from careedit_deployments.telemetry.logs import set_up_logging
from careedit_deployments.telemetry.metrics import Metrics, ray_factory


class EncoderSettings(Record):
    """Settings of an encoder replica; they do not change while it runs."""

    expert_set: str
    """Name, folder or address of a set with the base whose text encoders are loaded."""
    base: str
    """The base, as `base_key` names it."""
    device: str | None
    """Device, such as "cuda" or "cpu"; None: a GPU if the replica has one."""
    dtype: Dtype | None
    """Number format of the weights; None: float32 on a CPU, bfloat16 on a GPU."""
    threads: int | None
    """Torch's threads on a CPU; None: torch's own choice."""
    batch: int
    """Maximum number of prompts in one forward."""
    cache_bytes: int
    """Maximum size of the cache of encoded prompts, in bytes."""
    check_seconds: float
    """Seconds that a forward may take before a health check fails."""


class Encoding(NamedTuple):
    """One encoded prompt, on the CPU."""

    tensors: Tensors
    """As `PromptEncoder.encode_prompts` returns them."""
    together: bool
    """Whether it was encoded in one batch with other prompts, so that it may round differently alone."""


class Reply(NamedTuple):
    """The answer of an encoder replica."""

    encodings: tuple[Encoding, ...]
    """One per prompt, in their order."""
    runtime: str
    """What computed them, as `runtime_in_words` says it; another runtime may round differently."""


def runtime_in_words(device: torch.device, dtype: torch.dtype, threads: int) -> str:
    """Everything on which the rounding of a forward depends, apart from its inputs."""
    where = f"{runtime_of(device)}, {str(dtype).removeprefix('torch.')}"
    return f"{where}, {threads} threads" if device.type == "cpu" else where


def find_all(cache: EncodingCache, prompts: Sequence[Prompt]) -> tuple[dict[Hashable, Prompt], dict[Hashable, Tensors]]:
    """The prompts that `cache` lacks, and the entries of the others, by key."""
    found = {prompt.key: cache.find(prompt.key) for prompt in prompts}
    missing = {prompt.key: prompt for prompt in prompts if found[prompt.key] is None}
    return missing, {key: entry for key, entry in found.items() if entry is not None}


class EncoderReplica:
    """A replica of the encoder deployment. A thread of its own encodes; encoded prompts are kept by their content."""

    def __init__(self, settings: Mapping[str, Any], telemetry: Mapping[str, Any]) -> None:
        """`settings` are `EncoderSettings`. Raises `ExpertError` for a base that cannot be loaded or is not the deployed one."""
        set_up_logging(Telemetry(**telemetry))
        self._settings = own = EncoderSettings(**settings)
        self._metrics = Metrics(ray_factory)
        loaded = load_expert_set(own.expert_set)
        if base_key(loaded) != own.base:
            raise ExpertError(
                f"The set {own.expert_set!r} has another base than the one that was deployed; deploy it again."
            )
        device = find_device(own.device)
        self._encoder = load_prompt_encoder(
            loaded.base_path,
            revision=loaded.spec.base.revision,
            max_sequence_length=loaded.spec.base.max_sequence_length,
            device=device,
            dtype=default_dtype(device) if own.dtype is None else getattr(torch, own.dtype),
        )
        self._cache = EncodingCache(own.cache_bytes)
        self._workers = ThreadPoolExecutor(1, "careedit-encoder", _set_threads, (own.threads,))
        threads = self._workers.submit(torch.get_num_threads).result()
        self._runtime = runtime_in_words(self._encoder.device, self._encoder.dtype, threads)
        self._batched = Batched(self._encode, self._workers, max_batch=own.batch)
        self._health = Health("encoder", self._workers, own.check_seconds)

    async def encode(self, base: str, prompts: Sequence[Prompt]) -> Reply:
        """The encoded prompts of one edit. Raises `UnavailableError` for another base than this replica's."""
        if base != self._settings.base:
            raise UnavailableError("This encoder has another base; the deployment is about to change.")
        # One after the other: an edit alone then has the numbers of a base with its own text encoders.
        encodings = [(await self._health.watch(self._batched.ask([prompt])))[0] for prompt in prompts]
        return Reply(tuple(encodings), self._runtime)

    async def check_health(self) -> None:
        """Raise `UnavailableError` if the encoder is stuck, or failed several times in a row."""
        await self._health.check()

    def _encode(self, prompts: Sequence[Prompt]) -> list[Encoding]:
        """In the encoder's thread: one batch. What waited for the same prompt finds it in the cache."""
        missing, kept = find_all(self._cache, prompts)
        if missing:
            started = time.perf_counter()
            made = self._encoder.encode_prompts(list(missing.values()))
            together = torch.tensor(len(missing) > 1)
            for key, tensors in zip(missing, made, strict=True):
                kept[key] = (*(tensor.cpu() for tensor in tensors), together)
                self._cache.keep(key, kept[key])
            self._metrics.encoded(len(missing), time.perf_counter() - started)
        self._metrics.reused(len(prompts) - len(missing))
        return [Encoding(entry[:-1], bool(entry[-1])) for entry in (kept[prompt.key] for prompt in prompts)]


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
