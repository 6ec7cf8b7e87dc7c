"""`Metrics`: records all metrics, with one method per event, so that names and labels are written once.

A factory makes the instrument of each `MetricInfo`: `ray_factory` inside a Serve replica, `Recording()` in tests,
`no_metrics` where no metrics are wanted. Recording does not raise: values come from the code, not from users.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Literal, cast

from careedit.images import FLATTENED
from careedit.records import EditTrace, RoutingDecision
from careedit.scoring import Score
from careedit_deployments.telemetry import catalogue
from careedit_deployments.telemetry.catalogue import METRICS, MetricInfo, Outcome, PolicyOutcome, Refusal, Stage

Instrument = Callable[[float, dict[str, str]], None]
"""Records a value under labels: adds to a counter, sets a gauge, observes in a histogram."""

MetricFactory = Callable[[MetricInfo], Instrument]
"""Makes the instrument of a metric; called once per metric."""

Verdict = Literal["won", "lost", "tied", "good", "bad", "neutral"]
"""Verdict on an arm: the result of a comparison with another arm, or a rating above, below or of 3."""

REASONS = ("router", "filter", "scorer", "instruction", "mask", "replica", "runtime")
"""Values of the label `reason` of a degradation; any other reason becomes "other"."""


class Metrics:
    """Records metrics. One per process; its methods may be called from any thread."""

    def __init__(self, factory: MetricFactory, *, cost_per_gpu_hour: float = 0.0) -> None:
        self._instruments = {info.name: factory(info) for info in METRICS}
        self._price = cost_per_gpu_hour / 3600

    def edit_ended(self, arm: str, expert: str, outcome: Outcome, seconds: float) -> None:
        """An accepted edit ended after `seconds`. `expert` is from `expert_of`. Called once per edit, in the ingress."""
        self._record(catalogue.EDITS, 1, arm=arm, expert=expert, outcome=outcome)
        self._record(catalogue.EDIT_SECONDS, seconds, arm=arm, expert=expert, outcome=outcome)

    def image_made(self, arm: str, trace: EditTrace) -> None:
        """An image was made: counts it, its evaluations, seeds, stages and degradations. Called once per image, in the ingress."""
        expert = expert_of(trace.routing)
        self._record(catalogue.IMAGES, 1, arm=arm, expert=expert)
        self._record(catalogue.EVALUATIONS, trace.nfe, arm=arm, expert=expert)
        self._record(catalogue.SEEDS_TRIED, len(trace.filter.candidates) if trace.filter else 1, arm=arm)
        for stage, seconds in stages_of(trace).items():
            self.stage(stage, seconds, arm=arm, expert=expert)
        for line in trace.degradations:
            if not line.endswith(FLATTENED):  # this is a property of the client's picture
                self._record(catalogue.DEGRADATIONS, 1, arm=arm, reason=_reason(line))

    def routed(self, arm: str, decision: RoutingDecision, seconds: float) -> None:
        """An edit was routed."""
        self._record(catalogue.ENTROPY, decision.entropy, arm=arm, router=decision.router)
        self._record(catalogue.FEASIBLE, decision.feasible, arm=arm, router=decision.router)
        self.stage("route", seconds, arm=arm, expert=expert_of(decision))

    def refused(self, reason: Refusal) -> None:
        """A request was rejected before any work was done for it."""
        self._record(catalogue.REFUSALS, 1, reason=reason)

    def policy(self, check: str, stage: Literal["input", "output"], verdict: PolicyOutcome) -> None:
        """A policy check looked at the input of an edit or at a result."""
        self._record(catalogue.POLICY, 1, check=check, stage=stage, verdict=verdict)

    def stage(self, stage: Stage, seconds: float, *, arm: str, expert: str) -> None:
        """An edit spent `seconds` in a stage. `routed` and `image_made` call this themselves."""
        self._record(catalogue.STAGE_SECONDS, seconds, stage=stage, arm=arm, expert=expert)

    def stepped(self, arm: str, expert: str, *, rows: int, seconds: float, late: int = 0) -> None:
        """A replica denoised a batch of `rows` rows in `seconds`, `late` of them for cancelled edits."""
        self._record(catalogue.STEPS, rows, arm=arm, expert=expert)
        self._record(catalogue.BATCH_ROWS, rows, arm=arm, expert=expert)
        self._record(catalogue.LATE_STEPS, late, arm=arm, expert=expert)
        self.spent(arm, expert, seconds)

    def spent(self, arm: str, expert: str, seconds: float) -> None:
        """The device of a replica worked for `seconds`. `stepped` calls this itself."""
        self._record(catalogue.DEVICE_SECONDS, seconds, arm=arm, expert=expert)
        self._record(catalogue.COST, seconds * self._price, arm=arm, expert=expert)

    def holds(self, arm: str, expert: str, *, edits: int, step_seconds: float) -> None:
        """A replica has so many edits in flight, with so many seconds of queued denoising."""
        self._record(catalogue.IN_FLIGHT, edits, arm=arm, expert=expert)
        self._record(catalogue.QUEUED_SECONDS, step_seconds, arm=arm, expert=expert)

    def retried(self, arm: str, expert: str) -> None:
        """An edit was restarted because its replica died."""
        self._record(catalogue.RETRIES, 1, arm=arm, expert=expert)

    def encoded(self, prompts: int, seconds: float) -> None:
        """An encoder replica encoded a batch of `prompts` prompts in `seconds`."""
        self._record(catalogue.ENCODINGS, prompts, outcome="made")
        self._record(catalogue.ENCODE_BATCH, prompts)
        self._record(catalogue.ENCODE_SECONDS, seconds)

    def reused(self, prompts: int) -> None:
        """An encoder replica had `prompts` prompts in its cache."""
        self._record(catalogue.ENCODINGS, prompts, outcome="reused")

    def encoder_retried(self) -> None:
        """A call of the encoder deployment is made again."""
        self._record(catalogue.ENCODINGS, 1, outcome="repeated")

    def judged(self, outcome: Literal["given", "failed"], count: int = 1) -> None:
        """The scorer pool gave `count` judgements, or failed to give them."""
        self._record(catalogue.JUDGED, count, outcome=outcome)

    def scored(self, arm: str, score: Score) -> None:
        """A finished edit of an arm was judged. An error instead of a score is not recorded here."""
        if score.overall is not None:
            self._record(catalogue.JUDGE_SCORE, score.overall, arm=arm)

    def feedback(self, arm: str, verdict: Verdict) -> None:
        """A person compared the edit of an arm with another one, or rated it."""
        self._record(catalogue.FEEDBACK, 1, arm=arm, verdict=verdict)

    def shadowed(self, arm: str, outcome: Literal["scored", "unscored", "failed", "dropped"]) -> None:
        """A copy of a request was edited by a shadow arm, or dropped because it was busy."""
        self._record(catalogue.SHADOWED, 1, arm=arm, outcome=outcome)

    def arm_cut(self, arm: str, reason: Literal["errors", "score", "hand"]) -> None:
        """An arm was taken out of traffic."""
        self._record(catalogue.ARM_CUTS, 1, arm=arm, reason=reason)

    def arm_live(self, arm: str, live: bool) -> None:
        """Whether an arm receives traffic. Recorded at every check, so that the gauge of a new replica is right."""
        self._record(catalogue.ARM_LIVE, int(live), arm=arm)

    def expert_changed(self, arm: str, change: Literal["added", "replaced", "retired", "refused"]) -> None:
        """The experts of a running arm changed, or an adapter was rejected."""
        self._record(catalogue.EXPERT_CHANGES, 1, arm=arm, change=change)

    def job(self, event: Literal["queued", "begun", "finished", "failed", "cancelled", "retaken"]) -> None:
        """The state of a job changed. "retaken": another worker claimed it because the lease had expired."""
        self._record(catalogue.JOBS, 1, event=event)

    def job_ended(self, event: Literal["finished", "failed", "cancelled"], seconds: float) -> None:
        """A job ended `seconds` after it was queued. Counts the event too."""
        self.job(event)
        self._record(catalogue.JOB_SECONDS, seconds, event=event)

    def jobs_waiting(self, count: int) -> None:
        """Number of jobs that wait for a worker."""
        self._record(catalogue.JOBS_WAITING, count)

    def webhook(self, outcome: Literal["delivered", "retry", "given_up"]) -> None:
        """An attempt to send a webhook ended."""
        self._record(catalogue.WEBHOOKS, 1, outcome=outcome)

    def held_deletions(self, count: int) -> None:
        """Number of expired items that the cleanup does not delete yet."""
        self._record(catalogue.HELD_DELETIONS, count)

    def swept(self, kind: str, count: int) -> None:
        """The cleanup deleted items whose time was over."""
        self._record(catalogue.SWEPT, count, kind=kind)

    def session(self, event: Literal["made", "turned", "deleted", "expired"], count: int = 1) -> None:
        """Sessions were made, edited, deleted or expired."""
        self._record(catalogue.SESSIONS, count, event=event)

    def _record(self, info: MetricInfo, value: float, **labels: str) -> None:
        if info.kind != "counter" or value > 0:  # Ray's counter rejects zero
            self._instruments[info.name](float(value), labels)


def expert_of(decision: RoutingDecision) -> str:
    """Label of the expert: its name, "base", or "mixed" for several, because the number of mixtures is unbounded."""
    return next(iter(decision.weights)) if len(decision.weights) == 1 else "mixed"


def stages_of(trace: EditTrace) -> dict[Stage, float]:
    """Seconds of an image by stage, from its trace. The trace does not contain the routing stage."""
    seconds_of = trace.seconds
    judge = trace.filter.judge_seconds if trace.filter else 0.0
    found: dict[Stage, float] = {
        "queue": seconds_of.get("queue", 0.0),
        "encode": seconds_of.get("prepare", 0.0),
        "step": seconds_of.get("denoise", 0.0)
        + max(0.0, seconds_of.get("filter", 0.0) - judge),  # previews consist of steps
        "decode": seconds_of.get("finish", 0.0),
        "judge": judge,
    }
    return {stage: seconds for stage, seconds in found.items() if seconds > 0}


def _reason(degradation: str) -> str:
    word = re.match(r"(?:degraded: )?(\w+)", degradation)
    return word.group(1) if word and word.group(1) in REASONS else "other"


def ray_factory(info: MetricInfo) -> Instrument:
    """An instrument that Ray exports to Prometheus; for code inside a Serve replica."""
    from ray.serve import metrics  # imported here, because unit tests and tools need no Ray

    keys = cast("tuple[str]", info.labels)  # Ray's annotation says one key, but it accepts any number
    if info.kind == "counter":
        counter = metrics.Counter(info.name, description=info.help, tag_keys=keys)
        return lambda value, labels: counter.inc(value, labels)
    if info.kind == "gauge":
        gauge = metrics.Gauge(info.name, description=info.help, tag_keys=keys)
        return lambda value, labels: gauge.set(value, labels)
    histogram = metrics.Histogram(info.name, description=info.help, boundaries=list(info.buckets), tag_keys=keys)
    return lambda value, labels: histogram.observe(value, labels)


def no_metrics(info: MetricInfo) -> Instrument:
    """An instrument that records nothing."""
    return lambda value, labels: None


class Recording:
    """A factory for tests: `values[name][labels]` lists the recorded values, in order."""

    def __init__(self) -> None:
        self.values: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = defaultdict(dict)
        """Every recorded value, by metric and by sorted (label, value) pairs."""

    def __call__(self, info: MetricInfo) -> Instrument:
        """The instrument of a metric. Other labels than the metric's raise ValueError, as in Ray."""

        def record(value: float, labels: Mapping[str, str]) -> None:
            if set(labels) != set(info.labels):
                raise ValueError(f"{info.name} takes the labels {info.labels}, not {tuple(labels)}.")
            self.values[info.name].setdefault(tuple(sorted(labels.items())), []).append(value)

        return record

    def total(self, name: str, **labels: str) -> float:
        """Sum of the values of a metric with at least these labels."""
        return sum(sum(values) for key, values in self.values[name].items() if set(labels.items()) <= set(key))
