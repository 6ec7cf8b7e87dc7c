"""The encoder deployment as an expert replica sees it: prompts in, tensors on the replica's device out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from careedit.editing import Engine, Prompt
from careedit.editing.cache import Tensors
from careedit_deployments.calls import REPLICA_LOST, attempts, raise_serving_error
from careedit_deployments.encoder.replica import Reply, find_all, runtime_in_words
from careedit_deployments.errors import DeadlineError, UnavailableError
from careedit_deployments.telemetry.metrics import Metrics


class Texts(NamedTuple):
    """The encoded prompts of an edit, as `Engine.prepare` takes them."""

    tensors: list[Tensors]
    """One entry per prompt, on the engine's device."""
    exact: bool
    """Whether the engine's base would have given the same bits with text encoders of its own."""


class EncoderLink(NamedTuple):
    """What a replica needs for calls of the encoder deployment."""

    handle: DeploymentHandle[Any]
    """Handle of the encoder deployment, by which its replicas are called."""
    loop: asyncio.AbstractEventLoop
    """The replica's event loop, in which the calls wait."""
    metrics: Metrics
    """Where repeated calls are counted."""


class RemoteEncoder:
    """Encodes the prompts of one engine's base in the encoder deployment; from any thread.

    A call whose replica is lost, full or being replaced is made again until the edit's deadline. That is safe, because
    encoding changes nothing.
    """

    def __init__(self, link: EncoderLink, base: str, engine: Engine, threads: int) -> None:
        """`base` is the `base_key` of the engine's base, `threads` are torch's in the engine's thread."""
        self._link, self._base, self._engine = link, base, engine
        self._runtime = runtime_in_words(engine.base.device, engine.base.dtype, threads)

    def encode(self, prompts: Sequence[Prompt], deadline: float) -> Future[Texts]:
        """The encoded prompts; cancelling the future cancels the call. `deadline` is in monotonic time.

        The future raises `DeadlineError`, and `ServingError` and its subclasses for an encoder that fails.
        """
        return asyncio.run_coroutine_threadsafe(self._encode(prompts, deadline), self._link.loop)

    async def _encode(self, prompts: Sequence[Prompt], deadline: float) -> Texts:
        cache = self._engine.cache
        # Keys of its own: an entry has a flag more than one that the engine's base encodes.
        keys: list[Hashable] = [("encoder", prompt.key) for prompt in prompts]
        missing, kept = find_all(cache, dict(zip(keys, prompts, strict=True)))
        if missing:
            reply = await self._ask(list(missing.values()), deadline)
            for key, encoding in zip(missing, reply.encodings, strict=True):
                exact = torch.tensor(not encoding.together and reply.runtime == self._runtime)
                kept[key] = (*self._placed(encoding.tensors), exact)
                cache.keep(key, kept[key])
        entries = [kept[key] for key in keys]
        return Texts([entry[:-1] for entry in entries], all(bool(entry[-1]) for entry in entries))

    async def _ask(self, prompts: Sequence[Prompt], deadline: float) -> Reply:
        async for attempt in attempts(deadline):
            if attempt:
                self._link.metrics.encoder_retried()
            response: Any = self._link.handle.encode.remote(self._base, prompts)
            ended = False
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    reply: Reply = await response
                ended = True
                return reply
            except (*REPLICA_LOST, BackPressureError):
                continue
            except TimeoutError:
                break
            except (RayError, RayServeException) as error:
                if isinstance(getattr(error, "cause", None), UnavailableError):
                    continue  # it is about to be replaced
                raise_serving_error(error, "The encoder")
            finally:
                if not ended:
                    with suppress(Exception):
                        response.cancel()
        raise DeadlineError("The edit's deadline has passed while its prompt waited for an encoder; try again later.")

    def _placed(self, tensors: Tensors) -> Tensors:
        """On the engine's device, numbers in its format; the last tensor is a flag."""
        base = self._engine.base
        return (*(one.to(device=base.device, dtype=base.dtype) for one in tensors[:-1]), tensors[-1])
