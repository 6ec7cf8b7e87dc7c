"""Dashboards and alerts speak of metrics that exist; Prometheus's own promtool reads them and plays the alerts through."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from careedit_deployments.kubernetes.dashboards import DASHBOARDS, SERVE_SERIES, queries
from careedit_deployments.kubernetes.rules import rule_groups
from careedit_deployments.telemetry.catalogue import METRICS

ROOT = Path(__file__).parents[3]
PROMTOOL = shutil.which("promtool")
OTHERS = {*SERVE_SERIES, "ray_serve_deployment_replica_starts_total", "kube_job_status_failed"}
"""Series of Ray Serve and kube-state-metrics that alerts use."""

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian package prometheus)")


def series(text: str) -> set[str]:
    """Names of the series in a query."""
    return set(re.findall(r"\b(?:ray|kube|careedit)_[a-z_]+\b", text))


def known() -> set[str]:
    ours = {info.prometheus for info in METRICS if info.kind != "histogram"}
    parts = {
        f"{info.prometheus}_{part}"
        for info in METRICS
        if info.kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    return ours | parts | OTHERS


def expressions() -> dict[str, str]:
    """Every query of every dashboard and alert, by a name."""
    shown = {f"{name}_{i}": text for name, build in DASHBOARDS.items() for i, text in enumerate(queries(build()))}
    return shown | {rule["alert"]: rule["expr"] for group in rule_groups() for rule in group["rules"]}


def test_every_query_is_about_series_that_exist() -> None:
    assert len(expressions()) > 40
    for name, text in expressions().items():
        assert series(text) and series(text) <= known(), name


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {name for build in DASHBOARDS.values() for text in queries(build()) for name in series(text)}
    unseen = [info.name for info in METRICS if not any(name.startswith(info.prometheus) for name in shown)]
    assert unseen == []


def test_labels_in_a_query_are_the_metrics_own() -> None:
    labels = {info.prometheus: {*info.labels, "le"} for info in METRICS}
    for name, text in expressions().items():
        for found, selector in re.findall(r"(ray_careedit_[a-z_]+)\{([^}]*)\}", text):
            (owner,) = [key for key in labels if re.fullmatch(rf"{key}(_bucket|_sum|_count)?", found)]
            assert set(re.findall(r"(\w+)=", selector)) <= labels[owner], name


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_panels_that_do_not_overlap(name: str) -> None:
    dashboard = DASHBOARDS[name]()
    cells = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(cells)) == len(cells) >= 8 and max(x for x, _ in cells) <= 16
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(cells)
    assert json.loads(json.dumps(dashboard)) == dashboard


def test_every_alert_has_a_line_in_the_runbook() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text("utf-8")
    alerts = [rule["alert"] for group in rule_groups() for rule in group["rules"]]
    assert len(alerts) >= 12
    assert [name for name in alerts if f"`{name}`" not in text] == []


@needs_promtool
def test_promtool_can_read_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"check:{name.lower()}", "expr": text} for name, text in expressions().items()]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}), "utf-8")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}), "utf-8")
    answer = _promtool("check", "rules", str(tmp_path / "all.yaml"), str(tmp_path / "rules.yaml"))
    assert f"SUCCESS: {len(rules)} rules found" in answer


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}), "utf-8")
    cases = yaml.safe_load((ROOT / "tests/data/k8s/alerts.yaml").read_text("utf-8"))
    for case in cases["tests"]:
        for wanted in case["alert_rule_test"]:
            for alert in wanted.get("exp_alerts", []):
                alert["exp_annotations"] = _annotations(wanted["alertname"], alert["exp_labels"])
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(cases), "utf-8")
    assert "SUCCESS" in _promtool("test", "rules", str(tmp_path / "alerts.yaml"))
    named = {wanted["alertname"] for case in cases["tests"] for wanted in case["alert_rule_test"]}
    assert named == {rule["alert"] for group in rule_groups() for rule in group["rules"]}


def _annotations(name: str, labels: dict[str, str]) -> dict[str, str]:
    (rule,) = [rule for group in rule_groups() for rule in group["rules"] if rule["alert"] == name]
    filled: dict[str, str] = {}
    for key, text in rule["annotations"].items():
        filled[key] = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), text)
    return filled


def _promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    answer = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr
