"""One edit on a shared engine: from a call to its events, within its deadline, stopped within a step when nobody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import cast

from careedit.editing import EditState, Engine
from careedit.editing.mixing import mixture_rows
from careedit.editor import Editor
from careedit.experts import BASE
from careedit.records import EditTrace, FilterTrace
from careedit.scoring import Scorer
from careedit.selection import Judge, Slot, batches, select
from careedit_deployments.config import Telemetry
from careedit_deployments.edits.backend import EditCall, EditEvent, Made, Partial, Progress
from careedit_deployments.errors import DeadlineError
from careedit_deployments.replica.scheduler import StepScheduler
from careedit_deployments.replica.seat import Seat
from careedit_deployments.telemetry.metrics import Metrics, no_metrics
from careedit_deployments.telemetry.scorer import WatchedScorer
from careedit_deployments.telemetry.tracing import Tracing

PROGRESS_EVERY = 0.2
"""Seconds between two reports of an image's progress; its first and last step are always told."""
SHARED = "replay: its batches were shared or split as the load demanded, so a replay may differ in the last bit"
"""The degradation of an edit that a replay cannot repeat to the bit."""

Tell = Callable[[EditEvent], None]


class EditRunner:
    """Edits calls with one editor, any number at once; the engine's thread does the denoising, workers all the rest."""

    def __init__(
        self,
        editor: Editor,
        scheduler: StepScheduler,
        *,
        scorer: Scorer | None = None,
        workers: int,
        tracing: Tracing | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`workers` bounds the edits in hand at once; more of them wait. `scorer` judges previews from workers; each of
        its looks is a span below the call's `trace_headers`, and is counted."""
        self.editor = editor
        self.scheduler = scheduler
        self.scorer = scorer
        self._tracing = tracing or Tracing(Telemetry(), "expert")
        self._metrics = metrics or Metrics(no_metrics)
        editor.judge = None if scorer is None else Judge(scorer)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="careedit-edit")

    async def stream(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """Edit; closing the iterator stops within one step. Raises `DeadlineError`, `InputError` and what editing raises.

        The i-th image starts from the noise of `seed + i`; the events of its images come in their order, `Made` last.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[EditEvent | BaseException | None] = asyncio.Queue()

        def post(event: EditEvent | BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody listens
                loop.call_soon_threadsafe(events.put_nowait, event)

        edit = _Edit(self, call, post)

        def work() -> None:
            try:
                edit.make()
            except BaseException as error:  # noqa: BLE001 - told to whoever listens
                post(error)
            else:
                post(None)

        task = self._workers.submit(work)
        try:
            while True:
                try:
                    async with asyncio.timeout(call.deadline - time.time()):
                        event = await events.get()
                except TimeoutError:
                    raise DeadlineError("The edit's deadline has passed; ask for fewer steps or images.") from None
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            edit.cancel()
            task.cancel()

    def judge(self, call: EditCall) -> Judge | None:
        """The judge of one call's previews."""
        if self.scorer is None:
            return None
        return Judge(WatchedScorer(self.scorer, self._tracing, self._metrics, call.trace_headers))

    def close(self) -> None:
        """End the workers and the engine's thread once the edits in hand are done; blocks."""
        self._workers.shutdown()
        self.scheduler.close()


class _Edit:
    """One call at work, in a worker's thread."""

    def __init__(self, runner: EditRunner, call: EditCall, tell: Tell) -> None:
        self.editor, self.scheduler, self.call, self.tell = runner.editor, runner.scheduler, call, tell
        self.judge = runner.judge(call)
        self.arrived = time.perf_counter()
        self.image = 0
        self._seats: list[Seat] = []
        self._cancelled = False

    def cancel(self) -> None:
        """Stop; from any thread."""
        self._cancelled = True
        for seat in self._seats:
            seat.cancel()

    def make(self) -> None:
        """Make every image, batch by batch as `Editor.edit` does, so that a trace replays."""
        queued = time.perf_counter() - self.arrived
        slots = self.editor.slots(self.call.request, self.call.decision)
        for slot in slots:
            self.scheduler.engine.check(slot.job)
        groups = batches(slots, self.scheduler.batch)
        with ExitStack() as announced:
            for group in groups:
                key = announced.enter_context(self.scheduler.load.announced(sum(_work(slot) for slot in group)))
                self._seats.append(Seat(self.scheduler, key))
            if self._cancelled:  # before there were seats
                self.cancel()
            for seat, group in zip(self._seats, groups, strict=True):
                self._make(seat, group, queued)
                self.image += len(group)

    def _make(self, seat: Seat, batch: Sequence[Slot], queued: float) -> None:
        tell = self.tell if self.call.progress else _to_nobody
        reports = [_Report(tell, self.image + i, slot.plan.cost) for i, slot in enumerate(batch)]

        def on_steps(count: int) -> None:
            for report in reports:
                report.add(count // len(reports))

        clock = _Clock(seat)
        chosen: FilterTrace | None = None
        names = {name for slot in batch for name in slot.job.weights} - {BASE}
        with seat.lease(names):
            if batch[0].plan.looks:
                selected = select(cast(Engine, seat), batch[0], self.judge, on_steps)
                states, chosen = [selected.state], selected.trace
            else:
                states = [seat.prepare(slot.job) for slot in batch]
            clock.lap("prepare" if chosen is None else "filter")
            self._denoise(seat, batch, states, on_steps)
            clock.lap("denoise")
            panels = seat.finish_many(states)
        pictures = [slot.picture(panel) for slot, panel in zip(batch, panels, strict=True)]
        clock.lap("finish")
        stages = {"queue": queued + seat.waited, **clock.stages}
        for i, (state, picture) in enumerate(zip(states, pictures, strict=True)):
            trace = self.editor.trace(batch, i, state, stages, chosen, threads=self.scheduler.threads)
            reports[i].finish()
            self.tell(Made(image=self.image + i, picture=picture, trace=_told(trace, seat)))

    def _denoise(
        self, seat: Seat, batch: Sequence[Slot], states: Sequence[EditState], on_steps: Callable[[int], None]
    ) -> None:
        """Step to the end, with previews after evenly spaced steps; one that would be the result itself is left out."""
        steps, begun = states[0].schedule.steps, states[0].index
        stops = [round(steps * (i + 1) / (self.call.partials + 1)) for i in range(self.call.partials)]
        for index, stop in enumerate(stops):
            if not 0 < stop < steps or stop < begun:
                continue
            seat.advance(states, stop, on_steps)
            for i, panel in enumerate(seat.preview_many(states)):
                self.tell(Partial(image=self.image + i, index=index, picture=batch[i].picture(panel)))
        seat.advance(states, steps, on_steps)


class _Clock:
    """Seconds per stage without those in which other edits had the engine."""

    def __init__(self, seat: Seat) -> None:
        self.stages: dict[str, float] = {}
        self._seat = seat
        self._last = time.perf_counter() - seat.waited

    def lap(self, stage: str) -> None:
        now = time.perf_counter() - self._seat.waited
        self.stages[stage], self._last = now - self._last, now


class _Report:
    """Progress of one image, told now and then."""

    def __init__(self, tell: Tell, image: int, total: int) -> None:
        self._tell, self._image, self._total = tell, image, total
        self._done, self._told, self._at = 0, -1, 0.0

    def add(self, steps: int) -> None:
        self._done += steps
        now = time.perf_counter()
        if self._told < 0 or now - self._at >= PROGRESS_EVERY:
            self._send(now)

    def finish(self) -> None:
        if self._told < self._done:
            self._send(time.perf_counter())

    def _send(self, now: float) -> None:
        self._told, self._at = self._done, now
        self._tell(Progress(image=self._image, done=self._done, total=self._total))


def _to_nobody(_: EditEvent) -> None:
    """Where no progress is wanted."""


def _work(slot: Slot) -> int:
    """Work of an image in row-pixels, its early filter's candidates included."""
    width, height = slot.job.source.size
    rows = len(mixture_rows(slot.job.weights, masked=slot.job.mask is not None))
    return slot.plan.cost * rows * slot.job.panels * width * height


def _told(trace: EditTrace, seat: Seat) -> EditTrace:
    if not seat.shared:
        return trace
    return trace.model_copy(update={"degradations": (*trace.degradations, SHARED)})
