"""The step scheduler: one thread owns an engine; edits join between two steps, share batches, and leave when finished.

Two kinds of work arrive: calls (encode, decode, load an adapter) and step requests (advance these states to this step).
Calls go first, because an edit that is encoded can join the next batch and one that is decoded leaves. Then one batch is
stepped: the request that has waited longest, and with it those of the same shape that still fit. They go to the back of the
queue. So every edit advances in turn, and a short edit never waits for a long one to end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from careedit.editing import EditState, Engine, OnSteps
from careedit.errors import CancelledError
from careedit_deployments.errors import UnavailableError
from careedit_deployments.replica.load import Load

T = TypeVar("T")

FIRST_STEP_S = 600.0
"""Maximum seconds of the first step of a shape before the replica counts as unhealthy."""
RECENT_STEPS = 32
"""Number of batches that `StepScheduler.step_s` looks back."""

OnBatch = Callable[[int, float, int], None]
"""Called in the engine's thread after each batch with its rows, its seconds, and the number of its cancelled edits."""


@dataclass(eq=False)
class StepRequest:
    """States of one edit that are advanced together."""

    states: tuple[EditState, ...]
    """They are adjacent in every batch, in this order."""
    to: int
    """Steps after which each state is finished with."""
    future: Future[None]
    """Done when every state has made `to` steps; cancelling it removes the request."""
    on_steps: OnSteps | None
    """Called in the engine's thread; what it raises ends the request."""
    shared: bool = False
    """Whether a batch held another edit too or the states did not fit one batch, so that rounding may differ."""
    stepping: float = 0.0
    """Seconds of the batches with its steps, shared ones included."""

    @property
    def due(self) -> list[EditState]:
        """States that need another step."""
        return [state for state in self.states if state.live and state.index < self.to]


@dataclass
class Counters:
    """What a scheduler has done since it started."""

    batches: int = 0
    """Number of batches that were stepped."""
    steps: int = 0
    """Steps of single states in those batches."""
    rows: int = 0
    """Transformer evaluations in those batches."""
    steps_after_cancel: int = 0
    """Steps of states that had been cancelled when their batch began; anything but 0 is a bug."""
    failures: int = 0
    """Number of step requests and calls that ended in an error."""


@dataclass(eq=False)
class _Call:
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)


