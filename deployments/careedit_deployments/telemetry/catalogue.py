"""Every metric of the platform: name, kind, labels, help. Dashboards, alerts and the table in the docs are made from it.

Labels hold only what the configuration bounds (arms, experts) or this file lists (outcomes, stages, reasons), so that the
number of series can't grow with traffic. Prometheus sees each name with the prefix `ray_`, a counter with `_total` behind
it, and beside the labels given here Ray Serve's own `deployment`, `replica` and `application`.
"""

from __future__ import annotations

from typing import Literal

from careedit.record import Record

SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
    *(10.0, 12.5, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0),
)
"""Buckets of durations. An edit takes seconds to minutes; Serve's own jump from 10 s to 60 s."""

SERVE_LATENCY_BUCKETS_MS = ",".join(f"{1000 * second:g}" for second in SECONDS)
"""The same for Serve's own histograms: value of `RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS`, set before Ray is imported."""

Stage = Literal["queue", "route", "encode", "step", "decode", "judge"]
"""Parts of an edit's time: waiting, routing, encoders, denoising, autoencoder to picture, judge."""

Outcome = Literal["made", "cancelled", "refused", "overloaded", "expired", "failed"]
"""How an edit ends: pictures; given up by the caller; not editable; queue full; deadline passed; anything else."""

Refusal = Literal["auth", "rate", "concurrency", "queue", "cost", "size", "slow", "input"]
"""Why a request is turned away before work is done for it."""


class MetricInfo(Record):
    """One metric as a dashboard has to know it."""

    name: str
    """Its name, without the prefix and suffix that Prometheus adds."""
    kind: Literal["counter", "gauge", "histogram"]
    """What it is."""
    help: str
    """What it counts or measures, with its unit."""
    labels: tuple[str, ...] = ()
    """What it is split by."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""

    @property
    def prometheus(self) -> str:
        """Its name in a query; a histogram's series add `_bucket`, `_sum` and `_count`."""
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

EDITS = _counter("edits", "Edits that ended, by how they ended.", "arm", "expert", "outcome")
EDIT_SECONDS = _histogram("edit_seconds", "Seconds from accepting an edit to its end.", "arm", "expert", "outcome")
STAGE_SECONDS = _histogram("stage_seconds", "Seconds that an edit spends in a stage.", "stage", "arm", "expert")
IMAGES = _counter("images", "Images made.", "arm", "expert")
STEPS = _counter("steps", "Denoising steps done, previews included, edits given up included.", "arm", "expert")
EVALUATIONS = _counter("evaluations", "Evaluations of the transformer (NFE) behind the images made.", "arm", "expert")
LATE_STEPS = _counter("late_steps", "Steps done for an edit after it was given up; at most one each.", "arm", "expert")
SEEDS_TRIED = _histogram("seeds_tried", "Noises tried per image by the early filter.", "arm", buckets=_COUNTS)
BATCH_ROWS = _histogram("batch_rows", "Rows that were stepped together.", "arm", "expert", buckets=_COUNTS)
IN_FLIGHT = _gauge("edits_in_hand", "Edits that a replica holds, waiting ones included.", "arm", "expert")
QUEUED_SECONDS = _gauge("queued_step_seconds", "Seconds of denoising that a replica has before it.", "arm", "expert")
DEGRADATIONS = _counter("degradations", "Images with something that did not go as asked.", "arm", "reason")
ENTROPY = _histogram(
    "routing_entropy",
    "Entropy of the router's probabilities, in nats.",
    "arm",
    "router",
    buckets=(0.01, *_SHARES, 1.5, 2),
)
FEASIBLE = _histogram(
    "routing_feasible", "The router's probability that the instruction applies.", "arm", "router", buckets=_SHARES
)
DEVICE_SECONDS = _counter("device_seconds", "Seconds of device time spent on edits.", "arm", "expert")
COST = _counter("cost", "Device time x telemetry.cost_per_gpu_hour, in its currency.", "arm", "expert")
REFUSALS = _counter("refusals", "Requests turned away before work was done for them.", "reason")
RETRIES = _counter("retries", "Edits restarted because their replica died.", "arm", "expert")
JUDGED = _counter("judged", "Judgements asked of the scorer pool: given, or failed.", "outcome")
JUDGE_SCORE = _histogram("judge_score", "The judge's overall score of finished edits.", "arm", buckets=_SHARES)
FEEDBACK = _counter("feedback", "Feedback that people gave.", "arm", "verdict")
SHADOWED = _counter("shadow_copies", "Copies for a shadow arm: scored, unscored, failed, or dropped.", "arm", "outcome")
ARM_CUTS = _counter("arm_cuts", "Times that a guard cut an arm out of traffic.", "arm", "reason")
ARM_LIVE = _gauge("arm_live", "1 while an arm takes traffic, 0 while it is disabled.", "arm")
EXPERT_CHANGES = _counter("expert_changes", "Experts added, replaced, retired or refused.", "arm", "change")
JOBS = _counter("jobs", "Jobs: queued, begun, finished, failed, cancelled, or taken up again.", "event")
JOBS_WAITING = _gauge("jobs_waiting", "Jobs that wait for a worker, as one ingress replica last saw it.")
JOB_SECONDS = _histogram("job_seconds", "Seconds from queueing a job to its end.", "event")
WEBHOOKS = _counter("webhooks", "Webhooks: delivered, to be retried, or given up.", "outcome")
SESSIONS = _counter("sessions", "Sessions: made, turned, deleted, or expired.", "event")

METRICS: tuple[MetricInfo, ...] = tuple(_catalogue)
"""All of them, in this order."""
