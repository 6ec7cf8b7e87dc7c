"""The step scheduler: one thread owns an engine; edits join between two steps, share batches, and leave when done.

Two kinds of work come in: calls (encode, decode, load an adapter) and tickets (advance these states to this step). Calls
go first, because an edit that is encoded can join the next batch and one that is decoded leaves. Then one batch of steps
is made: the ticket that has waited longest, and with it those of the same shape that still fit; they go to the back of
the queue. So every edit advances at its turn, and a short one never waits for a long one to end.
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

from careedit.editing import EditState, Engine
from careedit.editing.mixing import mixture_rows
from careedit.errors import CancelledError
from careedit_deployments.errors import UnavailableError
from careedit_deployments.replica.load import Load

T = TypeVar("T")

OnSteps = Callable[[int], None]
"""Told in the engine's thread how many states took a step; what it raises ends the ticket."""

OnBatch = Callable[[int, float, int], None]
"""Told in the engine's thread of each batch: its rows, its seconds, and how many of its edits nobody waits for by now."""


@dataclass(eq=False)
class Ticket:
    """States of one edit that are advanced together."""

    states: tuple[EditState, ...]
    """They stand in every batch beside one another, in this order."""
    to: int
    """Steps that each shall have done."""
    future: Future[None]
    """Done when every state is there; cancelling it takes the ticket out."""
    on_steps: OnSteps
    """Progress."""
    shared: bool = False
    """Whether a step was made beside another edit's, or its states did not fit one batch: rounding may differ alone."""
    stepping: float = 0.0
    """Seconds spent in its own steps, those of its neighbours in the same batches included."""

    @property
    def due(self) -> list[EditState]:
        """States that need another step."""
        return [state for state in self.states if state.live and state.index < self.to]


@dataclass
class Counters:
    """What a scheduler has done since it began."""

    batches: int = 0
    """Batches of steps."""
    steps: int = 0
    """States' steps in them."""
    rows: int = 0
    """Transformer evaluations in them."""
    steps_after_cancel: int = 0
    """Steps of states that had been cancelled when their batch began; anything but 0 is a flaw."""
    failures: int = 0
    """Tickets and calls that ended in an error."""


@dataclass(eq=False)
class _Call:
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)


