"""`EditService`: every edit goes through it. It decides arm, seed, routing and cost before anything is queued, then edits."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from anyio.to_thread import run_sync
from cachetools import TTLCache

from careedit.errors import CareEditError, InputError
from careedit.provenance import Credit
from careedit.records import EarlyFilter, EditTrace, RoutingDecision, mixture_rows
from careedit.routing import FixedRouter, features_of
from careedit.selection.plan import evaluations, first_seed, make_plan
from careedit_deployments.config import ServeConfig, Telemetry
from careedit_deployments.edits.backend import ArmInfo, Backend, EditCall, EditEvent, EditOrder, ImageDone
from careedit_deployments.edits.policy import check_event, check_input
from careedit_deployments.edits.tenancy import arm_under, check_order, decision_under, purposes_of
from careedit_deployments.errors import (
    DeadlineError,
    OverloadedError,
    PolicyUnavailableError,
    TooExpensiveError,
    UnavailableError,
)
from careedit_deployments.listening import Limits
from careedit_deployments.policy.contract import PolicyMark
from careedit_deployments.policy.hook import PolicyHook
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.logs import ArmLog, EditLog
from careedit_deployments.state.records import ANONYMOUS, AssignmentRecord, EditRecord, new_id
from careedit_deployments.state.tenant_policy import OPERATOR, Purpose, TenantPolicy
from careedit_deployments.state.tenants import Tenants
from careedit_deployments.telemetry.catalogue import Outcome
from careedit_deployments.telemetry.metrics import Metrics, expert_of
from careedit_deployments.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

RECORD_S = 2.0
"""Maximum seconds for which an answer waits for the record of its edit. After that it is stored in the background."""
MAX_ASSIGNMENTS = 100_000
"""Stored assignments that a process remembers: it does not write those again for `ASSIGNMENT_S` seconds."""
ASSIGNMENT_S = 12 * 3600.0


USUAL_COST = 8
"""Evaluations of an edit that any arm should end in time, in those of one image with the set's default steps."""


class EditObserver(Protocol):
    """Learns how each user's edit ended: the guard of the arms, the shadow copies."""

    def ended(self, call: EditCall, outcome: Outcome, made: Sequence[ImageDone]) -> None:
        """An edit ended and is in the log. Must not block and must not raise."""
        ...


def settings(
    config: ServeConfig, quality: str, steps: int | None, early_filter: EarlyFilter | None
) -> tuple[int | None, EarlyFilter | None]:
    """Steps and early filter of an edit: its own, or else those of `quality`. Steps None: the set's default."""
    meant = config.quality.get(quality)  # type: ignore[call-overload]  # any other word means the set's defaults
    if meant is not None:
        steps = meant.steps if steps is None else steps
        early_filter = meant.early_filter if early_filter is None else early_filter
    one_noise = early_filter is None or early_filter.strategy == "none" or early_filter.candidates == 1
    return steps, None if one_noise else early_filter


def check_results(limits: Limits, order: EditOrder) -> None:
    """Raise `TooExpensiveError` if the results of an order have more pixels than the limit: encoding them takes time."""
    if order.encoded_pixels > limits.max_result_pixels:
        raise TooExpensiveError(
            f"The results would have {order.encoded_pixels:,} pixels together (n x size, with previews and candidates); "
            f"the limit is {limits.max_result_pixels:,}, so ask for a smaller size, fewer images or fewer previews.",
            field="size",
        )


def check_cost(limits: Limits, *, n: int, steps: int, early_filter: EarlyFilter | None, rows: int) -> None:
    """Raise `TooExpensiveError`, with the estimate, if an edit asks for more than the limits allow."""
    if n > limits.images:
        raise TooExpensiveError(f"n is {n}; a request has at most {limits.images} images.", field="n")
    if steps > limits.steps:
        raise TooExpensiveError(f"steps is {steps}; the limit is {limits.steps}.", field="steps")
    cost = evaluations(early_filter, n=n, steps=steps, rows=rows)
    if cost > limits.evaluations:
        raise TooExpensiveError(
            f"The edit would take about {cost:,} evaluations ({n} images x steps and previews x {rows} experts); the limit "
            f"is {limits.evaluations:,}, so ask for fewer images, steps or candidates."
        )


