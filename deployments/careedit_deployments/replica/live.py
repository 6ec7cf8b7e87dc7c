"""A loaded expert set that edits: editor, scheduler and runner, tested with one step before it takes edits."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import torch
from PIL import Image

from careedit.editing import EditState, warm_up
from careedit.editor import Editor
from careedit.experts import load_expert_set
from careedit.images import panel_sizes
from careedit.records import BASE, EditRequest
from careedit.scoring import Scorer
from careedit_deployments.edits.backend import EditCall, EditEvent
from careedit_deployments.encoder.client import EncoderLink, RemoteEncoder
from careedit_deployments.encoder.identity import base_key
from careedit_deployments.errors import UnavailableError
from careedit_deployments.replica.choice import ExpertSettings, SetChoice
from careedit_deployments.replica.edit import EditRunner
from careedit_deployments.replica.scheduler import OnBatch, StepScheduler
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

START_SECONDS = 1800.0
"""Seconds that a new replica waits for the encoder deployment, which may have gigabytes to load."""


class LiveSet:
    """Edits with one set until `retire`."""

    def __init__(
        self,
        settings: ExpertSettings,
        choice: SetChoice,
        *,
        scorer: Scorer | None = None,
        encoder: EncoderLink | None = None,
        on_batch: OnBatch | None = None,
        tracing: Tracing | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Load the set, merge or check its adapters, and make one step. The hashes of all weights are checked. Blocks; with an
        `encoder`, until it has a replica.

        Questions to the judge are recorded by `tracing` and `metrics`. Raises `ExpertError` and its subclasses for a set
        that cannot be used or is not the deployed one, `UnavailableError` if its step gives NaN or infinity.
        """
        loaded = load_expert_set(choice.expert_set)
        loaded.check_is(choice.sha256)
        names = loaded.names if settings.expert is None else (settings.expert,)
        for name in names:
            loaded.load(name)  # hash, shapes and numbers of every adapter that edits may ask for
        self.choice, self.settings, self.name, self.version = choice, settings, loaded.name, loaded.version
        self.editor = Editor(
            loaded,
            device=settings.device,
            dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
            application="shared" if settings.expert is None else "merged",
            text_encoders=encoder is None,
            quantisation=settings.quantisation,
            compiled=settings.compiled,
        )
        self.scheduler = StepScheduler(
            self.editor.engine, batch=settings.batch, threads=settings.threads, on_batch=on_batch
        )
        engine, threads = self.editor.engine, self.scheduler.threads
        self.runner = EditRunner(
            self.editor,
            self.scheduler,
            scorer=scorer,
            encoder=None if encoder is None else RemoteEncoder(encoder, base_key(loaded), engine, threads),
            workers=settings.workers,
            tracing=tracing,
            metrics=metrics,
        )
        try:
            self._ready = self._prepare()
            if settings.compiled:
                self.scheduler.call(self._warm_up).result()
            self.scheduler.call(self._probe).result()
        except BaseException:
            self.retire()
            raise

    def stream(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """As `EditRunner.stream`."""
        return self.runner.stream(call)

    def check(self) -> None:
        """Return if the engine can step; see `StepScheduler.check`. Blocks."""
        self.scheduler.check(self._probe, self.settings.check_seconds)

    def retire(self) -> None:
        """End once the edits in flight are done; blocks."""
        self.runner.close()

    def _prepare(self) -> EditState:
        """A state for test steps, encoded once; the lease on the replica's own expert is never returned."""
        spec = self.editor.expert_set.spec
        request = EditRequest(
            image=Image.new("RGB", (spec.panel.size, spec.panel.size), (128, 128, 128)),
            instruction="leave everything as it is",
            seed=0,
            expert=self.settings.expert or BASE,
        )
        (slot,) = self.editor.slots(request)
        self._lease = self.editor.engine.applier.lease(set(slot.job.weights) - {BASE})
        self.scheduler.call(self._lease.__enter__).result()
        return self.runner.client(time.monotonic() + START_SECONDS).prepare(slot.job)

    def _warm_up(self) -> None:
        """Compile for every panel size and number of rows, in the engine's thread."""
        panel, started = self.editor.expert_set.spec.panel, time.perf_counter()

        def log(done: int, total: int) -> None:
            seconds = time.perf_counter() - started
            logger.info("Compiled for %d of %d panel sizes of %s in %.0f s.", done, total, self.name, seconds)

        sizes = panel_sizes(panel.size, panel.fit, panel.multiple)
        warm_up(self.editor.engine, self._ready.job, sizes, batch=self.settings.batch, done=log)

    def _probe(self) -> None:
        """One step, in the engine's thread."""
        state = replace(self._ready)
        self.editor.engine.step([state])
        if not bool(torch.isfinite(state.latents).all()):
            who = self.settings.expert or "the base"
            raise UnavailableError(
                f"A step of {who} comes out as no number; the adapter or the number format is unfit."
            )
