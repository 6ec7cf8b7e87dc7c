"""`LocalBackend`: real edits in one process, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

from careedit.editor import Editor, load_editor
from careedit.errors import InputError
from careedit.records import RoutingDecision
from careedit.routing import RoutingFeatures
from careedit.scoring import Score, Scorer, ScoreRequest
from careedit_deployments.cluster.fleet import describe_arm
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.backend import ArmInfo, EditCall, EditEvent
from careedit_deployments.errors import OverloadedError, ScorerUnavailableError, UnavailableError
from careedit_deployments.replica.edit import EditRunner
from careedit_deployments.replica.scheduler import StepScheduler


class LocalBackend:
    """Implements `backend.Backend` over one editor and one step scheduler per arm."""

    def __init__(self, config: ServeConfig, editors: Mapping[str, Editor], *, scorer: Scorer | None = None) -> None:
        """`editors` holds one per arm of the configuration; the backend has them to itself until `close`."""
        missing = sorted(set(config.arms) - set(editors))
        if missing:
            raise InputError(f"The arm {missing[0]!r} has no editor; give one for each arm.")
        self._scorer = scorer
        self._most = config.expert.max_ongoing_requests + config.expert.max_queued_requests
        self._in_hand = dict.fromkeys(config.arms, 0)
        self._editors = dict(editors)
        self._arms = {name: describe_arm(name, arm, editors[name].expert_set) for name, arm in config.arms.items()}
        self.runners: Mapping[str, EditRunner] = {
            name: EditRunner(
                editors[name],
                StepScheduler(editors[name].engine, batch=config.batch),
                scorer=scorer,
                workers=config.expert.max_ongoing_requests,
            )
            for name in config.arms
        }
        """Who edits, by arm; their schedulers count what is done."""

    @classmethod
    def load(cls, config: ServeConfig, *, scorer: Scorer | None = None) -> LocalBackend:
        """With the editors that the configuration names."""
        return cls(
            config,
            {name: load_editor(arm.expert_set, device=arm.device) for name, arm in config.arms.items()},
            scorer=scorer,
        )

    @property
    def arms(self) -> Mapping[str, ArmInfo]:
        """What is served."""
        return self._arms

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """Ask the arm's router, in a thread."""
        return await asyncio.to_thread(self._editors[arm].router.route, features, top_k=top_k)

    async def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """Edit; see `backend.Backend.edit`. Raises `OverloadedError` where as many edits as are allowed are in hand."""
        runner = self.runners[call.arm]
        if self._in_hand[call.arm] >= self._most:
            load = runner.scheduler.load
            raise OverloadedError(
                f"{self._in_hand[call.arm]} edits are in hand and no more may wait; come back later.",
                retry_after=max(1.0, load.queued_seconds),
            )
        self._in_hand[call.arm] += 1
        try:
            async with aclosing(runner.stream(call)) as events:  # type: ignore[type-var]  # a generator
                async for event in events:
                    yield event
        finally:
            self._in_hand[call.arm] -= 1

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Ask the scorer, in a thread."""
        if self._scorer is None:
            raise ScorerUnavailableError("This server has no judge; configure `scorer`.")
        return await asyncio.to_thread(self._scorer.score, list(requests))

    async def ready(self) -> Mapping[str, str]:
        """Why no edit could be made now, per arm."""
        reasons = {}
        for name, runner in self.runners.items():
            try:
                await asyncio.to_thread(runner.scheduler.check, lambda: None, 5.0)
            except UnavailableError as error:
                reasons[name] = str(error)
        return reasons

    def close(self) -> None:
        """End every thread once the edits in hand are done; blocks."""
        for runner in self.runners.values():
            runner.close()