def is_evidence(call: EditCall, arm: ArmInfo, outcome: Outcome) -> bool:
    """Whether the outcome says something about the arm: an edit far above the usual cost may run out of time on any arm."""
    return outcome != "expired" or call.cost <= USUAL_COST * arm.steps


class EditService:
    """Accepts orders from routes, jobs and sessions, and runs the edits."""

    def __init__(
        self,
        config: ServeConfig,
        backend: Backend,
        metrics: Metrics,
        log: EditLog,
        *,
        arms: ArmLog | None = None,
        tenants: Tenants | None = None,
        tracing: Tracing | None = None,
        policy: PolicyHook | None = None,
        disabled_arms: Callable[[], Collection[str]] = frozenset,
        observers: Sequence[EditObserver] = (),
    ) -> None:
        """`arms` stores assignments; `tenants` has the policies of tenants, without it no tenant has one; `disabled_arms` names the arms that are out of traffic now; `observers` are called
        after every edit; without `tracing` no spans are made. `policy`: by default, the one of `config`."""
        self.policy = policy or PolicyHook(config.policy, metrics)
        self.arms = arms
        self.tenants = tenants
        self.tracing = tracing or Tracing(Telemetry(), "ingress")
        self.config = config
        self.backend = backend
        self.metrics = metrics
        self.log = log
        self._disabled_arms = disabled_arms
        self._observers = tuple(observers)
        self._records: set[asyncio.Task[None]] = set()
        self._assigned: TTLCache[tuple[str, str], bool] = TTLCache(MAX_ASSIGNMENTS, ASSIGNMENT_S)

    async def start(self, order: EditOrder, *, counted: bool = True) -> Running:
        """Accept an order; nothing is queued before `Running.events` is iterated.

        `counted`: the cost counts for the tenant's day. It does not for a job that runs, because it was counted when it was
        accepted. Raises `InputError` and its subclasses (`PolicyError` is one), `NotFoundError`, `TenantPolicyError`,
        `TooExpensiveError`, `BudgetError`, `UnavailableError` and what routing raises.
        """
        accepted, identity = time.monotonic(), new_id("edit")
        policy = OPERATOR if self.tenants is None else await self.tenants.policy(order.owner)
        limits = check_order(self.config, policy, order)
        arm = self._arm(order, identity, policy)
        request = order.request
        steps = request.steps or arm.steps
        if request.guidance is not None and not arm.takes_guidance:
            raise InputError(
                f"guidance is {request.guidance:g}, but the base of {arm.name!r} takes none; leave it out.",
                field="guidance",
            )
        if len(request.references) > arm.references:
            raise InputError(
                f"{len(request.references)} references were given; the base of {arm.name!r} takes {arm.references}, so give fewer.",
                field="references",
            )
        if request.early_filter is not None and self.config.scorer.backend == "none":
            raise InputError(
                "The early filter needs a judge, and this server has none; leave early_filter out.",
                field="early_filter",
            )
        check_results(limits, order)
        check_cost(limits, n=request.n, steps=steps, early_filter=request.early_filter, rows=1)
        limit = limits.deadline_s
        deadline_s = limit if order.deadline_s is None else min(order.deadline_s, limit)
        ends = accepted + deadline_s
        marks = await check_input(self.policy, order, identity, ends)
        started = time.perf_counter()
        seed = first_seed(request.seed, request.n * make_plan(request.early_filter, steps).candidates)
        with self.tracing.span("route", order.trace_headers, arm=arm.name, edit=identity):
            decision = decision_under(policy, await self._route(order, arm))
        self.metrics.routed(arm.name, decision, time.perf_counter() - started)
        rows = len(mixture_rows(decision.weights, masked=request.mask is not None))
        check_cost(limits, n=request.n, steps=steps, early_filter=request.early_filter, rows=rows)
        given = {
            "id": identity,
            "arm": arm.name,
            "request": request.model_copy(update={"seed": seed, "steps": steps}),
            "decision": decision,
            "purposes": purposes_of(self.config, policy, owner=order.owner, edit=identity, arm=arm.name),
            "deadline_s": deadline_s,
            "partials": 0 if self.policy.config.withholds_previews else order.partials,
            "candidates": order.candidates and not self.policy.config.withholds_previews,
        }
        call = EditCall(**{**dict(order), **given})
        spent_at = None
        if counted and policy.evaluations_per_day is not None and self.tenants is not None:
            spent_at = await self.tenants.spend(order.owner, call.cost, limit=policy.evaluations_per_day)
        assigned = order.model is None and policy.models is None
        return Running(self, call, arm, ends, marks, assigned=assigned, spent_at=spent_at)

    async def give_back(self, running: Running) -> None:
        """Do not count the cost of an edit that was accepted and is not made."""
        if running.spent_at is not None and self.tenants is not None:
            await self.tenants.give_back(running.call.owner, running.call.cost, running.spent_at)

    async def remember(self, order: EditOrder, arm: str) -> None:
        """Store the arm that a user was assigned to, once per user and arm."""
        user = _user_key(order)
        if self.arms is None or user is None:
            return
        salt = self.config.ab_salt
        assigned = (hashlib.sha256(f"{len(salt)}:{salt}{user}".encode()).hexdigest(), arm)
        if self._assigned.get(assigned):
            return
        await self.arms.assign(
            AssignmentRecord(user_sha256=assigned[0], salt=salt, owner=order.owner, arm=arm, created=unix_time())
        )
        self._assigned[assigned] = True

    def _arm(self, order: EditOrder, identity: str, policy: TenantPolicy) -> ArmInfo:
        user = _user_key(order)
        sets = {name: arm.expert_set for name, arm in self.backend.arms.items()}
        name = arm_under(self.config, sets, policy, order.model, user or identity, self._disabled_arms())
        if name not in self.backend.arms:
            raise UnavailableError(f"The arm {name!r} is not up yet; try again soon.")
        return self.backend.arms[name]

    async def _route(self, order: EditOrder, arm: ArmInfo) -> RoutingDecision:
        request = order.request
        find = partial(features_of, request, turn=order.turn)
        features = find() if request.mask is None else await run_sync(find)  # a mask's pixels are counted
        if request.expert == "auto":
            return await self.backend.route(arm.name, features, top_k=request.top_k or arm.top_k)
        return FixedRouter(request.expert, tuple(arm.experts.values())).route(features, top_k=1)

    async def record(self, keeping: Coroutine[None, None, None]) -> None:
        """Wait for `keeping` for at most `RECORD_S` seconds. It is completed also if a client leaves, which cancels the caller."""
        task = asyncio.create_task(keeping)
        self._records.add(task)
        task.add_done_callback(self._records.discard)
        await asyncio.wait({task}, timeout=RECORD_S)

    def notify(self, call: EditCall, outcome: Outcome, made: Sequence[ImageDone]) -> None:
        """Call the observers after an edit."""
        for observer in self._observers:
            observer.ended(call, outcome, made)


