"""Prometheus alerts, generated with the names of the catalogue. The tests check and run them with `promtool`."""

from __future__ import annotations

from typing import Any

from careedit_deployments.telemetry import catalogue

OBJECTIVE = 0.99
"""Share of accepted edits that should finish (or be cancelled by their caller)."""

BURNS = (("fast", 14.4, "1h", "5m", "critical"), ("slow", 6.0, "6h", "30m", "warning"))
"""Multiwindow, multi-burn-rate alerts: name, multiple of the error budget, long and short window, severity.

Beyer et al., The Site Reliability Workbook (2018), chapter 5, table 5-8.
"""

QUEUE_SECONDS = 30
"""Alert if the 95th percentile of the waiting time exceeds this many seconds."""

JUDGE_DROP = 0.1
"""Alert if the mean judge score falls by this much within a day."""

RUNBOOK = "docs/kubernetes.md"
"""Page with the table of alerts, for the annotation `runbook`."""


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
        f"Edits fail at {times:g} times the rate that the objective of {OBJECTIVE:.0%} allows.",
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
            f"One in twenty edits waits longer than {QUEUE_SECONDS} s for a replica.",
        ),
        _alert(
            "CareEditJobsStandStill",
            f"max({catalogue.JOBS_WAITING.prometheus}) > 0\nunless\n{finished} > 0",
            "critical",
            "Jobs are waiting, but no job has ended for 15 minutes.",
            minutes=15,
        ),
        _alert(
            "CareEditCleanupWaits",
            f"max({catalogue.HELD_DELETIONS.prometheus}) > 0",
            "warning",
            "Most of what is stored has expired at once; it is deleted after an hour unless a clock or the database is wrong.",
        ),
        _alert(
            "CareEditOverloaded",
            f"{_share(catalogue.EDITS.prometheus, 'overloaded', '10m')} > 0.05",
            "warning",
            "More than one in twenty edits is rejected because the queues are full.",
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
            f"The mean judge score of the arm {{{{ $labels.arm }}}} is {JUDGE_DROP:g} lower than a day ago.",
            minutes=15,
        ),
        _alert(
            "CareEditDegraded",
            f"sum by (arm) (rate({degradations}[15m])) / {images} > 0.2",
            "warning",
            "One in five images of the arm {{ $labels.arm }} is degraded.",
            minutes=15,
        ),
        _alert(
            "CareEditArmIsCut",
            f"min by (arm) ({catalogue.ARM_LIVE.prometheus}) == 0",
            "warning",
            "The arm {{ $labels.arm }} is out of traffic.",
            minutes=0,
        ),
        _alert(
            "CareEditJudgeFails",
            f"{_share(catalogue.JUDGED.prometheus, 'failed', '15m')} > 0.5",
            "warning",
            "The scorer pool fails: edits continue without the early filter.",
        ),
    ]


def _replicas() -> list[dict[str, Any]]:
    return [
        _alert(
            "CareEditReplicasCrash",
            # A new replica is a new series that starts at 1, which `increase` does not see: count the series instead.
            "count by (deployment) (count_over_time(ray_serve_deployment_replica_starts_total[30m]))\n"
            "> 2 * max by (deployment) (max_over_time(ray_serve_autoscaling_target_replicas[30m])) + 3",
            "critical",
            "Replicas of {{ $labels.deployment }} restart repeatedly.",
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
            "Edits of {{ $labels.expert }} are restarted because their replica died.",
        ),
    ]


def _batch() -> list[dict[str, Any]]:
    given_up = f'{catalogue.WEBHOOKS.prometheus}{{outcome="given_up"}}'
    return [
        _alert(
            "CareEditNightlyFailed",
            'max(kube_job_status_failed{job_name=~"careedit-nightly.*"}) > 0',
            "warning",
            "The nightly benchmark failed, or its gate did not pass (fail or inconclusive).",
            minutes=0,
        ),
        _alert(
            "CareEditWebhooksAreGivenUp",
            # The first one creates the series, so `increase` does not see it.
            f"increase({given_up}[1h]) > 0 or ({given_up} unless {given_up} offset 1h) > 0",
            "warning",
            "Webhooks were given up because their receiver does not accept them.",
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
