"""`RayBackend`: the fleet through Ray Serve's handles.

An edit whose replica dies or hangs is retried elsewhere, with the same seed. A hung replica is killed at once: Ray's health
checks take three times `health_check_timeout_s` to find it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import ray
from PIL import Image
from ray import serve
from ray.exceptions import (
    RayError,
)
from ray.serve.exceptions import (
    BackPressureError,
    RayServeException,
)

from careedit.records import RoutingDecision
from careedit.routing import RoutingFeatures
from careedit.scoring import Score, ScoreRequest
from careedit_deployments.calls import REPLICA_LOST, attempts, raise_serving_error
from careedit_deployments.cluster.fleet import SCORER, Fleet, router_name
from careedit_deployments.edits.backend import ArmInfo, EditCall, EditEvent, ImageDone, Progress
from careedit_deployments.edits.liveness import Pulse, Silence, paced
from careedit_deployments.errors import (
    DeadlineError,
    OverloadedError,
    ScorerUnavailableError,
    ServingError,
    UnavailableError,
)
from careedit_deployments.telemetry.metrics import Metrics, expert_of, no_metrics

logger = logging.getLogger(__name__)

ROUTE_SECONDS = 30.0
"""Time limit of one routing or scoring call, retries included."""
MAX_UNAVAILABLE = 5
"""Retries of an edit after a replica answers that it cannot edit now."""
STATUS_SECONDS = 2.0
"""Seconds for which an answer of `ready` is reused."""
NAMESPACE = "serve"
"""Ray namespace of Serve's actors."""
HUNG_SECONDS = 60.0
"""Seconds for which `ready` reports a replica that was killed because it hung, unless another one edits before. By then Ray
Serve's controller reports it."""

SMOOTHING = 0.2
"""Weight of the latest interval in the moving average of `DrainRate`."""
MIN_DRAIN_S, MAX_DRAIN_S = 1.0, 60.0
"""Bounds of an estimate of `DrainRate`, in seconds; before any edit has ended, the estimate is the minimum."""

GetHandle = Callable[[str], Any]
"""Returns the handle of the deployment with this name."""