class StepScheduler:
    """Runs an engine in its own thread. Methods may be called from any thread; only `check` and `close` block."""

    def __init__(
        self, engine: Engine, *, batch: int, threads: int | None = None, on_batch: OnBatch | None = None
    ) -> None:
        """`batch` is the maximum of rows in one transformer pass; `threads` are torch's on a CPU, None: unchanged."""
        self.engine = engine
        self.batch = batch
        self.load = Load()
        """Announced work that is not done yet, and how fast it gets done."""
        self.counters = Counters()
        """What was done since the start."""
        self.threads = 0
        """Torch's CPU threads where the steps run."""
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._requests: deque[StepRequest] = deque()
        self._closing = False
        self._healthy = False
        self._shapes: set[object] = set()  # of the batches that were stepped
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._step_begun: float | None = None
        self._step_is_first = False  # of its shape
        self._thread = threading.Thread(target=self._work, args=(threads,), name="careedit-engine", daemon=True)
        self._thread.start()
        self.call(lambda: None).result()  # the thread runs, and `threads` is known

    @property
    def step_s(self) -> float:
        """Seconds of the slowest of the recent batches; 0 before the first one."""
        return max(self._recent, default=0.0)

    @property
    def busy_s(self) -> float:
        """Seconds since the running batch began; 0 if no batch runs, and for the first one of its shape, which may compile."""
        begun = self._step_begun
        return 0.0 if begun is None or self._step_is_first else time.monotonic() - begun

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` in the engine's thread, between two batches."""
        call = _Call(work)
        self._put(self._calls, call)
        return call.future

    def advance(
        self, states: Sequence[EditState], to: int | None = None, on_steps: OnSteps | None = None
    ) -> StepRequest:
        """Step `states` until each has done `to` steps (None: all of its own); await `asyncio.wrap_future(.future)`.

        The future raises `CancelledError` if one of them was cancelled, and what a step raised.
        """
        end = max((state.schedule.steps for state in states), default=0) if to is None else to
        request = StepRequest(tuple(states), end, Future(), on_steps)
        self._put(self._requests, request)
        return request

    def check(self, probe: Callable[[], None], timeout: float) -> None:
        """Return if the engine steps: it has since the last check, or `probe`, run in its thread, passes in time.

        The first step of a shape may take `FIRST_STEP_S` seconds, because it may compile. Raises `UnavailableError` for a
        thread that has ended or is stuck, and what the probe raises.
        """
        if self._healthy:
            self._healthy = False
            return
        begun = self._step_begun
        if begun is not None and self._step_is_first and time.monotonic() - begun < FIRST_STEP_S:
            return
        if not self._thread.is_alive():
            raise UnavailableError("The engine's thread has ended; the replica must be restarted.")
        try:
            self.call(probe).result(timeout)
        except Late:
            raise UnavailableError(
                f"The engine has made no step for {timeout:g} seconds; the replica must be restarted."
            ) from None

    def close(self, timeout: float | None = None) -> None:
        """End the thread once its calls and requests are done; new ones are refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _put(self, queue: deque[Any], item: Any) -> None:
        with self._changed:
            if self._closing:
                raise UnavailableError("The scheduler is closed; send the edit to another replica.")
            queue.append(item)
            self._changed.notify()

    def _work(self, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        while True:
            with self._changed:
                while not (self._calls or self._requests or self._closing):
                    self._changed.wait()
                if not (self._calls or self._requests):
                    return
                call = self._calls.popleft() if self._calls else None
                picked = [] if call else self._pick()
            if call is not None:
                self._answer(call)
            elif picked:
                self._step(picked)
            del call, picked  # an idle engine holds no edit's memory

    def _answer(self, call: _Call) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            call.future.set_result(call.work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it; this thread serves all edits
            self._failed()
            call.future.set_exception(error)

    def _pick(self) -> list[StepRequest]:
        """The next batch, moved from the front of the queue to its back; requests that need no step are settled."""
        picked: list[StepRequest] = []
        rest: deque[StepRequest] = deque()
        rows = 0
        while self._requests:
            request = self._requests.popleft()
            due = request.due
            if request.future.cancelled() or not due:
                _settle(request)
                continue
            more = self._rows(due)
            if picked and (rows + more > self.batch or due[0].encoded.layout != picked[0].due[0].encoded.layout):
                rest.append(request)
                continue
            picked.append(request)
            rows += more
        self._requests.extend(rest)  # the same queue: another thread may be waiting to append to it
        self._requests.extend(picked)
        return picked

    def _step(self, requests: Sequence[StepRequest]) -> None:
        """One step of every request; if a shared batch fails, each of its edits is tried alone."""
        due = {id(request): request.due for request in requests}
        before = {id(state): state.index for states in due.values() for state in states}
        try:
            self._run([state for states in due.values() for state in states])
        except BaseException as error:  # noqa: BLE001 - one edit's failure is not its neighbours'
            self._failed()
            for request in requests:
                if len(requests) == 1:
                    self._fail(request, error)
                else:
                    self._step_alone(request, [state for state in due[id(request)] if state.index == before[id(state)]])
        seconds = self.load.last_seconds
        for request in requests:
            states = due[id(request)]
            request.stepping += seconds
            request.shared |= len(requests) > 1 or self._rows(states) > self.batch
            stepped = sum(state.index > before[id(state)] for state in states)
            try:
                if stepped and request.on_steps is not None and not request.future.done():
                    request.on_steps(stepped)
            except BaseException as error:  # noqa: BLE001
                self._fail(request, error)
            if request.future.done() or not request.due:
                with self._changed, suppress(ValueError):
                    self._requests.remove(request)
                _settle(request)

    def _step_alone(self, request: StepRequest, states: Sequence[EditState]) -> None:
        try:
            self._run(states)
        except BaseException as error:  # noqa: BLE001
            self._failed()
            self._fail(request, error)

    def _run(self, states: Sequence[EditState]) -> None:
        """One step of each state, in as many batches as needed; counted and timed."""
        for chunk in self._chunks(states):
            cancelled = [(state, state.index) for state in chunk if state.cancelled]
            before, rows = sum(state.index for state in chunk), self._rows(chunk)
            shape = (rows, chunk[0].encoded.layout)
            started = time.perf_counter()
            self._step_is_first, self._step_begun = shape not in self._shapes, time.monotonic()
            try:
                self.engine.step(chunk)
                if self.engine.base.device.type == "cuda":
                    torch.cuda.synchronize(self.engine.base.device)  # without it, the time is that of queueing the step
            finally:
                self._step_begun = None
            seconds = time.perf_counter() - started
            if not self._step_is_first:
                self._recent.append(seconds)
            self._shapes.add(shape)
            self.load.did(sum(self.engine.base.work_of(state.job) for state in chunk), seconds)
            self.counters.batches += 1
            self.counters.rows += rows
            self.counters.steps += sum(state.index for state in chunk) - before
            self.counters.steps_after_cancel += sum(state.index > index for state, index in cancelled)
            if self._on_batch is not None:
                self._on_batch(rows, seconds, sum(state.cancelled for state in chunk))
        self._healthy = True

    def _rows(self, states: Sequence[EditState]) -> int:
        """Transformer evaluations that one step of `states` takes."""
        return sum(self.engine.base.rows_of(state.job) for state in states)

    def _chunks(self, states: Sequence[EditState]) -> list[list[EditState]]:
        """`states` in their order, in chunks of at most `batch` rows; a state that needs more is a chunk of its own."""
        chunks: list[list[EditState]] = []
        for state in states:
            if not chunks or self._rows([*chunks[-1], state]) > self.batch:
                chunks.append([])
            chunks[-1].append(state)
        return chunks

    def _fail(self, request: StepRequest, error: BaseException) -> None:
        with suppress(InvalidStateError):
            request.future.set_exception(error)

    def _failed(self) -> None:
        self.counters.failures += 1
        self._healthy = False
        if self.engine.base.device.type == "cuda":
            torch.cuda.empty_cache()


def _settle(request: StepRequest) -> None:
    """Complete the future of a request that needs no more steps."""
    cancelled = any(state.cancelled for state in request.states)
    with suppress(InvalidStateError):
        if cancelled:
            request.future.set_exception(CancelledError("The edit was cancelled between two steps."))
        else:
            request.future.set_result(None)
