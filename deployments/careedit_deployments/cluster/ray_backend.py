"""`RayBackend`: the fleet through Ray Serve's handles. A dead replica costs a new attempt with the same seed, not an edit."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, NoReturn, cast

from PIL import Image
from ray import serve
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)

from careedit.errors import CareEditError
from careedit.records import RoutingDecision
from careedit.routing import RoutingFeatures
from careedit.scoring import Score, ScoreRequest
from careedit_deployments.cluster.drain_rate import Turnover
from careedit_deployments.cluster.fleet import SCORER, Fleet, router_name
from careedit_deployments.edits.backend import ArmInfo, EditCall, EditEvent, Made, Partial, Progress
from careedit_deployments.errors import (
    DeadlineError,
    OverloadedError,
    ScorerUnavailableError,
    ServingError,
    UnavailableError,
)
from careedit_deployments.telemetry.metrics import Metrics, expert_of, no_metrics

DEAD = (
    *(RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, LocalRayletDiedError, OutOfMemoryError),
    ReplicaUnavailableError,
)
"""What a lost replica looks like from here; the work may be done again elsewhere."""
ROUTE_SECONDS = 30.0
"""A routing that takes longer is given up."""
ILL = 5
"""Attempts that may end in a replica's own word that it cannot edit now."""
PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds before the second attempt, and the most between two."""
STATUS_SECONDS = 2.0
"""Seconds that an answer of `ready` stands."""

GetHandle = Callable[[str], Any]
"""A deployment's handle by its name."""


class RayBackend:
    """A `Backend` over the deployments of one application; lives on an event loop of that application."""

    def __init__(
        self, fleet: Fleet, get_handle: GetHandle, *, app_name: str = "", metrics: Metrics | None = None
    ) -> None:
        """`get_handle` finds a deployment of the application `app_name`, e.g. `serve.get_deployment_handle`."""
        self.fleet = fleet
        self._get_handle, self._app_name = get_handle, app_name
        self._handles: dict[str, Any] = {}
        self._metrics = metrics or Metrics(no_metrics)
        self._turnover: dict[str, Turnover] = {}
        self._ready: tuple[float, dict[str, str]] = (0.0, {})

    @property
    def arms(self) -> Mapping[str, ArmInfo]:
        """What is served."""
        return {name: arm.info for name, arm in self.fleet.arms.items()}

    def change(self, fleet: Fleet) -> None:
        """Serve another fleet from the next call on; calls under way are not touched."""
        self.fleet = fleet
        self._ready = (0.0, {})

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """See `Backend.route`."""
        if not self.fleet.arm(arm).needs_pixels:  # pixels are not sent where nobody looks
            blank = Image.new("RGB", (1, 1))
            features = replace(features, source=None, references=tuple(blank for _ in features.references))
        handle = self._handle(router_name(arm))
        deadline = time.time() + ROUTE_SECONDS
        async for _ in _attempts(deadline):
            try:
                async with asyncio.timeout(deadline - time.time()):
                    decision: RoutingDecision = await handle.route.remote(features, top_k)
                return decision
            except DEAD:
                continue
            except TimeoutError:
                break
            except (RayError, RayServeException) as error:
                _told(error, "The router")
        raise UnavailableError(f"The router of {arm!r} does not answer; try again soon.")

    async def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """See `Backend.edit`; what was told before a replica died is not told again."""
        name = self.fleet.deployment_for(call.arm, call.decision)
        turnover = self._turnover.setdefault(name, Turnover())
        # Serve's own bound lets more in when many come at once: what a replica has turned away waits without being counted.
        if turnover.in_hand >= self.fleet.arm(call.arm).room[name]:
            raise _full(turnover)
        try:
            with turnover.work():
                async with aclosing(self._edit(call, self._handle(name).options(stream=True))) as events:
                    async for event in events:
                        yield event
        except BackPressureError:
            raise _full(turnover) from None

    async def _edit(self, call: EditCall, handle: Any) -> AsyncGenerator[EditEvent]:
        told = _Told()
        async for attempt in _attempts(call.deadline):
            if attempt:
                self._metrics.retried(call.arm, expert_of(call.decision))
            stream, ended = handle.edit.remote(call), False
            try:
                while True:
                    async with asyncio.timeout(call.deadline - time.time()):
                        try:
                            event = await anext(stream)
                        except StopAsyncIteration:
                            ended = True
                            return
                    if told.is_new(event):
                        yield event
            except DEAD:
                continue
            except TimeoutError:
                break
            except BackPressureError:
                if not attempt:
                    raise  # one that was accepted keeps asking
            except (RayError, RayServeException) as error:
                if attempt < ILL and isinstance(getattr(error, "cause", None), UnavailableError):
                    continue  # a replica that is about to be replaced; another one may be well
                _told(error, "The expert")
            finally:
                if not ended:
                    with suppress(Exception):
                        stream.cancel()
        raise DeadlineError("The edit's deadline has passed; ask for fewer steps or images, or try again later.")

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `Backend.score`."""
        if not self.fleet.scorer:
            raise ScorerUnavailableError("This server has no judge; configure `scorer`.")
        deadline = time.time() + ROUTE_SECONDS
        async for _ in _attempts(deadline):
            try:
                async with asyncio.timeout(deadline - time.time()):
                    scores: list[Score] = await self._handle(SCORER).score.remote(list(requests))
                return scores
            except DEAD:
                continue
            except TimeoutError:
                break
            except BackPressureError as error:
                _told(error, "The judge")
            except (RayError, RayServeException) as error:
                try:
                    _told(error, "The judge")
                except ServingError as failure:
                    raise ScorerUnavailableError(str(failure)) from None
        raise ScorerUnavailableError("The judge does not answer; try again soon.")

    async def ready(self) -> Mapping[str, str]:
        """See `Backend.ready`: every part of the fleet that no running replica stands for."""
        at, missing = self._ready
        if time.monotonic() - at > STATUS_SECONDS or not at:
            try:
                running = await asyncio.wait_for(asyncio.to_thread(_running, self._app_name), timeout=10)
            except (RayError, RayServeException, TimeoutError) as error:
                return {"controller": f"Ray Serve's controller does not answer ({type(error).__name__})."}
            missing = {
                name: f"There is no running replica of {what}."
                for name, what in self.fleet.needed.items()
                if not running.get(name, False)
            }
            self._ready = (time.monotonic(), missing)
        return missing

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            self._handles[name] = self._get_handle(name)
        return self._handles[name]


class _Told:
    """Which events a caller has had, so that a second attempt does not repeat them."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}
        self._seen: set[tuple[str, int, int]] = set()

    def is_new(self, event: EditEvent) -> bool:
        if isinstance(event, Progress):
            new = event.done > self._done.get(event.image, -1)
            self._done[event.image] = max(event.done, self._done.get(event.image, 0))
            return new
        key = (event.kind, event.image, event.index if isinstance(event, Partial) else 0)
        assert isinstance(event, Partial | Made)
        new = key not in self._seen
        self._seen.add(key)
        return new


