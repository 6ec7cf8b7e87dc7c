"""Prometheus alerts, written with the metrics' own names; `promtool` checks them and plays them through in the tests."""

from __future__ import annotations

from typing import Any

from careedit_deployments.telemetry import catalogue

OBJECTIVE = 0.99
"""Share of accepted edits that should end in pictures (or be given up by their caller)."""

BURNS = (("fast", 14.4, "1h", "5m", "critical"), ("slow", 6.0, "6h", "30m", "warning"))
"""Multiwindow, multi-burn-rate alerts: speed, times the budget, long and short window, severity.

Beyer et al., The Site Reliability Workbook (2018), chapter 5, table 5-8.
"""

QUEUE_SECONDS = 30
"""Seconds in a queue (95th percentile) that callers should not have to wait."""

JUDGE_DROP = 0.1
"""Fall of the mean judge score, against the day before, that somebody should look at."""

RUNBOOK = "docs/kubernetes.md"
"""Where an alert's `runbook` annotation points: its table of alerts."""


def rule_groups() -> list[dict[str, Any]]:
    """The groups of a Prometheus rule file: service levels, quality, replicas, batch."""
    return [
        {"name": "careedit-service", "rules": [*(_burn(*burn) for burn in BURNS), *_service()]},
        {"name": "careedit-quality", "rules": _quality()},
        {"name": "careedit-replicas", "rules": _replicas()},
        {"name": "careedit-batch", "rules": _batch()},
    ]


def _burn(speed: str, times: float, long: str, short: str, severity: str) -> dict[str, Any]:
    def share(window: str) -> str:
        return _share(catalogue.EDITS.prometheus, "failed|expired", window)

    limit = f"{times * (1 - OBJECTIVE):.4g}"
    return _alert(
        f"CareEditErrorBudgetBurns{speed.capitalize()}",
        f"{share(long)} > {limit}\nand\n{share(short)} > {limit}",
        severity,
        f"Edits fail {times:g} times faster than the objective of {OBJECTIVE:.0%} allows.",
        minutes=2,
    )


def _service() -> list[dict[str, Any]]:
    queue = f'sum by (le) (rate({catalogue.STAGE_SECONDS.prometheus}_bucket{{stage="queue"}}[10m]))'
    finished = f'sum(rate({catalogue.JOBS.prometheus}{{event=~"finished|failed|cancelled"}}[15m]))'
    return [
        _alert(
            "CareEditQueueIsOld",
            f"histogram_quantile(0.95, {queue}) > {QUEUE_SECONDS}",
            "warning",
            f"One edit in twenty waits longer than {QUEUE_SECONDS} s for a replica.",
        ),
        _alert(
            "CareEditJobsStandStill",
            f"max({catalogue.JOBS_WAITING.prometheus}) > 0\nunless\n{finished} > 0",
            "critical",
            "Jobs wait, and none has ended in 15 minutes.",
            minutes=15,
        ),
        _alert(
            "CareEditOverloaded",
            f"{_share(catalogue.EDITS.prometheus, 'overloaded', '10m')} > 0.05",
            "warning",
            "More than one edit in twenty is turned away because queues are full.",
        ),
    ]


def _quality() -> list[dict[str, Any]]:
    score, degradations = catalogue.JUDGE_SCORE.prometheus, catalogue.DEGRADATIONS.prometheus
    now, before = _mean(score, "1h"), _mean(score, "1h", " offset 1d")
    judged = f"sum by (arm) (increase({score}_count[1h])) >= 50"
    images = f"sum by (arm) (rate({catalogue.IMAGES.prometheus}[15m]))"
    return [
        _alert(
            "CareEditJudgeScoreDrops",
            f"{before} - {now} > {JUDGE_DROP}\nand\n{judged}",
            "warning",
            f"The judge's mean score of the arm {{{{ $labels.arm }}}} is {JUDGE_DROP:g} below yesterday's.",
            minutes=15,
        ),
        _alert(
            "CareEditDegraded",
            f"sum by (arm) (rate({degradations}[15m])) / {images} > 0.2",
            "warning",
            "One image in five of the arm {{ $labels.arm }} did not go as asked.",
            minutes=15,
        ),
        _alert(
            "CareEditArmIsCut",
            f"min by (arm) ({catalogue.ARM_LIVE.prometheus}) == 0",
            "warning",
            "The arm {{ $labels.arm }} is cut out of traffic.",
            minutes=0,
        ),
        _alert(
            "CareEditJudgeFails",
            f"{_share(catalogue.JUDGED.prometheus, 'failed', '15m')} > 0.5",
            "warning",
            "The scorer pool does not answer: edits go on without the early filter.",
        ),
    ]


def _replicas() -> list[dict[str, Any]]:
    return [
        _alert(
            "CareEditReplicasCrash",
            # A new replica is a new series that begins at 1, which `increase` can't see: count the series instead.
            "count by (deployment) (count_over_time(ray_serve_deployment_replica_starts_total[30m]))\n"
            "> 2 * max by (deployment) (max_over_time(ray_serve_autoscaling_target_replicas[30m])) + 3",
            "critical",
            "Replicas of {{ $labels.deployment }} start again and again.",
        ),
        _alert(
            "CareEditReplicasFailHealthChecks",
            "sum by (deployment) (increase(ray_serve_health_check_failures_total[15m])) > 5",
            "warning",
            "Replicas of {{ $labels.deployment }} fail their health checks.",
        ),
        _alert(
            "CareEditEditsAreBegunAnew",
            f"sum by (expert) (rate({catalogue.RETRIES.prometheus}[15m])) > 0.1",
            "warning",
            "Edits of {{ $labels.expert }} lose their replica.",
        ),
    ]


def _batch() -> list[dict[str, Any]]:
    given_up = f'{catalogue.WEBHOOKS.prometheus}{{outcome="given_up"}}'
    return [
        _alert(
            "CareEditNightlyFailed",
            'max(kube_job_status_failed{job_name=~"careedit-nightly.*"}) > 0',
            "warning",
            "The benchmark of the night failed, or its gate did not pass: worse, or inconclusive.",
            minutes=0,
        ),
        _alert(
            "CareEditWebhooksAreGivenUp",
            # The first one makes the series: there is nothing before it that it could have increased from.
            f"increase({given_up}[1h]) > 0 or ({given_up} unless {given_up} offset 1h) > 0",
            "warning",
            "A receiver of webhooks does not answer.",
            minutes=0,
        ),
    ]


def _alert(name: str, expression: str, severity: str, summary: str, *, minutes: int = 10) -> dict[str, Any]:
    annotations = {"summary": summary, "runbook": RUNBOOK}
    rule = {"alert": name, "expr": expression, "labels": {"severity": severity}, "annotations": annotations}
    return rule | ({"for": f"{minutes}m"} if minutes else {})


def _share(counter: str, outcomes: str, window: str) -> str:
    return f'sum(rate({counter}{{outcome=~"{outcomes}"}}[{window}])) / sum(rate({counter}[{window}]))'


def _mean(histogram: str, window: str, offset: str = "") -> str:
    total, count = (f"sum by (arm) (rate({histogram}_{part}[{window}]{offset}))" for part in ("sum", "count"))
    return f"{total} / {count}"
