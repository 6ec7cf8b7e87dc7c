"""The guard: takes an arm out of traffic when it fails too often, or when the judge scores it too low.

The guard reads the store, so every ingress replica sees every edit, and a new replica knows which arms are out. Each replica
checks soon after edits end, and every few seconds in any case, to see arms that another replica took out or that a person
restored. After an arm is restored, only new edits count.

No tenant decides alone. Each gets a bounded share of the window, and while others edit too, the arm must also violate the
limit without the edits of any single tenant. Edits that named the arm or asked for far too much are not evidence.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from statistics import fmean
from typing import Literal

from careedit.errors import CareEditError
from careedit.record import Record
from careedit_deployments.config import Arm, Guard
from careedit_deployments.edits.backend import EditCall, ImageDone
from careedit_deployments.errors import ConflictError, NotFoundError
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import ArmEvent, EditRecord, new_id
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.catalogue import Outcome
from careedit_deployments.telemetry.metrics import Metrics

FAILURES = frozenset({"failed", "expired"})
"""Outcomes that count against an arm. Cancelled and invalid requests and full queues do not."""

COUNTED = FAILURES | {"made"}
"""Outcomes that say something about an arm."""

WITNESS_S = 3600.0
"""Age, in seconds, up to which other tenants' edits can clear an arm; an arm may have broken since the older ones."""

logger = logging.getLogger(__name__)


class Violation(Record):
    """A limit of the guard that an arm violates."""

    kind: Literal["errors", "score"]
    """Whether the share of errors or the judge score violates its limit."""
    reason: str
    """What was measured and what is allowed, as a sentence."""
    numbers: Mapping[str, float]
    """The measured numbers by name, such as "errors" and "edits"."""


def violation_of(guard: Guard, edits: Sequence[EditRecord]) -> Violation | None:
    """The violation of an arm with these latest edits. None: no violation, too few edits, or only one tenant sees it."""
    ended = [edit for edit in edits if edit.outcome in COUNTED]
    judged = [edit for edit in ended if edit.scores and "overall" in edit.scores]
    for limit, seen in ((_errors, ended), (_score, judged)):
        violation = limit(guard, seen) if len(seen) >= guard.min_edits else None
        if violation is not None and all(limit(guard, others) is not None for others in _without_one(seen)):
            return violation
    return None


def _errors(guard: Guard, edits: Sequence[EditRecord]) -> Violation | None:
    failed = sum(edit.outcome in FAILURES for edit in edits)
    if failed <= guard.max_error_share * len(edits):
        return None
    return Violation(
        kind="errors",
        reason=f"{failed} of its latest {len(edits)} edits failed; the limit is {guard.max_error_share:.0%}.",
        numbers={"errors": failed, "edits": len(edits)},
    )


def _score(guard: Guard, edits: Sequence[EditRecord]) -> Violation | None:
    mean = fmean(edit.scores["overall"] for edit in edits if edit.scores)
    if guard.min_judge_score is None or mean >= guard.min_judge_score:
        return None
    return Violation(
        kind="score",
        reason=f"The judge gave its latest {len(edits)} judged edits {mean:.2f}; the minimum is {guard.min_judge_score:g}.",
        numbers={"score": mean, "edits": len(edits)},
    )


def _without_one(edits: Sequence[EditRecord]) -> list[list[EditRecord]]:
    """Per tenant, the recent edits of all others; tenants without any others are left out."""
    newest = max((edit.created for edit in edits), default=0.0)
    recent = [edit for edit in edits if edit.created >= newest - WITNESS_S]
    rests = ([edit for edit in recent if edit.owner != owner] for owner in {edit.owner for edit in recent})
    return [rest for rest in rests if rest]


