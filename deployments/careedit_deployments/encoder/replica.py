"""The encoder deployment: the text encoders of a base, for all expert replicas that edit with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from careedit.editing import EncodingCache, Prompt, load_prompt_encoder
from careedit.editing.base_model import runtime_of
from careedit.editing.cache import Tensors
from careedit.errors import CareEditError, ExpertError
from careedit.experts import load_expert_set
from careedit.loading import default_dtype, find_device
from careedit.record import Record
from careedit_deployments.batched import Batched, Health
from careedit_deployments.config import Dtype, Telemetry
from careedit_deployments.encoder.identity import base_key
from careedit_deployments.errors import UnavailableError
from careedit_deployments.telemetry.logs import set_up_logging
from careedit_deployments.telemetry.metrics import MetricFactory, Metrics, ray_factory

logger = logging.getLogger(__name__)

KEEP_S = 600.0
"""Seconds for which a replica keeps a base that was replaced: until then, expert replicas have loaded the new one."""


class EncoderSettings(Record):
    """Settings of an encoder replica that do not change while it runs."""

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


class BaseChoice(Record):
    """The base whose text encoders a replica has; it may change while the replica runs."""

    expert_set: str
    """Name, folder or address of a set with this base."""
    base: str
    """The base, as `base_key` names it, so that a changed folder is noticed."""


class Encoding(NamedTuple):
    """One encoded prompt, on the CPU."""

    tensors: Tensors
    """The tokens and the flag, as `PromptEncoder.encode_prompts` returns them."""
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


def find_all(
    cache: EncodingCache, prompts: Mapping[Hashable, Prompt]
) -> tuple[dict[Hashable, Prompt], dict[Hashable, Tensors]]:
    """Of prompts by their keys in `cache`, those that it lacks, and the entries of the others."""
    found = {key: cache.find(key) for key in prompts}
    missing = {key: prompt for key, prompt in prompts.items() if found[key] is None}
    return missing, {key: entry for key, entry in found.items() if entry is not None}


class EncoderReplica:
    """A replica of the encoder deployment. A thread of its own encodes; encoded prompts are kept by their content."""

    def __init__(
        self, settings: Mapping[str, Any], telemetry: Mapping[str, Any], metrics: MetricFactory = ray_factory
    ) -> None:
        """`settings` are `EncoderSettings`."""
        set_up_logging(Telemetry(**telemetry))
        self._settings = own = EncoderSettings(**settings)
        self._metrics = Metrics(metrics)
        self._workers = ThreadPoolExecutor(1, "careedit-encoder", _set_threads, (own.threads,))
        self._health = Health("encoder", self._workers, own.check_seconds)
        self._bases: dict[str, _Base] = {}

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Load the text encoders of the chosen base, unless they are loaded. Those of another base stay for `KEEP_S`.

        Raises `ExpertError` for a base that cannot be loaded; after the first, such a base is refused and the old one stays.
        """
        choice = BaseChoice(**user_config)
        if choice.base in self._bases:
            return
        try:
            new = await asyncio.to_thread(_Base, choice, self._settings, self._workers, self._metrics)
        except (CareEditError, OSError, RuntimeError, ValueError) as error:  # what reading weights raises
            if not self._bases:
                raise
            logger.error("The base of %s is refused, the old one stays: %s", choice.expert_set, error)
            return
        for old in self._bases:
            asyncio.get_running_loop().call_later(KEEP_S, self._bases.pop, old, None)
        self._bases[choice.base] = new

    async def encode(self, base: str, prompts: Sequence[Prompt]) -> Reply:
        """The encoded prompts of one edit. Raises `UnavailableError` for a base that the replica does not have."""
        if base not in self._bases:
            raise UnavailableError("This encoder does not have the edit's base; try again.")
        own = self._bases[base]
        # One after the other: an edit alone then has the numbers of a base with its own text encoders.
        encodings = [(await self._health.watch(own.batched.ask([prompt])))[0] for prompt in prompts]
        return Reply(tuple(encodings), own.runtime)

    async def check_health(self) -> None:
        """Raise `UnavailableError` if the encoder is stuck, or failed several times in a row."""
        await self._health.check()


class _Base:
    """The text encoders of one base, with the cache of what they encoded."""

    def __init__(self, choice: BaseChoice, settings: EncoderSettings, workers: Executor, metrics: Metrics) -> None:
        loaded = load_expert_set(choice.expert_set)
        if base_key(loaded) != choice.base:
            raise ExpertError(
                f"The set {choice.expert_set!r} has another base than the one that was deployed; deploy it again."
            )
        device = find_device(settings.device)
        self._encoder = load_prompt_encoder(
            loaded.base_path,
            revision=loaded.spec.base.revision,
            max_sequence_length=loaded.spec.base.max_sequence_length,
            device=device,
            dtype=default_dtype(device) if settings.dtype is None else getattr(torch, settings.dtype),
        )
        self._cache = EncodingCache(settings.cache_bytes)
        self._metrics = metrics
        self.batched = Batched(self._encode, workers, max_batch=settings.batch)
        threads = workers.submit(torch.get_num_threads).result()
        self.runtime = runtime_in_words(self._encoder.device, self._encoder.dtype, threads)

    def _encode(self, prompts: Sequence[Prompt]) -> list[Encoding]:
        """One batch, in the encoder's thread. A prompt that was encoded while it waited is found in the cache."""
        missing, kept = find_all(self._cache, {prompt.key: prompt for prompt in prompts})
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
