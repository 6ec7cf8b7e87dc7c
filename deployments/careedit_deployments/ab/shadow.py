"""Shadow arms: they repeat edits of live traffic. The results are judged and stored, but never returned.

A copy starts only after the user's edit has finished, so it cannot delay that edit. At most a few copies run at the same
time; the next one is dropped and counted. Edits of arms whose guard uses judge scores are judged here too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Literal

from anyio.to_thread import run_sync

from careedit.errors import CareEditError
from careedit.records import EditRequest, RoutingDecision
from careedit.routing import features_of
from careedit_deployments.ab.judging import judge_edit
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.assignment import shadows_of
from careedit_deployments.edits.backend import Backend, EditCall, ImageDone
from careedit_deployments.edits.edit_service import is_evidence
from careedit_deployments.errors import DeadlineError, OverloadedError
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import EditRecord, new_id
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.catalogue import Outcome
from careedit_deployments.telemetry.metrics import Metrics, expert_of

logger = logging.getLogger(__name__)


class Shadowing:
    """Copies finished edits to shadow arms and has both judged. It watches edits (`ended`), and `running` is a hook of the app."""

    def __init__(
        self,
        config: ServeConfig,
        backend: Backend,
        store: Store,
        metrics: Metrics,
        *,
        disabled_arms: Callable[[], Collection[str]] = frozenset,
        at_once: int = 4,
    ) -> None:
        """Shadows among `disabled_arms` get no copies. At most `at_once` edits are copied or judged at the same time."""
        self._config, self._backend, self._store, self._metrics = config, backend, store, metrics
        self._disabled_arms, self._at_once = disabled_arms, at_once
        self._tasks: set[asyncio.Task[None]] = set()

    def ended(self, call: EditCall, outcome: Outcome, made: Sequence[ImageDone]) -> None:
        """An edit ended and is stored: start its copies for shadow arms, or drop them. Does not wait."""
        if outcome != "made":
            return
        disabled = self._disabled_arms()
        copied = shadows_of(self._config.arms, self._config.ab_salt, call.id) if "shadow" in call.purposes else ()
        shadows = [arm for arm in copied if arm not in disabled]
        if not shadows and not ("judging" in call.purposes and self._is_judged(call.arm)):
            return
        if len(self._tasks) >= self._at_once:
            for arm in shadows:
                self._metrics.shadowed(arm, "dropped")
            return
        task = asyncio.create_task(self._follow(call, tuple(made), shadows), name=f"careedit-shadow-{call.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Cancel the copies in progress at the end of the block."""
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await self.settled()

    async def settled(self) -> None:
        """Wait until no copy is being made."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_judged(self, arm: str) -> bool:
        return self._config.scorer.backend != "none" and self._config.arms[arm].guard.min_judge_score is not None

    async def _follow(self, call: EditCall, made: Sequence[ImageDone], shadows: Sequence[str]) -> None:
        try:
            for arm in shadows:
                await self._copy(call, arm)
            await self._judge(call, call.id, call.arm, made)
        except Exception:  # an error in a task would be lost otherwise
            logger.exception("Copying or judging the edit %s failed.", call.id)

    async def _copy(self, call: EditCall, arm: str) -> None:
        """Repeat the edit with the shadow arm, from the same seed, and store the outcome."""
        started, edit_id = time.perf_counter(), new_id("edit")
        created, decision, made = unix_time(), None, []
        problem: CareEditError | None = None
        copy: EditCall | None = None
        try:
            info = self._backend.arms[arm]
            guidance = call.request.guidance if info.takes_guidance else None
            request = call.request.model_copy(update={"guidance": guidance})
            decision = await self._route(arm, request, info.top_k)
            copy = call.model_copy(
                update={
                    "id": edit_id,
                    "arm": arm,
                    "request": request,
                    "decision": decision,
                    "partials": 0,
                    "candidates": False,
                    "progress": False,
                    "deadline_s": self._config.limits.deadline_s,
                }
            )
            async with aclosing(self._backend.edit(copy)) as events:  # type: ignore[type-var]  # it is a generator
                made = [event async for event in events if isinstance(event, ImageDone)]
        except OverloadedError:
            self._metrics.shadowed(arm, "dropped")
            return
        except (CareEditError, KeyError) as error:
            problem = error if isinstance(error, CareEditError) else CareEditError(f"The arm {arm!r} is not running.")
            logger.warning("The shadow arm %s failed: %s", arm, problem, extra={"arm": arm})
        seconds = time.perf_counter() - started
        outcome: Literal["made", "expired", "failed"] = (
            "made" if problem is None else "expired" if isinstance(problem, DeadlineError) else "failed"
        )
        await self._store.edits.add(
            EditRecord(
                id=edit_id,
                request_id=call.request_id,
                owner=call.owner,
                user=call.user,
                arm=arm,
                shadow_of=call.id,
                expert_set_sha256=made[0].trace.expert_set_sha256 if made else "",
                experts=decision.weights if decision else {},
                outcome=outcome,
                evidence=copy is None or is_evidence(copy, info, outcome),
                error=None if problem is None else str(problem),
                seconds=seconds,
                traces=tuple(image.trace.model_dump(mode="json", exclude={"instruction", "prompt"}) for image in made),
                purposes=call.purposes,
                created=created,
            )
        )
        self._metrics.edit_ended(arm, expert_of(decision) if decision else "none", outcome, seconds)
        judged = problem is None and await self._judge(call, edit_id, arm, made)
        self._metrics.shadowed(arm, "failed" if problem else "scored" if judged else "unscored")

    async def _route(self, arm: str, request: EditRequest, top_k: int) -> RoutingDecision:
        """Route with the router of the shadow arm, even if the user named an expert: the other set may not have it."""
        features = await run_sync(lambda: features_of(request, turn=0))
        return await self._backend.route(arm, features, top_k=request.top_k or top_k)

    async def _judge(self, call: EditCall, edit_id: str, arm: str, made: Sequence[ImageDone]) -> bool:
        """Judge an edit, or its copy by another arm, if that is among the purposes of the edit."""
        if self._config.scorer.backend == "none" or "judging" not in call.purposes:
            return False
        edits, metrics = self._store.edits, self._metrics
        judged = await judge_edit(
            self._backend, edits, metrics, edit_id=edit_id, arm=arm, request=call.request, made=made
        )
        return judged is not None
