"""One edit's share of a busy engine: a `Stepper` that waits for its turn at the replica's scheduler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any, TypeVar

import torch
from PIL import Image

from careedit.editing import EditJob, EditState, OnSteps
from careedit.errors import CancelledError
from careedit_deployments.encoder.client import RemoteEncoder
from careedit_deployments.errors import ServingError
from careedit_deployments.replica.scheduler import StepScheduler

T = TypeVar("T")


class EngineClient:
    """A `careedit.editing.Stepper`; each call waits for its turn, so it is used from a thread of the edit's own.

    `cancel` may be called from any thread: a call that waits then ends, no state is stepped any more, and every method
    raises `CancelledError`.
    """

    def __init__(
        self,
        scheduler: StepScheduler,
        announced: int | None = None,
        *,
        waited: float = 0.0,
        encoder: RemoteEncoder | None = None,
        deadline: float = math.inf,
    ) -> None:
        """`announced` is the key in `scheduler.load` of the work that steps are taken off; `waited` counts from there.

        `encoder` encodes prompts, until `deadline`, in monotonic time; without it, the engine's base does.
        """
        self.scheduler = scheduler
        self.waited = waited
        """Seconds in which other edits had the engine, those before its first call included."""
        self.shared = False
        """Whether a step or a prompt shared its batch with another edit's, so that it may round differently alone."""
        self._announced = announced
        self._encoder, self._deadline = encoder, deadline
        self._lock = Lock()
        self._cancelled = False
        self._states: list[EditState] = []
        self._future: Future[Any] | None = None

    def cancel(self) -> None:
        """Stop after the step that is running."""
        with self._lock:
            self._cancelled = True
            states, future = list(self._states), self._future
        for state in states:
            state.cancel()
        if future is not None:
            future.cancel()

    def prepare(self, job: EditJob) -> EditState:
        """As `Engine.prepare`. The engine goes on with other edits while an encoder deployment has the prompts."""
        texts = None
        if self._encoder is not None:
            prompts = self.scheduler.engine.base.prompts(job)
            texts, exact = self._await(self._encoder.encode(prompts, self._deadline))
            self.shared |= not exact
        state = self._call(lambda: self.scheduler.engine.prepare(job, texts))
        with self._lock:
            self._states.append(state)
            if self._cancelled:
                state.cancel()
        return state

    @property
    def threads(self) -> int:
        """Torch's CPU threads where the steps run."""
        return self.scheduler.threads

    def advance(self, states: Sequence[EditState], to: int | None = None, on_steps: OnSteps | None = None) -> None:
        """Step `states` until each has done `to` steps, by default all of its own. `on_steps` runs in the engine's thread."""

        def stepped(count: int) -> None:
            if self._announced is not None:
                self.scheduler.load.spend(self._announced, count * self.scheduler.engine.base.work_of(states[0].job))
            if on_steps is not None:
                on_steps(count)

        started = time.perf_counter()
        request = self.scheduler.advance(states, to, stepped)
        try:
            self._await(request.future)
        finally:
            self.shared |= request.shared
            self.waited += max(0.0, time.perf_counter() - started - request.stepping)

    def preview_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """As `Engine.preview_many`."""
        return self._call(lambda: self.scheduler.engine.preview_many(states))

    def finish_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """As `Engine.finish_many`; raises `ServingError` if the latents are not finite."""

        def finish() -> list[Image.Image]:
            if not all(bool(torch.isfinite(state.latents).all()) for state in states):
                raise ServingError(
                    "The edit's numbers ran over; give another seed, or serve the set with another dtype."
                )
            return self.scheduler.engine.finish_many(states)

        return self._call(finish)

    @contextmanager
    def lease(self, names: Iterable[str]) -> Iterator[None]:
        """As `Engine.lease`."""
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
