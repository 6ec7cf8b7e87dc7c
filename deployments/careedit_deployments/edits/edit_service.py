"""`EditService`: the one way to an edit. Arm, seed, routing and cost are settled before anything waits; then it is made."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from anyio.to_thread import run_sync

from careedit.errors import CareEditError, InputError
from careedit.records import MAX_SEED, EarlyFilter, EditTrace, RoutingDecision
from careedit.routing import BASE, FixedRouter, features_of
from careedit_deployments.config import Limits, ServeConfig, Telemetry
from careedit_deployments.edits.assignment import choose_arm
from careedit_deployments.edits.backend import ArmInfo, Backend, EditCall, EditEvent, Made
from careedit_deployments.edits.service import EditOrder
from careedit_deployments.errors import DeadlineError, OverloadedError, TooExpensiveError, UnavailableError
from careedit_deployments.state.logs import ArmLog, EditLog
from careedit_deployments.state.records import ANONYMOUS, AssignmentRecord, EditRecord, new_id
from careedit_deployments.telemetry.catalogue import Outcome
from careedit_deployments.telemetry.metrics import Metrics, expert_of
from careedit_deployments.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

REMEMBERED = 100_000
"""Assignments that a process knows to be kept already."""


class Watcher(Protocol):
    """Is told of every edit that a user got: guards of arms, shadow copies."""

    def ended(self, call: EditCall, outcome: Outcome, made: Sequence[Made]) -> None:
        """An edit ended, and its record is kept. Must not block and not raise."""
        ...


def settings(
    config: ServeConfig, quality: str, steps: int | None, early_filter: EarlyFilter | None
) -> tuple[int | None, EarlyFilter | None]:
    """Steps and early filter of an edit: its own, or else what `quality` means here. Steps None: the set's default."""
    meant = config.quality.get(quality)  # type: ignore[call-overload]  # any other word means the set's defaults
    if meant is not None:
        steps = meant.steps if steps is None else steps
        early_filter = meant.early_filter if early_filter is None else early_filter
    chosen_alone = early_filter is None or early_filter.strategy == "none" or early_filter.candidates == 1
    return steps, None if chosen_alone else early_filter