def _user_key(order: EditOrder) -> str | None:
    """Who asks: the user that the client names, or else the tenant; None: unknown."""
    if order.user is not None:
        return order.user
    return None if order.owner == ANONYMOUS else order.owner


@dataclass(eq=False)
class Running:
    """An accepted edit: assigned to an arm, routed, within the limits."""

    service: EditService
    """The service that accepted the edit."""
    call: EditCall
    """What the backend gets: the order with its arm, decision and deadline."""
    info: ArmInfo
    """The arm, with the hash of its expert set."""
    ends: float
    """Monotonic time at which the edit is given up."""
    marks: tuple[PolicyMark, ...] = ()
    """Marks of the content policy for the input."""
    assigned: bool = True
    """Whether the traffic weights alone chose the arm: not if the request names a model, or the tenant may use some only."""
    spent_at: float | None = None
    """Time at which the cost was counted for the tenant's day; None: it was not."""
    _made: list[ImageDone] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Id of the edit."""
        return self.call.id

    @property
    def arm(self) -> str:
        """The arm that edits."""
        return self.call.arm

    @property
    def decision(self) -> RoutingDecision:
        """The experts that edit, and why."""
        return self.call.decision

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """What the edit may be used for in addition to the answer."""
        return self.call.purposes

    @property
    def credit(self) -> Credit:
        """What the Content Credentials of the results say."""
        weights, known = self.decision.weights, self.info.experts
        licences = {name: known[name].licence for name in weights if name in known}
        return Credit(
            edit=self.id,
            model=self.info.base,
            model_licence=self.info.base_licence,
            expert_set=self.info.expert_set,
            expert_set_sha256=self.info.sha256,
            experts=weights,
            licences={name: licence for name, licence in licences.items() if licence is not None},
        )

    async def events(self) -> AsyncIterator[EditEvent]:
        """Edit; iterate once. Closing the iterator stops the edit within one step. However it ends, it is counted and logged."""
        started = time.perf_counter()
        ended: Outcome | None = None
        problem: BaseException | None = None
        span = self.service.tracing.span("edit", self.call.trace_headers, arm=self.arm, edit=self.id)
        try:
            with span as inside:
                left = {"trace_headers": inside.headers, "deadline_s": self.ends - time.monotonic()}
                call = self.call.model_copy(update=left)
                async with aclosing(self.service.backend.edit(call)) as events:  # type: ignore[type-var]
                    while (event := await self._next(events)) is not None:
                        checked = await check_event(self.service.policy, self.call, event, self.ends, self.marks)
                        if checked is None:
                            continue  # a preview that is not allowed
                        event = checked
                        if isinstance(event, ImageDone):
                            self._made.append(event)
                            self.service.metrics.image_made(self.arm, event.trace)
                        yield event
            if len(self._made) != self.call.request.n:
                raise UnavailableError("The edit ended before all of its images were made; try again.")
        except Exception as error:
            ended, problem = _outcome(error), error
            raise
        finally:
            # A client that stops listening after the last image has what it wanted.
            outcome: Outcome = ended or ("made" if len(self._made) == self.call.request.n else "cancelled")
            seconds = time.perf_counter() - started
            self.service.metrics.edit_ended(self.arm, expert_of(self.decision), outcome, seconds)
            with self.service.tracing.span("record", self.call.trace_headers):
                await self.service.record(self._keep(outcome, problem, seconds))

    async def _next(self, events: AsyncIterator[EditEvent]) -> EditEvent | None:
        """The next event within the deadline; None at the end. The time limit does not cover the caller's work with it."""
        try:
            async with asyncio.timeout(self.ends - time.monotonic()) as limit:
                return await anext(events, None)
        except TimeoutError:
            if limit.expired():
                raise DeadlineError(
                    f"The edit took longer than its deadline of {self.service.config.limits.deadline_s:g} s; ask for fewer "
                    "steps or images, or retry later."
                ) from None
            raise

    async def _keep(self, outcome: Outcome, problem: BaseException | None, seconds: float) -> None:
        shown = self.service.config.telemetry.log_prompts
        record = EditRecord(
            id=self.id,
            request_id=self.call.request_id,
            owner=self.call.owner,
            user=self.call.user,
            arm=self.arm,
            expert_set_sha256=self.info.sha256,
            instruction=self.call.request.instruction if shown else None,
            experts=self.decision.weights,
            outcome=outcome,
            evidence=self.call.model is None and is_evidence(self.call, self.info, outcome),
            error=str(problem)
            if isinstance(problem, CareEditError)
            else None
            if problem is None
            else "The edit failed.",
            seconds=seconds,
            traces=tuple(_kept(made.trace, shown) for made in self._made),
            purposes=self.purposes,
            created=unix_time() - seconds,
        )
        try:
            await self.service.log.add(record)
            if self.assigned:
                await self.service.remember(self.call, self.arm)
            if outcome in ("failed", "overloaded") and not self._made:  # the server's fault
                await self.service.give_back(self)
        except CareEditError as error:  # the image is worth more than its record
            logger.warning("The edit %s was not recorded: %s", self.id, error)
        self.service.notify(self.call, outcome, self._made)


def _kept(trace: EditTrace, shown: bool) -> dict[str, object]:
    hidden = set() if shown else {"instruction", "prompt"}
    return trace.model_dump(mode="json", exclude=hidden)


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, InputError | PolicyUnavailableError):  # neither says anything about the arm
        return "refused"
    if isinstance(error, OverloadedError):
        return "overloaded"
    return "expired" if isinstance(error, DeadlineError) else "failed"
