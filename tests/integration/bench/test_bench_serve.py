"""The parts of `careedit bench serve` against real servers: the HTTP layer over one process, LitServe and FastAPI."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import httpx2
import pytest

from careedit_deployments.bench.baselines import BaselineSettings
from careedit_deployments.bench.serve import Sides, bench_serve, runs_of
from careedit_deployments.bench.servers import baseline, free_port
from careedit_deployments.bench.spans import receive_spans
from careedit_deployments.bench.stages import COMPUTED, STAGES
from careedit_deployments.bench.trace import TraceRow
from careedit_deployments.bench.workload import QUICK, BenchPlan, Workload
from careedit_deployments.client import Client
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import ServingError
from local_backend import LocalBackend
from served import serve

ARMS = {"arms": {"tiny": {"expert_set": "tiny"}, "serial": {"expert_set": "tiny", "weight": 0}}}
ROWS = (
    TraceRow(arrival_s=0.0, size="64x64", steps=2, n=1, slo_ms=600_000),
    TraceRow(arrival_s=0.1, size="96x64", steps=1, n=2, slo_ms=0.001),
    TraceRow(arrival_s=0.2, size="64x64", steps=1, n=1, slo_ms=600_000, expert="nobody"),
)

pytestmark = pytest.mark.timeout(900)  # loading an editor takes a busy machine a minute, and there are five


@pytest.fixture(scope="module")
def spans():
    with receive_spans() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def clients(tmp_path_factory, spans):
    """A client of every server."""
    folder = tmp_path_factory.mktemp("bench")
    backend = LocalBackend.load(ServeConfig(**ARMS))
    with ExitStack() as stack:
        stack.callback(backend.close)
        telemetry = {"otlp_endpoint": spans.url, "sampling": 0.0}
        urls = {"served": stack.enter_context(serve(folder, backend, telemetry=telemetry, **ARMS)).url}
        for name in ("litserve", "fastapi"):
            settings = BaselineSettings(expert_set="tiny", port=free_port(), threads=1)
            urls[name] = stack.enter_context(baseline(name, settings, folder / f"{name}.log"))
        yield {name: stack.enter_context(Client(url)) for name, url in urls.items()}


@pytest.fixture(scope="module")
def run(clients, tiny_editor, spans):
    """One quick run: its document, which timed runs were reported, and how many should be."""
    load = Workload(BenchPlan(steps=1, **QUICK), tiny_editor.expert_set.names, 64)
    baselines = {name: client.edit for name, client in clients.items() if name != "served"}
    served = clients["served"].edit
    reported: list[str] = []
    report = bench_serve(
        Sides(served, partial(served, model="serial"), spans, [served, served], tiny_editor, baselines),
        load,
        ROWS,
        replica_threads=1,
        threads=1,
        done=reported.append,
    )
    return report.document(), reported, runs_of(load, len(baselines))


@pytest.fixture(scope="module")
def tiny_editor():
    from careedit.editor import load_editor

    return load_editor("tiny", device="cpu", application="merged")


def test_every_figure_is_taken_and_every_timed_run_is_reported(run):
    document, reported, expected = run

    assert len(reported) == expected
    assert list(dict.fromkeys(reported))[:4] == ["latency", "stages", "throughput", "tenants"]
    for name in ("latency_ratio", "p95_short_behind_long_ratio"):
        assert document[name] > 0
    for name in ("in_process", "litserve", "fastapi"):
        assert document[f"throughput_over_{name}"] > 0
    assert isinstance(document["latency_overhead_ms"], float)
    assert document["missing"] == {}


def test_the_stages_of_an_edit_are_known_on_both_sides(run):
    stages = run[0]["stages"]

    assert list(stages) == list(STAGES)
    assert {name for name, one in stages.items() if one["in_process"] is not None} == {"route", *COMPUTED}
    assert all(
        stages[name]["served"] > 0 for name in ("way_in", "read", "decode", "route", "denoise", "record", "answer")
    )


def test_every_edit_of_every_tenant_is_counted(run):
    loads = run[0]["details"]["tenants"]

    assert {count: [one["edits"] for one in load["tenants"]] for count, load in loads.items()} == {
        "1": [2],
        "2": [1, 1],
    }
    assert all(one["answered"] == one["edits"] for load in loads.values() for one in load["tenants"])
    assert run[0]["fairness_index"] == min(load["fairness"] for load in loads.values())


def test_figures_can_be_computed_again_from_the_details(run):
    document = run[0]
    seconds = document["details"]["throughput"]["seconds"]
    (served,), (lit,) = seconds["served"], seconds["litserve"]
    behind = document["details"]["short_behind_long_seconds"]

    assert document["throughput_over_litserve"] == pytest.approx(lit / served)
    assert document["p95_short_behind_long_ratio"] == pytest.approx(behind["served"]["p95"] / behind["serial"]["p95"])


def test_all_sides_make_the_same_pictures(run):
    assert run[0]["details"]["throughput"]["largest_difference"] <= 1


def test_of_the_trace_the_late_and_the_failed_are_not_in_time(run):
    for name, replayed in run[0]["details"]["trace"].items():
        assert replayed["attainment"] == pytest.approx(1 / 3), name
        assert replayed["failed"] == 1
    assert run[0]["slo_attainment"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["litserve", "fastapi"])
def test_a_baseline_switches_its_expert_for_each_request(name, clients):
    requests = Workload(BenchPlan(steps=1), ("erase", "style"), 64).mixed(0, 4)

    results = [clients[name].edit(request) for request in requests]

    assert [set(result.trace.routing.weights) for result in results] == [{"erase"}, {"style"}] * 2
    assert {result.trace.application for result in results} == {"merged"}


def test_a_baseline_that_does_not_come_up_says_why_and_is_gone(tmp_path):
    settings = BaselineSettings(expert_set="tiny", port=free_port())

    refused = r"The baseline nginx ended; the last line of its output: .*baseline 'nginx' does not exist"
    with pytest.raises(ServingError, match=refused), baseline("nginx", settings, tmp_path / "log"):
        pass
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{settings.port}/health")
