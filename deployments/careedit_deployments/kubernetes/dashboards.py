"""Grafana dashboards, generated from the catalogue of metrics. A test checks that every metric has a panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from careedit_deployments.telemetry import catalogue
from careedit_deployments.telemetry.catalogue import MetricInfo

SERVE_SERIES = (
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_replica_utilization_percent",
    "ray_serve_deployment_queued_queries",
    "ray_serve_health_check_failures_total",
)
"""Series of Ray Serve itself that the dashboards show too."""

_WIDTH, _HEIGHT = 8, 8
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Panel = dict[str, Any]


def edits() -> dict[str, Any]:
    """What callers notice: rates, outcomes, seconds, rejected requests, jobs."""
    failed = f'sum(rate({catalogue.EDITS.prometheus}{{outcome=~"failed|expired"}}[$__rate_interval]))'
    share = (f"{failed} / sum(rate({catalogue.EDITS.prometheus}[$__rate_interval]))", "failed")
    return _dashboard(
        "careedit-edits",
        "CareEdit: edits",
        [
            _of(catalogue.EDITS, by=("outcome",)),
            _panel("Share of edits that fail", "percentunit", [share]),
            _of(catalogue.EDIT_SECONDS, by=("arm",)),
            _of(catalogue.STAGE_SECONDS, by=("stage",)),
            _of(catalogue.REFUSALS),
            _of(catalogue.POLICY),
            _of(catalogue.IMAGES),
            _of(catalogue.JOBS),
            # Every ingress replica reports the number in the whole store.
            _panel(catalogue.JOBS_WAITING.help, "short", [(f"max({catalogue.JOBS_WAITING.prometheus})", "")]),
            _of(catalogue.JOB_SECONDS),
            _of(catalogue.WEBHOOKS),
            _of(catalogue.SESSIONS),
            _of(catalogue.SWEPT),
            # Every ingress replica would delete the same rows.
            _panel(catalogue.HELD_DELETIONS.help, "short", [(f"max({catalogue.HELD_DELETIONS.prometheus})", "")]),
        ],
    )


def quality() -> dict[str, Any]:
    """Quality of the results: judge, feedback, routing, early filter, arms."""
    score = catalogue.JUDGE_SCORE.prometheus
    total, count = (f"sum by (arm) (rate({score}_{part}[1h]))" for part in ("sum", "count"))
    return _dashboard(
        "careedit-quality",
        "CareEdit: quality and arms",
        [
            _panel("Mean judge score, over an hour", "percentunit", [(f"{total} / {count}", "{{arm}}")]),
            _of(catalogue.JUDGED),
            _of(catalogue.FEEDBACK),
            _of(catalogue.DEGRADATIONS),
            _of(catalogue.ENTROPY, by=("arm",)),
            _of(catalogue.FEASIBLE, by=("arm",)),
            _of(catalogue.SEEDS_TRIED),
            _of(catalogue.ARM_LIVE),
            _of(catalogue.ARM_CUTS),
            _of(catalogue.SHADOWED),
            _of(catalogue.EXPERT_CHANGES),
        ],
    )


def replicas() -> dict[str, Any]:
    """Load of the machines: queues, batches, devices, cost, scaling."""
    return _dashboard(
        "careedit-replicas",
        "CareEdit: replicas and cost",
        [
            _of(catalogue.IN_FLIGHT),
            _of(catalogue.QUEUED_SECONDS),
            _of(catalogue.STEPS),
            _of(catalogue.EVALUATIONS),
            _of(catalogue.BATCH_ROWS, by=("expert",)),
            _of(catalogue.LATE_STEPS),
            _of(catalogue.DEVICE_SECONDS),
            _of(catalogue.COST),
            _of(catalogue.RETRIES),
            _of(catalogue.ENCODINGS),
            _of(catalogue.ENCODE_SECONDS),
            _of(catalogue.ENCODE_BATCH),
            *(_panel(name.removeprefix("ray_"), "short", [(_serve(name), "{{deployment}}")]) for name in SERVE_SERIES),
        ],
    )


DASHBOARDS: Mapping[str, Callable[[], dict[str, Any]]] = {"edits": edits, "quality": quality, "replicas": replicas}
"""The function that builds each dashboard, by file name."""


def queries(dashboard: Mapping[str, Any]) -> list[str]:
    """Every PromQL expression of a dashboard, with Grafana's variables filled in."""
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [text.replace("$__rate_interval", "5m") for text in texts]


def _of(info: MetricInfo, by: Sequence[str] | None = None) -> Panel:
    """Default panel of a metric: rate of a counter, value of a gauge, median and 95th percentile of a histogram."""
    by = info.labels if by is None else by
    group = f"sum by ({', '.join(by)}) " if by else "sum"
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    seconds = info.name.endswith("_seconds")
    if info.kind == "counter":
        query = f"{group}(rate({info.prometheus}[$__rate_interval]))"
        return _panel(f"{info.help} (per second)", "short", [(query, legend)])
    if info.kind == "gauge":
        return _panel(info.help, "s" if seconds else "short", [(f"{group}({info.prometheus})", legend)])
    buckets = f"sum by ({', '.join(('le', *by))}) (rate({info.prometheus}_bucket[$__rate_interval]))"
    quantiles = [(f"histogram_quantile({q}, {buckets})", f"{legend} p{100 * q:.0f}".strip()) for q in (0.5, 0.95)]
    return _panel(f"{info.help} (median, 95th percentile)", "s" if seconds else "short", quantiles)


def _serve(name: str) -> str:
    if name.endswith("_total"):
        return f"sum by (deployment) (increase({name}[$__rate_interval]))"
    return f"{'avg' if name.endswith('_percent') else 'sum'} by (deployment) ({name})"


def _panel(title: str, unit: str, targets: Sequence[tuple[str, str]]) -> Panel:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _DATASOURCE, "expr": expression, "legendFormat": legend}
            for i, (expression, legend) in enumerate(targets)
        ],
    }


def _dashboard(uid: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    placed = [
        panel | {"id": i + 1, "gridPos": {"x": i % 3 * _WIDTH, "y": i // 3 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}}
        for i, panel in enumerate(panels)
    ]
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["careedit"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "panels": placed,
    }