class StepScheduler:
    """Runs an engine in a thread of its own. Every method may be called from any thread; nothing blocks but `check`."""

    def __init__(
        self, engine: Engine, *, batch: int, threads: int | None = None, on_batch: OnBatch | None = None
    ) -> None:
        """`batch` bounds the rows of one transformer pass; `threads` are torch's on a CPU, None: as they are."""
        self.engine = engine
        self.batch = batch
        self.load = Load()
        """Work that was announced and not yet done, and how fast it is done."""
        self.counters = Counters()
        """What was done so far."""
        self.threads = 0
        """Torch's threads where steps run."""
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._tickets: deque[Ticket] = deque()
        self._closing = False
        self._healthy = False
        self._thread = threading.Thread(target=self._work, args=(threads,), name="careedit-engine", daemon=True)
        self._thread.start()
        self.call(lambda: None).result()  # the thread stands, and `threads` is known

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Do `work` in the engine's thread, between two batches."""
        call = _Call(work)
        self._put(self._calls, call)
        return call.future

    def advance(self, states: Sequence[EditState], to: int | None = None, on_steps: OnSteps = lambda _: None) -> Ticket:
        """Step `states` until each has done `to` steps (None: all of its own); await `asyncio.wrap_future(.future)`.

        The future raises `CancelledError` where one of them was cancelled, and what a step raised.
        """
        end = max((state.schedule.steps for state in states), default=0) if to is None else to
        ticket = Ticket(tuple(states), end, Future(), on_steps)
        self._put(self._tickets, ticket)
        return ticket

    def check(self, probe: Callable[[], None], timeout: float) -> None:
        """Return if the engine steps: it has since the last check, or `probe`, run in its thread, passes in time.

        Raises `UnavailableError` for a thread that has ended or is stuck, and what the probe raises.
        """
        if self._healthy:
            self._healthy = False
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
        """End the thread once its calls and tickets are done; nothing can be put in any more."""
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
                while not (self._calls or self._tickets or self._closing):
                    self._changed.wait()
                if not (self._calls or self._tickets):
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
        except BaseException as error:  # noqa: BLE001 - whoever waits is told; this thread serves all edits
            self._failed()
            call.future.set_exception(error)

    def _pick(self) -> list[Ticket]:
        """The next batch, taken off the queue and put to its back; tickets that need no step are settled on the way."""
        picked: list[Ticket] = []
        rest: deque[Ticket] = deque()
        rows = 0
        while self._tickets:
            ticket = self._tickets.popleft()
            due = ticket.due
            if ticket.future.cancelled() or not due:
                _settle(ticket)
                continue
            more = rows_of(due)
            if picked and (rows + more > self.batch or shape_of(due[0]) != shape_of(picked[0].due[0])):
                rest.append(ticket)
                continue
            picked.append(ticket)
            rows += more
        self._tickets.extend(rest)  # the same queue: somebody may be waiting to put a ticket into it
        self._tickets.extend(picked)
        return picked

    def _step(self, tickets: Sequence[Ticket]) -> None:
        """One step of every ticket; where a shared batch fails, each of its edits is tried alone."""
        due = {id(ticket): ticket.due for ticket in tickets}
        before = {id(state): state.index for states in due.values() for state in states}
        try:
            self._run([state for states in due.values() for state in states])
        except BaseException as error:  # noqa: BLE001 - one edit's failure is not its neighbours'
            self._failed()
            for ticket in tickets:
                if len(tickets) == 1:
                    self._fail(ticket, error)
                else:
                    self._step_alone(ticket, [state for state in due[id(ticket)] if state.index == before[id(state)]])
        seconds = self.load.last_seconds
        for ticket in tickets:
            states = due[id(ticket)]
            ticket.stepping += seconds
            ticket.shared |= len(tickets) > 1 or rows_of(states) > self.batch
            stepped = sum(state.index > before[id(state)] for state in states)
            try:
                if stepped and not ticket.future.done():
                    ticket.on_steps(stepped)
            except BaseException as error:  # noqa: BLE001
                self._fail(ticket, error)
            if ticket.future.done() or not ticket.due:
                with self._changed, suppress(ValueError):
                    self._tickets.remove(ticket)
                _settle(ticket)

    def _step_alone(self, ticket: Ticket, states: Sequence[EditState]) -> None:
        try:
            self._run(states)
        except BaseException as error:  # noqa: BLE001
            self._failed()
            self._fail(ticket, error)

    def _run(self, states: Sequence[EditState]) -> None:
        """One step of each state, in as many batches as `batch` demands; counted and timed."""
        for chunk in _chunks(states, self.batch):
            cancelled = [(state, state.index) for state in chunk if state.cancelled]
            before, rows = sum(state.index for state in chunk), rows_of(chunk)
            started = time.perf_counter()
            self.engine.step(chunk)
            if self.engine.base.device.type == "cuda":
                torch.cuda.synchronize(self.engine.base.device)  # a step that only was queued has no time
            seconds = time.perf_counter() - started
            self.load.did(sum(work_of(state) for state in chunk), seconds)
            self.counters.batches += 1
            self.counters.rows += rows
            self.counters.steps += sum(state.index for state in chunk) - before
            self.counters.steps_after_cancel += sum(state.index > index for state, index in cancelled)
            if self._on_batch is not None:
                self._on_batch(rows, seconds, sum(state.cancelled for state in chunk))
        self._healthy = True

    def _fail(self, ticket: Ticket, error: BaseException) -> None:
        with suppress(InvalidStateError):
            ticket.future.set_exception(error)

    def _failed(self) -> None:
        self.counters.failures += 1
        self._healthy = False
        if self.engine.base.device.type == "cuda":
            torch.cuda.empty_cache()


def rows_of(states: Sequence[EditState]) -> int:
    """Transformer evaluations that one step of `states` takes."""
    return sum(len(mixture_rows(state.job.weights, masked=state.coverage is not None)) for state in states)


def work_of(state: EditState) -> int:
    """One step's work, in row-pixels: evaluations times the canvas' pixels."""
    return rows_of([state]) * state.canvas_size[0] * state.canvas_size[1]


def shape_of(state: EditState) -> tuple[tuple[int, int], int]:
    """What states must have in common to share a batch, as in `Engine.step`."""
    return state.canvas_size, state.prompt_tokens.shape[1]


def _chunks(states: Sequence[EditState], rows: int) -> list[list[EditState]]:
    """`states` in their order, at most `rows` evaluations together; a state that needs more stands alone."""
    chunks: list[list[EditState]] = []
    for state in states:
        if not chunks or rows_of([*chunks[-1], state]) > rows:
            chunks.append([])
        chunks[-1].append(state)
    return chunks


def _settle(ticket: Ticket) -> None:
    """Tell whoever waits for a ticket that needs no more steps."""
    cancelled = any(state.cancelled for state in ticket.states)
    with suppress(InvalidStateError):
        if cancelled:
            ticket.future.set_exception(CancelledError("The edit was cancelled between two steps."))
        else:
            ticket.future.set_result(None)
