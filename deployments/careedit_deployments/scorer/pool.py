"""The scorer pool: the VLM judge in its own replicas, and `RemoteScorer`, with which expert replicas call it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, cast

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from careedit.errors import CareEditError, InputError
from careedit.loading import quick_imports
from careedit.scoring import Asker, JudgeIdentity, Score, Scorer, ScoreRequest
from careedit_deployments.batched import Batched, Health
from careedit_deployments.config import ScorerConfig, Telemetry
from careedit_deployments.errors import ScorerUnavailableError
from careedit_deployments.telemetry.logs import set_up_logging

MAX_BATCH = 32
"""Maximum number of requests that are combined in a batch. A single call may have more."""


def load_scorer(config: ScorerConfig) -> Scorer:
    """The judge that a configuration names, with its weights. Raises `InputError` if it cannot be imported."""
    model = str(config.model)
    if config.backend == "openai":
        from careedit.scoring import VqaScorer
        from careedit.scoring.openai import EndpointAsker
        from careedit.scoring.openai_http import EndpointConfig

        endpoint = EndpointConfig(base_url=str(config.endpoint), model=model, api_key_env=config.api_key_env)
        return VqaScorer(cast(Asker, EndpointAsker(endpoint)))
    if config.backend == "import":
        module, _, name = model.partition(":")
        try:
            made: Scorer = getattr(import_module(module), name)()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"The scorer {model!r} cannot be imported ({error}); set scorer.model to package.module:function."
            ) from None
        return made
    with quick_imports():
        from careedit.scoring.vlm import load_judge

    return load_judge(model)


class ScorerPool:
    """One replica of the judge."""

    def __init__(self, config: Mapping[str, Any], telemetry: Mapping[str, Any], threads: int | None = None) -> None:
        """`config`: a `ScorerConfig` as a mapping. `threads`: torch's threads on a CPU; None: torch's default."""
        set_up_logging(Telemetry(**telemetry))
        settings = ScorerConfig(**config)
        self._scorer = load_scorer(settings)
        # A local model supports one call at a time, so calls are batched. An endpoint supports concurrent calls.
        remote = settings.backend == "openai"
        workers = settings.deployment.max_ongoing_requests if remote else 1
        self._workers = ThreadPoolExecutor(workers, "careedit-judge", _set_threads, (settings.backend, threads))
        self._batched = None if remote else Batched(self._judge, self._workers, max_batch=MAX_BATCH)
        self._health = Health("judge", self._workers, settings.deployment.health_check_timeout_s / 2)

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in their order."""
        if self._batched is not None:
            return await self._health.watch(self._batched.ask(requests))
        loop = asyncio.get_running_loop()
        return await self._health.watch(loop.run_in_executor(self._workers, self._judge, requests))

    def _judge(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return list(self._scorer.score(requests))

    async def identity(self) -> JudgeIdentity:
        """Identity of the judge."""
        return self._scorer.identity

    async def check_health(self) -> None:
        """Raise `UnavailableError` if the judge is stuck, or failed several times in a row."""
        await self._health.check()


class RemoteScorer:
    """A `Scorer` that calls the pool; for threads, not for an event loop. Every failure is a `ScorerUnavailableError`.

    A call whose replica died is sent to a second replica. That is safe, because judging changes nothing.
    """

    def __init__(self, handle: DeploymentHandle[Any], config: ScorerConfig, *, timeout: float = 60.0) -> None:
        """`timeout`: maximum seconds of one call."""
        self._handle, self._timeout = handle, timeout
        # Until the pool has answered once, only the configured identity is known.
        self._identity = JudgeIdentity(
            backend=config.backend, model=str(config.model), revision="unknown", prompts="unknown"
        )

    @property
    def identity(self) -> JudgeIdentity:
        """Identity of the judge in the latest answer."""
        return self._identity

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in their order."""
        try:
            scores = self._ask(requests)
        except (RayActorError, RayServeException) as error:
            if isinstance(error, BackPressureError):
                raise ScorerUnavailableError(
                    "The scorer pool is full; the edit continues without the early filter."
                ) from None
            try:
                scores = self._ask(requests)
            except (RayError, RayServeException, TimeoutError) as again:
                raise ScorerUnavailableError(f"The scorer pool does not answer ({type(again).__name__}).") from None
        except TimeoutError:
            raise ScorerUnavailableError(f"The scorer pool did not answer within {self._timeout:g} seconds.") from None
        except RayTaskError as error:
            cause = error.cause
            reason = str(cause) if isinstance(cause, CareEditError) else type(cause).__name__
            raise ScorerUnavailableError(f"The scorer pool failed: {reason}") from None
        except RayError as error:
            raise ScorerUnavailableError(f"The scorer pool does not answer ({type(error).__name__}).") from None
        if scores:
            self._identity = scores[0].judge
        return scores

    def _ask(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        response: Any = self._handle.score.remote(list(requests))
        try:
            return list(response.result(timeout_s=self._timeout))
        except TimeoutError:
            response.cancel()
            raise


def _set_threads(backend: str, threads: int | None) -> None:
    if backend == "transformers" and threads is not None:
        import torch

        torch.set_num_threads(threads)
