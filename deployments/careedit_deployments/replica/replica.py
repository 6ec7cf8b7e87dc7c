"""The expert deployments' class: one expert merged for good, or the shared pool of a set; the same code for both."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from careedit.errors import CareEditError
from careedit.loading import quick_imports
from careedit.scoring import Scorer
from careedit_deployments.config import ScorerConfig, Telemetry
from careedit_deployments.edits.backend import EditCall, EditEvent
from careedit_deployments.edits.liveness import Pulse, paced
from careedit_deployments.errors import UnavailableError
from careedit_deployments.replica.choice import ExpertSettings, SetChoice
from careedit_deployments.replica.scaling import QUEUED_SECONDS, SECONDS_PER_EDIT
from careedit_deployments.scorer.pool import RemoteScorer
from careedit_deployments.telemetry.logs import set_up_logging
from careedit_deployments.telemetry.metrics import Metrics, ray_factory
from careedit_deployments.telemetry.tracing import Tracing

if TYPE_CHECKING:  # it imports torch, as a replica does in a thread once it is asked for a set
    from careedit_deployments.replica.live import LiveSet

logger = logging.getLogger(__name__)


class ExpertReplica:
    """A replica that edits. Its event loop only forwards events: loading, denoising and judging run in threads."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        telemetry: Mapping[str, Any],
        judge: Mapping[str, Any] | None = None,
        scorer: DeploymentHandle[Any] | None = None,
        encoder: DeploymentHandle[Any] | None = None,
    ) -> None:
        """`settings` are `ExpertSettings`, `judge` is the `ScorerConfig` of the pool behind `scorer`.

        `encoder` encodes prompts; None: the replica does.
        """
        self._settings = ExpertSettings(**settings)
        config = Telemetry(**telemetry)
        set_up_logging(config)
        self._metrics = Metrics(ray_factory, cost_per_gpu_hour=config.cost_per_gpu_hour)
        self._tracing = Tracing(config, "expert")
        self._label = self._settings.expert or "shared"
        self._name = serve.get_replica_context().replica_id.to_full_id_str()
        self._scorer: Scorer | None = None
        if scorer is not None and judge is not None:
            self._scorer = RemoteScorer(scorer, ScorerConfig(**judge))
        self._encoder = encoder
        self._live: LiveSet | None = None
        self._refused: str | None = None
        self._change = asyncio.Lock()
        self._retiring: set[asyncio.Future[None]] = set()

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Switch to another set: it is loaded and tested first, then new edits use it while running ones finish on the old.

        A set that cannot be used is refused: the old one stays, and `status` says why. A replica's first set must be usable.
        Needs memory for two bases during the change.
        """
        choice = SetChoice(**user_config)
        async with self._change:
            old = self._live
            if old is not None and old.choice == choice:
                self._refused = None
                return
            loop = asyncio.get_running_loop()
            try:
                self._live = await asyncio.to_thread(self._load, choice, loop)
            except (
                CareEditError,
                OSError,
                RuntimeError,
                ValueError,
            ) as error:  # what reading and running weights raises
                if old is None:
                    raise
                self._refused = str(error)
                self._metrics.expert_changed(self._settings.arm, "refused")
                logger.error("The set %s is refused, the old one stays: %s", choice.expert_set, error)
                return
            self._refused = None
        if old is not None:
            self._metrics.expert_changed(self._settings.arm, "replaced")
            ending = asyncio.ensure_future(asyncio.to_thread(old.retire))
            self._retiring.add(ending)
            ending.add_done_callback(self._retiring.discard)

    async def edit(self, call: EditCall) -> AsyncIterator[EditEvent | Pulse]:
        """Edit; see `Backend.edit`. Pulses show that the replica works."""
        live = self._loaded()
        yield self._pulse(live)
        span = self._tracing.span("expert", call.trace_headers, edit=call.id, arm=call.arm, expert=self._label)
        try:
            with span as inside:
                traced = call.model_copy(update={"trace_headers": inside.headers})
                async with aclosing(live.stream(traced)) as stream, aclosing(paced(stream)) as events:  # type: ignore[type-var]
                    async for event in events:
                        self._report_load(live)
                        yield self._pulse(live) if event is None else event
        finally:
            self._report_load(live)

    async def check_health(self) -> None:
        """Raise if the engine makes no step; Ray then replaces this replica."""
        await asyncio.to_thread(self._loaded().check)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The metrics that `StepSecondsPolicy` reads."""
        if self._live is None:
            return {QUEUED_SECONDS: 0.0, SECONDS_PER_EDIT: 0.0}
        load = self._live.scheduler.load
        return {QUEUED_SECONDS: load.queued_seconds, SECONDS_PER_EDIT: load.seconds_per_edit}

    async def status(self) -> dict[str, Any]:
        """Process, set, counters, and why the latest change was refused, if it was."""
        live = self._loaded()
        counters = vars(live.scheduler.counters)
        return {
            "pid": os.getpid(),
            "expert": self._settings.expert,
            "expert_set": live.name,
            "version": live.version,
            "sha256": live.choice.sha256,
            "refused": self._refused,
            "edits": live.scheduler.load.edits,
            **counters,
        }

    def _load(self, choice: SetChoice, loop: asyncio.AbstractEventLoop) -> LiveSet:
        with quick_imports():
            from careedit_deployments.encoder.client import EncoderLink
            from careedit_deployments.replica.live import LiveSet

        return LiveSet(
            self._settings,
            choice,
            scorer=self._scorer,
            encoder=None if self._encoder is None else EncoderLink(self._encoder, loop, self._metrics),
            on_batch=self._stepped,
            tracing=self._tracing,
            metrics=self._metrics,
        )

    def _loaded(self) -> LiveSet:
        if self._live is None:
            raise UnavailableError("The replica has no expert set yet; try again.")
        return self._live

    def _pulse(self, live: LiveSet) -> Pulse:
        return Pulse(replica=self._name, step_s=live.scheduler.step_s, busy_s=live.scheduler.busy_s)

    def _report_load(self, live: LiveSet) -> None:
        load = live.scheduler.load
        self._metrics.holds(self._settings.arm, self._label, edits=load.edits, step_seconds=load.queued_seconds)

    def _stepped(self, rows: int, seconds: float, late: int) -> None:
        self._metrics.stepped(self._settings.arm, self._label, rows=rows, seconds=seconds, late=late)