class RayBackend:
    """A `Backend` over the deployments of one application; used from one event loop."""

    def __init__(
        self,
        fleet: Fleet,
        get_handle: GetHandle,
        *,
        app_name: str = "",
        metrics: Metrics | None = None,
        hang_s: float = 20.0,
        kill: Callable[[str], None] | None = None,
    ) -> None:
        """`get_handle` finds a deployment of the application `app_name`, e.g. `serve.get_deployment_handle`.

        `hang_s` is `ServeConfig.hang_s`. `kill` ends the process of a replica, given the name of its actor.
        """
        self.fleet = fleet
        self._hang_s, self._kill = hang_s, kill or kill_replica
        self._hung: dict[str, float] = {}
        self._get_handle, self._app_name = get_handle, app_name
        self._handles: dict[str, Any] = {}
        self._metrics = metrics or Metrics(no_metrics)
        self._drain_rates: dict[str, DrainRate] = {}
        self._ready: tuple[float, dict[str, str]] = (0.0, {})

    @property
    def arms(self) -> Mapping[str, ArmInfo]:
        """The arms of the fleet, by name."""
        return {name: arm.info for name, arm in self.fleet.arms.items()}

    def change(self, fleet: Fleet) -> None:
        """Use another fleet from the next call on; running calls go on with the old one."""
        self.fleet = fleet
        self._ready = (0.0, {})

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """See `Backend.route`."""
        if not self.fleet.arm(arm).needs_pixels:  # a router that does not read pixels gets none
            blank = Image.new("RGB", (1, 1))
            features = replace(features, source=None, references=tuple(blank for _ in features.references))
        handle = self._handle(router_name(arm))
        deadline = time.monotonic() + ROUTE_SECONDS
        async for _ in attempts(deadline):
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    decision: RoutingDecision = await handle.route.remote(features, top_k)
                return decision
            except REPLICA_LOST:
                continue
            except TimeoutError:
                break
            except (RayError, RayServeException) as error:
                raise_serving_error(error, "The router")
        raise UnavailableError(f"The router of {arm!r} does not answer; try again soon.")

    async def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """See `Backend.edit`; events that arrived before a replica died are not sent again."""
        name = self.fleet.deployment_for(call.arm, call.decision)
        rate = self._drain_rates.setdefault(name, DrainRate())
        # Serve's own limit lets more in when many arrive at once: requests that a replica rejects wait without being counted.
        if rate.in_flight >= self.fleet.arm(call.arm).max_in_flight[name]:
            raise _full(rate)
        try:
            with rate.edit():
                async with aclosing(self._edit(call, name)) as events:
                    async for event in events:
                        yield event
        except BackPressureError:
            raise _full(rate) from None

    async def _edit(self, call: EditCall, name: str) -> AsyncGenerator[EditEvent]:
        handle, seen, ends = self._handle(name).options(stream=True), _SeenEvents(), time.monotonic() + call.deadline_s
        async for attempt in attempts(ends):
            if attempt:
                self._metrics.retried(call.arm, expert_of(call.decision))
            left = call.model_copy(update={"deadline_s": ends - time.monotonic()})
            stream, ended, silence = handle.edit.remote(left), False, Silence(self._hang_s)
            try:
                async with aclosing(paced(stream)) as events:
                    while not silence.hung:
                        async with asyncio.timeout(ends - time.monotonic()):
                            try:
                                event = await anext(events)
                            except StopAsyncIteration:
                                ended = True
                                return
                        silence.note(event)
                        if isinstance(event, Pulse):
                            if event.busy_s == 0:
                                self._hung.pop(name, None)
                        elif event is not None and seen.is_new(event):
                            yield event
                await self._replace(name, silence.replica)
            except REPLICA_LOST:
                continue
            except TimeoutError:
                break
            except BackPressureError:
                if not attempt:
                    raise  # an edit that was accepted once keeps trying
            except (RayError, RayServeException) as error:
                if attempt < MAX_UNAVAILABLE and isinstance(getattr(error, "cause", None), UnavailableError):
                    continue  # this replica is about to be replaced; another one may work
                raise_serving_error(error, "The expert")
            finally:
                if not ended:
                    with suppress(Exception):
                        stream.cancel()
        raise DeadlineError("The edit's deadline has passed; ask for fewer steps or images, or try again later.")

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `Backend.score`."""
        if not self.fleet.scorer:
            raise ScorerUnavailableError("This server has no judge; configure `scorer`.")
        deadline = time.monotonic() + ROUTE_SECONDS
        async for _ in attempts(deadline):
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    scores: list[Score] = await self._handle(SCORER).score.remote(list(requests))
                return scores
            except REPLICA_LOST:
                continue
            except TimeoutError:
                break
            except BackPressureError as error:
                raise_serving_error(error, "The judge")
            except (RayError, RayServeException) as error:
                try:
                    raise_serving_error(error, "The judge")
                except ServingError as failure:
                    raise ScorerUnavailableError(str(failure)) from None
        raise ScorerUnavailableError("The judge does not answer; try again soon.")

    async def ready(self) -> Mapping[str, str]:
        """See `Backend.ready`: every part of the fleet without a running replica."""
        at, missing = self._ready
        if time.monotonic() - at > STATUS_SECONDS or not at:
            try:
                running = await asyncio.wait_for(asyncio.to_thread(_running, self._app_name), timeout=10)
            except (RayError, RayServeException, TimeoutError) as error:
                return {"controller": f"Ray Serve's controller does not answer ({type(error).__name__})."}
            missing = {
                name: f"No replica of {what} is running."
                for name, what in self.fleet.needed.items()
                if not running.get(name, False)
            }
            self._ready = (time.monotonic(), missing)
        return missing | self._hanging()

    def _hanging(self) -> dict[str, str]:
        now = time.monotonic()
        self._hung = {name: since for name, since in self._hung.items() if now - since < HUNG_SECONDS}
        return {
            name: f"A replica of {what} hangs and is being replaced."
            for name, what in self.fleet.needed.items()
            if name in self._hung
        }

    async def _replace(self, name: str, replica: str | None) -> None:
        """Kill a replica that hangs; Serve starts another one."""
        logger.error("The replica %s hangs; it is killed, and its edits begin elsewhere.", replica)
        self._hung[name] = time.monotonic()
        with suppress(RayError, ValueError):  # it is gone, or another edit was faster
            await asyncio.to_thread(self._kill, str(replica))

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            self._handles[name] = self._get_handle(name)
        return self._handles[name]


class DrainRate:
    """The edits in flight of a deployment and how fast they end, for `Retry-After`; used from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.in_flight = 0
        """Number of edits that began and have not ended."""
        self._last = 0.0
        self._interval: float | None = None

    @contextmanager
    def edit(self) -> Iterator[None]:
        """Count one more edit in flight until the block ends. An edit that raises does not change the rate."""
        if not self.in_flight:
            self._last = self._clock()  # idle time is not an interval
        self.in_flight += 1
        try:
            yield
            now = self._clock()
            taken, self._last = now - self._last, now
            before = taken if self._interval is None else self._interval
            self._interval = before + SMOOTHING * (taken - before)
        finally:
            self.in_flight -= 1

    @property
    def seconds(self) -> float:
        """Estimated seconds until all edits in flight have ended, so that a new attempt is accepted."""
        return min(MAX_DRAIN_S, max(MIN_DRAIN_S, self.in_flight * (self._interval or 0.0)))


class _SeenEvents:
    """The events that the caller has received, so that a second attempt does not repeat them."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}
        self._seen: set[tuple[str, int, int]] = set()

    def is_new(self, event: EditEvent) -> bool:
        if isinstance(event, Progress):
            new = event.done > self._done.get(event.image, -1)
            self._done[event.image] = max(event.done, self._done.get(event.image, 0))
            return new
        key = (event.kind, event.image, 0 if isinstance(event, ImageDone) else event.index)
        new = key not in self._seen
        self._seen.add(key)
        return new


def kill_replica(name: str) -> None:
    """End the process of a replica, given the name of its actor. Raises `ValueError` if it is gone."""
    ray.kill(ray.get_actor(name, namespace=NAMESPACE))


def _full(rate: DrainRate) -> OverloadedError:
    return OverloadedError("The expert's queue is full; try again in a moment.", rate.seconds)


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
