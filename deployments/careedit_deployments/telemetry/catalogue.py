"""Every metric of the platform: name, kind, labels and help. Dashboards, alerts and the table in the docs use it.

Label values come from the configuration (arms, experts) or from this file (outcomes, stages, reasons), so the number of
series does not grow with traffic. Prometheus shows each name with the prefix `ray_`, and counters with the suffix `_total`.
Ray Serve adds the labels `deployment`, `replica` and `application`.
"""

from __future__ import annotations

from typing import Literal

from careedit.record import Record

SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
    *(10.0, 12.5, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0),
)
"""Buckets of durations, in seconds. Serve's own buckets jump from 10 s to 60 s, too coarse for edits of seconds to minutes."""

SERVE_LATENCY_BUCKETS_MS = ",".join(f"{1000 * second:g}" for second in SECONDS)
"""The same buckets for Serve's own histograms: `RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS`, which must be set before Ray is imported."""

Stage = Literal["queue", "route", "encode", "step", "decode", "judge"]
"""Parts of the time of an edit: waiting, routing, encoders, denoising, decoding the image, judge."""

Outcome = Literal["made", "cancelled", "refused", "overloaded", "expired", "failed"]
"""How an edit ends: finished; cancelled by the caller; cannot be edited; queue full; deadline passed; any other failure."""

Refusal = Literal["auth", "rate", "concurrency", "queue", "cost", "size", "slow", "quota", "input", "policy"]
"""Why a request is rejected before any work is done for it; "policy" also for a result that is not sent."""

PolicyOutcome = Literal["allowed", "refused", "marked", "failed"]
"""What a policy check answers; "failed": it does not answer."""


class MetricInfo(Record):
    """One metric: what a dashboard or alert needs to know."""

    name: str
    """Name of the metric, without the prefix and suffix that Prometheus shows."""
    kind: Literal["counter", "gauge", "histogram"]
    """Kind of the metric, in the terms of Prometheus."""
    help: str
    """What the metric counts or measures, with its unit."""
    labels: tuple[str, ...] = ()
    """Names of the labels that split the metric into series."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of the buckets of a histogram."""

    @property
    def prometheus(self) -> str:
        """Name in a query. The series of a histogram add `_bucket`, `_sum` and `_count`."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


_catalogue: list[MetricInfo] = []


def _metric(info: MetricInfo) -> MetricInfo:
    _catalogue.append(info)
    return info


def _counter(name: str, help: str, *labels: str) -> MetricInfo:
    return _metric(MetricInfo(name=f"careedit_{name}", kind="counter", help=help, labels=labels))


def _gauge(name: str, help: str, *labels: str) -> MetricInfo:
    return _metric(MetricInfo(name=f"careedit_{name}", kind="gauge", help=help, labels=labels))


def _histogram(name: str, help: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> MetricInfo:
    return _metric(MetricInfo(name=f"careedit_{name}", kind="histogram", help=help, labels=labels, buckets=buckets))


_COUNTS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

EDITS = _counter("edits", "Edits that ended, by outcome.", "arm", "expert", "outcome")
EDIT_SECONDS = _histogram("edit_seconds", "Seconds from accepting an edit to its end.", "arm", "expert", "outcome")
STAGE_SECONDS = _histogram("stage_seconds", "Seconds that an edit spends in one stage.", "stage", "arm", "expert")
IMAGES = _counter("images", "Finished images.", "arm", "expert")
STEPS = _counter("steps", "Denoising steps, including those of previews and of cancelled edits.", "arm", "expert")
EVALUATIONS = _counter("evaluations", "Transformer evaluations (NFE) of the finished images.", "arm", "expert")
LATE_STEPS = _counter(
    "late_steps", "Steps done for an edit after it was cancelled; at most one per edit.", "arm", "expert"
)
SEEDS_TRIED = _histogram("seeds_tried", "Seeds tried per image by the early filter.", "arm", buckets=_COUNTS)
BATCH_ROWS = _histogram("batch_rows", "Rows denoised together in one batch.", "arm", "expert", buckets=_COUNTS)
IN_FLIGHT = _gauge("edits_in_hand", "Edits in flight on a replica, including waiting ones.", "arm", "expert")
QUEUED_SECONDS = _gauge("queued_step_seconds", "Seconds of queued denoising on a replica.", "arm", "expert")
DEGRADATIONS = _counter(
    "degradations", "Images that were made with a degradation, such as without the early filter.", "arm", "reason"
)
ENTROPY = _histogram(
    "routing_entropy",
    "Entropy of the router's probabilities, in nats.",
    "arm",
    "router",
    buckets=(0.01, *_SHARES, 1.5, 2),
)
FEASIBLE = _histogram(
    "routing_feasible",
    "The router's probability that the instruction can be carried out.",
    "arm",
    "router",
    buckets=_SHARES,
)
DEVICE_SECONDS = _counter("device_seconds", "Seconds of device time spent on edits.", "arm", "expert")
COST = _counter("cost", "Device time x telemetry.cost_per_gpu_hour, in that currency.", "arm", "expert")
REFUSALS = _counter("refusals", "Requests rejected before any work was done for them.", "reason")
POLICY = _counter(
    "policy_verdicts", "Answers of policy checks: allowed, marked, refused, or failed.", "check", "stage", "verdict"
)
RETRIES = _counter("retries", "Edits restarted because their replica died.", "arm", "expert")
ENCODINGS = _counter(
    "encodings",
    "Prompts of the encoder deployment: made; reused from its cache; repeated because a replica was lost or full.",
    "outcome",
)
ENCODE_SECONDS = _histogram("encode_seconds", "Seconds of one forward of the text encoders.")
ENCODE_BATCH = _histogram("encode_batch", "Prompts encoded together in one forward.", buckets=_COUNTS)
JUDGED = _counter("judged", "Judgements by the scorer pool: given or failed.", "outcome")
JUDGE_SCORE = _histogram("judge_score", "Overall score of finished edits, by the judge.", "arm", buckets=_SHARES)
FEEDBACK = _counter("feedback", "Feedback from people, by verdict on the arm.", "arm", "verdict")
SHADOWED = _counter("shadow_copies", "Copies for a shadow arm: scored, unscored, failed or dropped.", "arm", "outcome")
ARM_CUTS = _counter("arm_cuts", "Times that an arm was taken out of traffic.", "arm", "reason")
ARM_LIVE = _gauge("arm_live", "1 while an arm receives traffic, 0 while it is out of traffic.", "arm")
EXPERT_CHANGES = _counter(
    "expert_changes", "Experts added, replaced, retired or rejected while serving.", "arm", "change"
)
JOBS = _counter("jobs", "Jobs: queued, begun, finished, failed, cancelled, or retaken by another worker.", "event")
JOBS_WAITING = _gauge("jobs_waiting", "Jobs that wait for a worker, as last counted by an ingress replica.")
JOB_SECONDS = _histogram("job_seconds", "Seconds from queueing a job to its end.", "event")
WEBHOOKS = _counter("webhooks", "Webhook attempts: delivered, to be retried, or given up.", "outcome")
HELD_DELETIONS = _gauge(
    "held_deletions",
    "Expired items that the cleanup does not delete yet, as too many expired.",
)
SWEPT = _counter(
    "swept",
    "Items that the cleanup deleted because their time was over: jobs, sessions, orphans, feedback, edits, assignments, arm_events, "
    "keys, audit.",
    "kind",
)
SESSIONS = _counter("sessions", "Sessions: made, turned (one edit more), deleted or expired.", "event")

METRICS: tuple[MetricInfo, ...] = tuple(_catalogue)
"""All metrics, in this order."""
