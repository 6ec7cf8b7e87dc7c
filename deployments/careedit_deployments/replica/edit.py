"""One edit on a shared engine: from a call to its events, within its deadline, stopped within a step if the caller leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from PIL import Image

from careedit.editor import Editor
from careedit.scoring import Scorer
from careedit.selection.judge import Judge
from careedit.selection.run import Slot, batches
from careedit_deployments.config import Telemetry
from careedit_deployments.edits.backend import Candidate, EditCall, EditEvent, ImageDone, Preview, Progress
from careedit_deployments.encoder.client import RemoteEncoder
from careedit_deployments.errors import DeadlineError
from careedit_deployments.replica.client import EngineClient
from careedit_deployments.replica.scheduler import StepScheduler
from careedit_deployments.telemetry.metrics import Metrics, no_metrics
from careedit_deployments.telemetry.scorer import WatchedScorer
from careedit_deployments.telemetry.tracing import Tracing

PROGRESS_EVERY = 0.2
"""Seconds between two progress events of an image; its first and last step are always reported."""

Send = Callable[[EditEvent], None]


class EditRunner:
    """Runs calls with one editor, many at once: the engine's thread denoises, worker threads do the rest."""

    def __init__(
        self,
        editor: Editor,
        scheduler: StepScheduler,
        *,
        scorer: Scorer | None = None,
        encoder: RemoteEncoder | None = None,
        workers: int,
        tracing: Tracing | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`workers` is the maximum of edits in flight; more of them wait. `scorer` judges previews, in the workers; each
        question to it is a span below the call's `trace_headers`, and is counted. `encoder` encodes prompts; None: the
        editor's base does."""
        self.editor = editor
        self.scheduler = scheduler
        self.scorer = scorer
        self.encoder = encoder
        self._tracing = tracing or Tracing(Telemetry(), "expert")
        self._metrics = metrics or Metrics(no_metrics)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="careedit-edit")

    async def stream(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """Edit; closing the iterator stops within one step. Raises `DeadlineError`, `InputError` and what editing raises.

        Image i starts from the noise of `seed + i`. The events of an image are in order, `ImageDone` last.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[EditEvent | BaseException | None] = asyncio.Queue()

        def post(event: EditEvent | BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: no caller is left
                loop.call_soon_threadsafe(events.put_nowait, event)

        ends = time.monotonic() + call.deadline_s
        edit = _Edit(self, call, ends, post)

        def work() -> None:
            try:
                edit.make()
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                post(error)
            else:
                post(None)

        task = self._workers.submit(work)
        try:
            while True:
                try:
                    async with asyncio.timeout(ends - time.monotonic()):
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

    def client(self, deadline: float, announced: int | None = None, *, waited: float = 0.0) -> EngineClient:
        """The engine for an edit that must end by `deadline`, in monotonic time; other arguments as in `EngineClient`."""
        return EngineClient(self.scheduler, announced, waited=waited, encoder=self.encoder, deadline=deadline)

    def close(self) -> None:
        """End the workers and the engine's thread once the edits in flight are done; blocks."""
        self._workers.shutdown()
        self.scheduler.close()


class _Edit:
    """One call, in a worker's thread."""

    def __init__(self, runner: EditRunner, call: EditCall, ends: float, send: Send) -> None:
        self.runner, self.editor, self.scheduler = runner, runner.editor, runner.scheduler
        self.call, self.ends, self.send = call, ends, send
        self.judge = runner.judge(call)
        self.arrived = time.perf_counter()
        self._clients: list[EngineClient] = []
        self._cancelled = False

    def cancel(self) -> None:
        """Stop; from any thread."""
        self._cancelled = True
        for client in self._clients:
            client.cancel()

    def make(self) -> None:
        """Make every image, batch by batch as `Editor.edit` does, so that a trace replays."""
        queued = time.perf_counter() - self.arrived
        slots = self.editor.slots(self.call.request, self.call.decision)
        for slot in slots:
            self.scheduler.engine.check(slot.job)
        groups = batches(slots, self.scheduler.batch)
        with ExitStack() as announced:
            for group in groups:
                key = announced.enter_context(
                    self.scheduler.load.announced(
                        sum(slot.plan.cost * self.editor.engine.base.work_of(slot.job) for slot in group)
                    )
                )
                self._clients.append(self.runner.client(self.ends, key, waited=queued))
            if self._cancelled:  # before there were clients
                self.cancel()
            first = 0
            for client, group in zip(self._clients, groups, strict=True):
                self._make(client, group, first)
                first += len(group)

    def _make(self, client: EngineClient, batch: Sequence[Slot], first: int) -> None:
        """The images of one batch, the first of which is image `first` of the call."""
        reports = [_Report(self._progress, first + i, slot.plan.cost) for i, slot in enumerate(batch)]

        def on_steps(count: int) -> None:
            for report in reports:
                report.add(count // len(reports))

        def on_preview(place: int, index: int, picture: Image.Image) -> None:
            self.send(Preview(image=first + place, index=index, picture=picture))

        finished = self.editor.make(
            batch, client, judge=self.judge, on_steps=on_steps, previews=self.call.partials, on_preview=on_preview
        )
        for i, (picture, trace, seen) in enumerate(finished):
            reports[i].finish()
            for index, candidate in enumerate(seen if self.call.candidates else ()):
                self.send(Candidate(image=first + i, index=index, picture=candidate))
            self.send(ImageDone(image=first + i, picture=picture, trace=trace))

    def _progress(self, event: Progress) -> None:
        if self.call.progress:
            self.send(event)


class _Report:
    """Progress of one image, reported at most every `PROGRESS_EVERY` seconds."""

    def __init__(self, report: Callable[[Progress], None], image: int, total: int) -> None:
        self._report, self._image, self._total = report, image, total
        self._done, self._reported, self._at = 0, -1, 0.0

    def add(self, steps: int) -> None:
        self._done += steps
        now = time.perf_counter()
        if self._reported < 0 or now - self._at >= PROGRESS_EVERY:
            self._send(now)

    def finish(self) -> None:
        if self._reported < self._done:
            self._send(time.perf_counter())

    def _send(self, now: float) -> None:
        self._reported, self._at = self._done, now
        self._report(Progress(image=self._image, done=self._done, total=self._total))
