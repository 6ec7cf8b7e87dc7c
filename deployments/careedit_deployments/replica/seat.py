"""One edit's seat at a shared engine: what `careedit.selection` and an edit's own loop need of one, through a scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any, TypeVar

import torch
from PIL import Image

from careedit.editing import EditJob, EditState
from careedit.errors import CancelledError
from careedit_deployments.errors import ServingError
from careedit_deployments.replica.scheduler import OnSteps, StepScheduler, work_of

T = TypeVar("T")


class Seat:
    """Has the methods of an `Engine`; each waits for its turn, so it is used from a thread of the edit's own.

    After `cancel`, from any thread, whoever waits is woken, no state is stepped any more, and every method raises
    `CancelledError`.
    """

    def __init__(self, scheduler: StepScheduler, announced: int | None = None) -> None:
        """`announced` is the key of the work in `scheduler.load` that steps are taken off."""
        self.scheduler = scheduler
        self.waited = 0.0
        """Seconds in which other edits had the engine."""
        self.shared = False
        """Whether a step was made beside another edit's, so that it may round differently alone."""
        self._announced = announced
        self._lock = Lock()
        self._cancelled = False
        self._states: list[EditState] = []
        self._future: Future[Any] | None = None

    def cancel(self) -> None:
        """Stop: the step that is being made is the last one."""
        with self._lock:
            self._cancelled = True
            states, future = list(self._states), self._future
        for state in states:
            state.cancel()
        if future is not None:
            future.cancel()

    def prepare(self, job: EditJob) -> EditState:
        """As `Engine.prepare`."""
        state = self._call(lambda: self.scheduler.engine.prepare(job))
        with self._lock:
            self._states.append(state)
            if self._cancelled:
                state.cancel()
        return state

    def step(self, states: Sequence[EditState]) -> None:
        """As `Engine.step`: one step of each of `states`, which stand at the same one."""
        live = [state.index for state in states if state.live]
        if live:
            self.advance(states, min(live) + 1)

    def advance(self, states: Sequence[EditState], to: int | None = None, on_steps: OnSteps = lambda _: None) -> None:
        """Step `states` until each has done `to` steps, by default all of its own."""

        def stepped(count: int) -> None:
            if self._announced is not None:
                self.scheduler.load.spend(self._announced, count * work_of(states[0]))
            on_steps(count)

        started = time.perf_counter()
        ticket = self.scheduler.advance(states, to, stepped)
        try:
            self._await(ticket.future)
        finally:
            self.shared |= ticket.shared
            self.waited += max(0.0, time.perf_counter() - started - ticket.stepping)

    def preview_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """As `Engine.preview_many`."""
        return self._call(lambda: self.scheduler.engine.preview_many(states))

    def finish_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """As `Engine.finish_many`; raises `ServingError` for an edit that is not a number, where that one makes noise."""

        def finish() -> list[Image.Image]:
            if not all(bool(torch.isfinite(state.latents).all()) for state in states):
                raise ServingError(
                    "The edit's numbers ran over; give another seed, or serve the set with another dtype."
                )
            return self.scheduler.engine.finish_many(states)

        return self._call(finish)

    @contextmanager
    def lease(self, names: Iterable[str]) -> Iterator[None]:
        """As `applier.lease`: the named experts are loaded, and stay so until the context ends."""
        wanted = list(names)
        with ExitStack() as held:
            self._call(lambda: held.enter_context(self.scheduler.engine.applier.lease(wanted)))
            yield

    def _call(self, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        begun = started

        def timed() -> T:
            nonlocal begun
            begun = time.perf_counter()
            return work()

        try:
            return self._await(self.scheduler.call(timed))
        finally:
            self.waited += begun - started

    def _await(self, future: Future[T]) -> T:
        with self._lock:
            self._future = future
            gone = self._cancelled
        if gone:
            future.cancel()
        try:
            return future.result()
        except FutureCancelled:
            raise CancelledError("The edit was cancelled between two steps.") from None
        finally:
            with self._lock:
                self._future = None
