"""In real replicas: metrics under the names of the catalogue, spans of several processes in one trace."""

import re
import time
import urllib.error
import urllib.request

import pytest

from careedit_deployments.bench.spans import receive_spans
from careedit_deployments.telemetry.catalogue import (
    COST,
    EDIT_SECONDS,
    EDITS,
    ENTROPY,
    IN_FLIGHT,
    JOBS_WAITING,
    QUEUED_SECONDS,
    STEPS,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def told(serve_cluster):
    """The spans that came in after one request, and the lines that Prometheus would scrape."""
    import ray
    from ray import serve

    from telemetry_apps import build

    with receive_spans() as receiver:
        handle = serve.run(build({"otlp_endpoint": receiver.url}), name="telemetry", route_prefix="/telemetry")
        handle.edit.remote({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}).result(timeout_s=60)
        spans = receiver.wait_for("request", "expert", seconds=60)
        ports = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
        lines = scrape(ports, until=(EDITS.prometheus, STEPS.prometheus, JOBS_WAITING.prometheus))
        serve.delete("telemetry")
    return spans, lines


def scrape(ports: set[int], until: tuple[str, ...], seconds: float = 90) -> list[str]:
    """Prometheus' view of the nodes, once this application tells these names: Ray reports every ten seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            pages = [urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read() for port in ports]
            text = b"\n".join(pages).decode()
        except urllib.error.URLError:
            text = ""
        lines = [line for line in text.splitlines() if 'application="telemetry"' in line]
        if all(any(line.startswith(f"{name}{{") for line in lines) for name in until):
            return lines
        assert time.monotonic() < end, sorted(set(re.findall(r"ray_careedit_\w+", text)))
        time.sleep(0.5)


def value(lines: list[str], name: str, **labels: str) -> float:
    """The one series of this name with these labels."""
    found = [
        line
        for line in lines
        if line.startswith(f"{name}{{") and all(f'{key}="{text}"' in line for key, text in labels.items())
    ]
    assert len(found) == 1, found
    return float(found[0].rsplit(" ", 1)[1])


def test_prometheus_sees_the_names_and_labels_of_the_catalogue(told) -> None:
    _, lines = told
    assert value(lines, EDITS.prometheus, arm="a", expert="erase", outcome="made", application="telemetry") == 1
    assert value(lines, STEPS.prometheus, arm="a", expert="erase", deployment="Inner") == 4
    assert value(lines, COST.prometheus, arm="a") == 2
    assert value(lines, IN_FLIGHT.prometheus, expert="erase") == 3
    assert value(lines, QUEUED_SECONDS.prometheus, expert="erase") == 7.5
    assert value(lines, JOBS_WAITING.prometheus) == 2


def test_a_histogram_tells_edits_between_ten_seconds_and_a_minute_apart(told) -> None:
    _, lines = told
    assert value(lines, f"{EDIT_SECONDS.prometheus}_bucket", le="12.5") == 0
    assert value(lines, f"{EDIT_SECONDS.prometheus}_bucket", le="15.0") == 1
    assert value(lines, f"{ENTROPY.prometheus}_count", router="rules") == 1


def test_spans_of_two_replicas_are_one_trace_with_the_callers(told) -> None:
    spans, _ = told
    assert {span.trace for span in spans.values()} == {TRACE}
    assert spans["request"].parent == "b7ad6b7169203331"
    assert spans["expert"].parent == spans["request"].id
    assert (spans["request"].service, spans["expert"].service) == ("careedit-ingress", "careedit-expert")