def estimate(*, n: int, steps: int, early_filter: EarlyFilter | None, rows: int) -> int:
    """Evaluations of the transformer that an edit takes at most: images x (steps + previews) x experts.

    `halving` takes fewer: it drops candidates before the last preview.
    """
    previews = 0
    if early_filter is not None:
        last = early_filter.preview_steps or max(1, steps // 4)
        shared = 0 if early_filter.strategy == "restart" else last
        previews = early_filter.candidates * last - shared
    return n * (steps + previews) * rows


def rows_of(decision: RoutingDecision, *, masked: bool) -> int:
    """Evaluations of one step: one per expert, and one of the base outside the mask of a mixture."""
    rows = len(decision.weights)
    return rows + (masked and rows > 1 and BASE not in decision.weights)


def check_cost(limits: Limits, *, n: int, steps: int, early_filter: EarlyFilter | None, rows: int) -> None:
    """Raise `TooExpensiveError`, with the estimate, where an edit asks for more than the limits allow."""
    if n > limits.images:
        raise TooExpensiveError(f"n is {n}; at most {limits.images} images can be asked for at once.")
    if steps > limits.steps:
        raise TooExpensiveError(f"steps is {steps}; the limit is {limits.steps}.")
    cost = estimate(n=n, steps=steps, early_filter=early_filter, rows=rows)
    if cost > limits.evaluations:
        raise TooExpensiveError(
            f"The edit would take about {cost:,} evaluations ({n} images x steps and previews x {rows} experts); the limit "
            f"is {limits.evaluations:,}, so ask for fewer images, steps or candidates."
        )


@dataclass(frozen=True)
class _Routable:
    """An expert as a router has to know it, from what its arm tells."""

    name: str
    competence: str
    handles: Sequence[str]


class EditService:
    """Takes orders: the same for a route, a job and a session's turn."""

    def __init__(
        self,
        config: ServeConfig,
        backend: Backend,
        metrics: Metrics,
        log: EditLog,
        *,
        arms: ArmLog | None = None,
        tracing: Tracing | None = None,
        cut: Callable[[], Collection[str]] = frozenset,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        """`arms` keeps who was assigned where; `cut` names the arms that are out of traffic now; `watchers` are told of
        every edit; without `tracing` there are no spans."""
        self.arms = arms
        self.tracing = tracing or Tracing(Telemetry(), "ingress")
        self.config = config
        self.backend = backend
        self.metrics = metrics
        self.log = log
        self._cut = cut
        self._watchers = tuple(watchers)
        self._dealt: set[tuple[str, str]] = set()

    async def start(self, order: EditOrder) -> Running:
        """Accept an order; nothing is queued yet, `Running.events` does that. Errors as in `service.Edits.start`."""
        started = time.perf_counter()
        identity = new_id("edit")
        arm = self._arm(order, identity)
        request = order.request
        steps = request.steps or arm.steps
        if request.guidance is not None and not arm.takes_guidance:
            raise InputError(
                f"guidance is {request.guidance:g}, but the base of {arm.name!r} takes none; leave it out."
            )
        if len(request.references) > arm.references:
            raise InputError(
                f"{len(request.references)} references were given; the base of {arm.name!r} takes {arm.references}, so give fewer."
            )
        if request.early_filter is not None and self.config.scorer.backend == "none":
            raise InputError("The early filter needs a judge, and this server has none; leave early_filter out.")
        if request.early_filter is not None and (request.early_filter.preview_steps or 1) >= steps:
            raise InputError(f"preview_steps must be fewer than the edit's {steps} steps; give fewer, or more steps.")
        check_cost(self.config.limits, n=request.n, steps=steps, early_filter=request.early_filter, rows=1)
        seeds = request.n * (1 if request.early_filter is None else request.early_filter.candidates)
        seed = secrets.randbelow(2**32) if request.seed is None else request.seed
        if seed + seeds - 1 > MAX_SEED:
            raise InputError(f"The seed {seed} leaves no room for {seeds} noises; give a smaller seed.")
        with self.tracing.span("route", order.trace_headers, arm=arm.name, edit=identity):
            decision = await self._route(order, arm)
        self.metrics.routed(arm.name, decision, time.perf_counter() - started)
        rows = rows_of(decision, masked=request.mask is not None)
        check_cost(self.config.limits, n=request.n, steps=steps, early_filter=request.early_filter, rows=rows)
        most = self.config.limits.deadline_s
        call = EditCall(
            id=identity,
            arm=arm.name,
            request=request.model_copy(update={"seed": seed, "steps": steps}),
            decision=decision,
            partials=order.partials,
            progress=order.progress,
            deadline=time.time() + (most if order.deadline_s is None else min(order.deadline_s, most)),
            request_id=order.request_id,
            trace_headers=order.trace_headers,
        )
        return Running(self, call, order, arm)

    async def remember(self, order: EditOrder, arm: str) -> None:
        """Keep which arm a user was dealt, once per user and arm; a model that was named is no assignment."""
        user = _user_key(order)
        if self.arms is None or user is None or order.model is not None:
            return
        salt = self.config.ab_salt
        dealt = (hashlib.sha256(f"{len(salt)}:{salt}{user}".encode()).hexdigest(), arm)
        if dealt in self._dealt:
            return
        await self.arms.assign(AssignmentRecord(user_sha256=dealt[0], salt=salt, arm=arm, created=time.time()))
        if len(self._dealt) >= REMEMBERED:
            self._dealt.clear()
        self._dealt.add(dealt)

    def _arm(self, order: EditOrder, identity: str) -> ArmInfo:
        user = _user_key(order)
        sets = {name: arm.expert_set for name, arm in self.backend.arms.items()}
        name = choose_arm(self.config.arms, sets, order.model, self.config.ab_salt, user or identity, self._cut())
        if name not in self.backend.arms:
            raise UnavailableError(f"The arm {name!r} is not up yet; try again soon.")
        return self.backend.arms[name]

    async def _route(self, order: EditOrder, arm: ArmInfo) -> RoutingDecision:
        request = order.request
        features = await run_sync(lambda: features_of(request, turn=order.turn))
        if request.expert == "auto":
            return await self.backend.route(arm.name, features, top_k=request.top_k or arm.top_k)
        return FixedRouter(request.expert, routable(arm)).route(features, top_k=1)

    def tell(self, call: EditCall, outcome: Outcome, made: Sequence[Made]) -> None:
        """Tell the watchers how an edit ended."""
        for watcher in self._watchers:
            watcher.ended(call, outcome, made)


def _user_key(order: EditOrder) -> str | None:
    """Who asks: the user whom the client names, or else the API key; None: nobody."""
    if order.user is not None:
        return order.user
    return None if order.owner == ANONYMOUS else order.owner


def routable(arm: ArmInfo) -> tuple[_Routable, ...]:
    """An arm's experts, as routers take them."""
    return tuple(
        _Routable(name, str(told.get("competence", name)), [str(kind) for kind in told.get("handles") or ()])  # type: ignore[attr-defined]
        for name, told in arm.experts.items()
    )


@dataclass(eq=False)
class Running:
    """An accepted edit; implements `service.RunningEdit`."""

    service: EditService
    call: EditCall
    order: EditOrder
    info: ArmInfo
    _made: list[Made] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Id of the edit."""
        return self.call.id

    @property
    def arm(self) -> str:
        """Who edits."""
        return self.call.arm

    @property
    def decision(self) -> RoutingDecision:
        """Which experts, and why."""
        return self.call.decision

    async def events(self) -> AsyncIterator[EditEvent]:
        """Edit; see `service.RunningEdit.events`. However it ends, it is counted and kept."""
        started = time.perf_counter()
        ended: Outcome | None = None
        problem: BaseException | None = None
        span = self.service.tracing.span("edit", self.order.trace_headers, arm=self.arm, edit=self.id)
        try:
            with span as inside:
                call = self.call.model_copy(update={"trace_headers": inside.headers})
                async with aclosing(self.service.backend.edit(call)) as events:  # type: ignore[type-var]
                    while (event := await self._next(events)) is not None:
                        if isinstance(event, Made):
                            self._made.append(event)
                            self.service.metrics.image_made(self.arm, event.trace)
                        yield event
            if len(self._made) != self.call.request.n:
                raise UnavailableError("The edit ended without all of its pictures; try again.")
        except Exception as error:
            ended, problem = _outcome(error), error
            raise
        finally:
            # Whoever stops listening after the last picture had what they wanted.
            outcome: Outcome = ended or ("made" if len(self._made) == self.call.request.n else "cancelled")
            seconds = time.perf_counter() - started
            self.service.metrics.edit_ended(self.arm, expert_of(self.decision), outcome, seconds)
            # A client that left cancels this task; what happened is written down all the same.
            await asyncio.shield(self._keep(outcome, problem, seconds))

    async def _next(self, events: AsyncIterator[EditEvent]) -> EditEvent | None:
        """The next event within the deadline; None at the end. The limit ends before the event is passed on, so that it
        can't cut off whoever works with it."""
        try:
            async with asyncio.timeout(self.call.deadline - time.time()) as limit:
                return await anext(events, None)
        except TimeoutError:
            if limit.expired():
                raise DeadlineError(
                    f"The edit took longer than its deadline of {self.service.config.limits.deadline_s:g} s; ask for fewer "
                    "steps or images, or come back when there is less to do."
                ) from None
            raise

    async def _keep(self, outcome: Outcome, problem: BaseException | None, seconds: float) -> None:
        shown = self.service.config.telemetry.log_prompts
        record = EditRecord(
            id=self.id,
            request_id=self.order.request_id,
            owner=self.order.owner,
            user=self.order.user,
            arm=self.arm,
            expert_set_sha256=self.info.sha256,
            instruction=self.call.request.instruction if shown else None,
            experts=self.decision.weights,
            outcome=outcome,
            error=str(problem)
            if isinstance(problem, CareEditError)
            else None
            if problem is None
            else "The edit failed.",
            seconds=seconds,
            traces=tuple(_kept(made.trace, shown) for made in self._made),
            created=time.time() - seconds,
        )
        try:
            await self.service.log.add(record)
            await self.service.remember(self.order, self.arm)
        except CareEditError as error:  # a picture that was made is worth more than the note of it
            logger.warning("The edit %s was not recorded: %s", self.id, error)
        self.service.tell(self.call, outcome, self._made)


def _kept(trace: EditTrace, shown: bool) -> dict[str, object]:
    hidden = set() if shown else {"instruction", "prompt"}
    return trace.model_dump(mode="json", exclude=hidden)


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, InputError):
        return "refused"
    if isinstance(error, OverloadedError):
        return "overloaded"
    return "expired" if isinstance(error, DeadlineError) else "failed"