class ArmGuard:
    """Guards the arms on one ingress replica. It watches edits (`ended`), and `running` is a hook of the app."""

    def __init__(
        self,
        arms: Mapping[str, Arm],
        store: Store,
        metrics: Metrics,
        *,
        pause_s: float = 2.0,
        refresh_s: float = 10.0,
    ) -> None:
        """Checks at most every `pause_s` seconds while edits end, and at least every `refresh_s` seconds."""
        self._arms, self._store, self._metrics = dict(arms), store, metrics
        self._pause_s, self._refresh_s = pause_s, refresh_s
        self._disabled: frozenset[str] = frozenset()
        self._ended = asyncio.Event()

    def disabled_arms(self) -> frozenset[str]:
        """Arms that were out of traffic at the last check."""
        return self._disabled

    def ended(self, call: EditCall, outcome: Outcome, made: Sequence[ImageDone]) -> None:
        """An edit ended: check soon."""
        self._ended.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check once before traffic starts, then continue in the background."""
        await self._check_safely()
        task = asyncio.create_task(self._run(), name="careedit-arm-guard")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def check(self) -> frozenset[str]:
        """Check every arm by its latest edits; returns the arms that are now out of traffic."""
        self._disabled = await self._store.arms.disabled() & self._arms.keys()
        for name, arm in self._arms.items():
            if name not in self._disabled and not self._is_last(name):
                violation = violation_of(arm.guard, await self._latest(name, arm.guard))
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
            await self._check_safely()
            await asyncio.sleep(self._pause_s)

    async def _check_safely(self) -> None:
        try:
            await self.check()
        except CareEditError as error:  # without the store, edits continue with the last known state
            logger.warning("The guard could not check the arms: %s", error)

    async def _latest(self, name: str, guard: Guard) -> list[EditRecord]:
        events = await self._store.arms.events(arm=name, limit=1)
        since = events[0].created if events else 0.0
        each = max(guard.min_edits, math.ceil(guard.max_tenant_share * guard.window))
        return await self._store.edits.window(name, since=since, limit=guard.window, each=each, outcomes=COUNTED)

    async def _disable(self, name: str, violation: Violation) -> None:
        if name in await self._store.arms.disabled():  # another replica has done it
            self._disabled |= {name}
            return
        self._disabled |= {name}
        await self._store.arms.add(_event(name, "cut", violation.reason, violation.numbers))
        await self._store.audit.add("arm guard", "arm.cut", name, reason=violation.reason)
        self._metrics.arm_cut(name, violation.kind)
        logger.error("The arm %s was taken out of traffic: %s", name, violation.reason, extra={"arm": name})

    def _is_last(self, name: str) -> bool:
        """Whether this is the only arm left with traffic; it stays, because a bad arm is better than no arm."""
        live = {other for other, arm in self._arms.items() if not arm.shadow and arm.weight > 0} - self._disabled
        return live == {name}


async def restore(store: Store, name: str, *, actor: str) -> ArmEvent:
    """Put an arm back into traffic. Raises `ConflictError` if it is in traffic."""
    if name not in await store.arms.disabled():
        raise ConflictError(f"The arm {name!r} is not out of traffic; it need not be restored.")
    return await _write(store, _event(name, "restored", f"Restored by {actor}.", {}), actor)


async def disable_by_hand(store: Store, arms: Mapping[str, Arm], name: str, *, actor: str, reason: str) -> ArmEvent:
    """Take an arm out of traffic. Raises `NotFoundError` if it is not configured, `ConflictError` if it is the last one."""
    if name not in arms:
        raise NotFoundError(f"The arm {name!r} does not exist; the configuration has {', '.join(arms)}.")
    disabled = await store.arms.disabled()
    if name in disabled:
        raise ConflictError(f"The arm {name!r} is already out of traffic.")
    if {other for other, arm in arms.items() if not arm.shadow and arm.weight > 0} - disabled == {name}:
        raise ConflictError(f"The arm {name!r} is the last one that receives traffic; restore another one first.")
    return await _write(store, _event(name, "cut", reason, {}), actor)


async def _write(store: Store, event: ArmEvent, actor: str) -> ArmEvent:
    await store.arms.add(event)
    await store.audit.add(actor, f"arm.{event.kind}", event.arm, reason=event.reason)
    return event


def _event(arm: str, kind: Literal["cut", "restored"], reason: str, numbers: Mapping[str, float]) -> ArmEvent:
    return ArmEvent(id=new_id("armevent"), arm=arm, kind=kind, reason=reason, numbers=numbers, created=unix_time())