async def _attempts(deadline: float) -> AsyncIterator[int]:
    """Counts attempts until the deadline, with growing pauses between them."""
    attempt, pause = 0, PAUSE
    while time.time() < deadline:
        yield attempt
        attempt += 1
        await asyncio.sleep(min(pause * random.uniform(0.5, 1.5), max(0.0, deadline - time.time())))
        pause = min(2 * pause, LONGEST_PAUSE)


def _full(turnover: Turnover) -> OverloadedError:
    return OverloadedError("The expert's queue is full; try again in a moment.", turnover.seconds)


def _told(error: BaseException, who: str) -> NoReturn:
    """Raise what an error of Ray's means; careedit's own, raised in a replica, come out as they were."""
    if isinstance(error, BackPressureError):
        raise OverloadedError(f"{who}'s queue is full; try again in a moment.") from None
    if isinstance(error, DeploymentUnavailableError):
        raise UnavailableError(f"{who} could not be started; its logs say why.") from None
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, CareEditError):
            raise cause from None
        raise ServingError(f"{who} failed ({type(cause).__name__}); the replica's log says more.") from error
    raise UnavailableError(f"{who} does not answer ({type(error).__name__}); try again soon.") from error


def _running(app_name: str) -> dict[str, bool]:
    """Whether each deployment of an application has a running replica, or may be started by the next request."""
    application = serve.status().applications.get(app_name)
    if application is None:
        return {}
    states = {
        name: (one.status, cast("Mapping[str, int]", one.replica_states))
        for name, one in application.deployments.items()
    }
    return {
        name: count.get("RUNNING", 0) > 0 or (status == "HEALTHY" and not count)
        for name, (status, count) in states.items()
    }
