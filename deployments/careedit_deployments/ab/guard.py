"""The guard rail: an arm that fails too often, or that the judge thinks too little of, is cut out of traffic by itself.

The evidence is the store's, so that every ingress replica sees every edit, and a replica that starts knows what was cut. Each
replica looks soon after edits ended, and every few seconds anyway, to hear of cuts that another one made and of arms that a
person restored. A restored arm starts anew: what came before no longer counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

from careedit.errors import CareEditError
from careedit.record import Record
from careedit_deployments.config import Arm, Guard
from careedit_deployments.edits.backend import EditCall, ImageDone
from careedit_deployments.errors import ConflictError, NotFoundError
from careedit_deployments.state.records import ArmEvent, EditRecord, new_id
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.catalogue import Outcome
from careedit_deployments.telemetry.metrics import Metrics

FAILURES = frozenset({"failed", "expired"})
"""Outcomes that speak against an arm; what its user gave up, asked wrongly or met a full queue with does not."""

COUNTED = FAILURES | {"made"}
"""Outcomes that say anything of an arm."""

logger = logging.getLogger(__name__)


class Violation(Record):
    """What is wrong with an arm."""

    kind: Literal["errors", "score"]
    """Which rail it broke."""
    reason: str
    """A sentence."""
    numbers: Mapping[str, float]
    """What was measured."""


def violation_of(guard: Guard, edits: Sequence[EditRecord]) -> Violation | None:
    """What speaks against an arm whose latest edits are these; None: nothing, or too few edits to say so."""
    ended = [edit for edit in edits if edit.outcome in COUNTED]
    failed = sum(edit.outcome in FAILURES for edit in ended)
    if len(ended) >= guard.min_edits and failed > guard.max_error_share * len(ended):
        return Violation(
            kind="errors",
            reason=f"{failed} of its latest {len(ended)} edits failed; {guard.max_error_share:.0%} may.",
            numbers={"errors": failed, "edits": len(ended)},
        )
    scores = [edit.scores["overall"] for edit in ended if edit.scores and "overall" in edit.scores]
    if guard.min_judge_score is None or len(scores) < guard.min_edits:
        return None
    mean = sum(scores) / len(scores)
    if mean >= guard.min_judge_score:
        return None
    return Violation(
        kind="score",
        reason=f"The judge gave its latest {len(scores)} judged edits {mean:.2f}; {guard.min_judge_score:g} is the least.",
        numbers={"score": mean, "edits": len(scores)},
    )


class ArmGuard:
    """Watches the arms of one ingress replica; an `EditObserver`, and a hook of the app through `running`."""

    def __init__(
        self,
        arms: Mapping[str, Arm],
        store: Store,
        metrics: Metrics,
        *,
        pause_s: float = 2.0,
        refresh_s: float = 10.0,
    ) -> None:
        """Looks at most every `pause_s` seconds while edits end, and at least every `refresh_s`."""
        self._arms, self._store, self._metrics = dict(arms), store, metrics
        self._pause_s, self._refresh_s = pause_s, refresh_s
        self._disabled: frozenset[str] = frozenset()
        self._ended = asyncio.Event()

    def disabled_arms(self) -> frozenset[str]:
        """Arms that are out of traffic, as of the last look."""
        return self._disabled

    def ended(self, call: EditCall, outcome: Outcome, made: Sequence[ImageDone]) -> None:
        """An edit ended: look soon."""
        self._ended.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look once, so that traffic starts with what is known, then go on in the background."""
        await self._look_safely()
        task = asyncio.create_task(self._run(), name="careedit-arm-guard")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look(self) -> frozenset[str]:
        """Judge every arm by its latest edits; returns the arms that are cut out now."""
        self._disabled = await self._store.arms.disabled() & self._arms.keys()
        for name, arm in self._arms.items():
            if name not in self._disabled and not self._is_last(name):
                violation = violation_of(arm.guard, await self._latest(name, arm.guard.window))
                if violation is not None:
                    await self._disable(name, violation)
        for name in self._arms:
            self._metrics.arm_live(name, name not in self._disabled)
        return self._disabled

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self._refresh_s)
            self._ended.clear()
            await self._look_safely()
            await asyncio.sleep(self._pause_s)

    async def _look_safely(self) -> None:
        try:
            await self.look()
        except CareEditError as error:  # without the store edits go on, by what was known last
            logger.warning("The guard of the arms could not look: %s", error)

    async def _latest(self, name: str, window: int) -> list[EditRecord]:
        events = await self._store.arms.events(arm=name, limit=1)
        since = events[0].created if events else 0.0
        return await self._store.edits.latest(arm=name, since=since, limit=window, outcomes=COUNTED)

    async def _disable(self, name: str, violation: Violation) -> None:
        if name in await self._store.arms.disabled():  # another replica was faster
            self._disabled |= {name}
            return
        self._disabled |= {name}
        await self._store.arms.add(_event(name, "cut", violation.reason, violation.numbers))
        await self._store.audit.add("arm guard", "arm.cut", name, reason=violation.reason)
        self._metrics.arm_cut(name, violation.kind)
        logger.error("The arm %s was cut out of traffic: %s", name, violation.reason, extra={"arm": name})

    def _is_last(self, name: str) -> bool:
        """Whether nobody else could take the traffic: a doubtful arm is better than none. A shadow takes none."""
        live = {other for other, arm in self._arms.items() if not arm.shadow and arm.weight > 0} - self._disabled
        return live == {name}


async def restore(store: Store, name: str, *, actor: str) -> ArmEvent:
    """Put an arm back into traffic. Raises `ConflictError` where it was not cut out."""
    if name not in await store.arms.disabled():
        raise ConflictError(f"The arm {name!r} is not cut out; there is nothing to restore.")
    return await _write(store, _event(name, "restored", f"Restored by {actor}.", {}), actor)


async def disable_by_hand(store: Store, arms: Mapping[str, Arm], name: str, *, actor: str, reason: str) -> ArmEvent:
    """Take an arm out of traffic. Raises `NotFoundError` for one that is not configured, `ConflictError` for the last one."""
    if name not in arms:
        raise NotFoundError(f"There is no arm {name!r}; the configuration has {', '.join(arms)}.")
    cut = await store.arms.disabled()
    if name in cut:
        raise ConflictError(f"The arm {name!r} is cut out already.")
    if {other for other, arm in arms.items() if not arm.shadow and arm.weight > 0} - cut == {name}:
        raise ConflictError(f"The arm {name!r} is the last one that takes traffic; restore another one first.")
    return await _write(store, _event(name, "cut", reason, {}), actor)


async def _write(store: Store, event: ArmEvent, actor: str) -> ArmEvent:
    await store.arms.add(event)
    await store.audit.add(actor, f"arm.{event.kind}", event.arm, reason=event.reason)
    return event


def _event(arm: str, kind: Literal["cut", "restored"], reason: str, numbers: Mapping[str, float]) -> ArmEvent:
    return ArmEvent(id=new_id("armevent"), arm=arm, kind=kind, reason=reason, numbers=numbers, created=time.time())
