"""From seconds to figures and verdicts, and the arm beside the measured one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from careedit.cli.main import main
from careedit.errors import InputError
from careedit_deployments.bench.command import show
from careedit_deployments.bench.measure import Replayed, Throughput
from careedit_deployments.bench.report import GOALS, Report
from careedit_deployments.bench.servers import SERIAL_ARM, with_serial_arm
from careedit_deployments.bench.tenants import TenantsLoad, TenantWaits
from careedit_deployments.config import ServeConfig

KEYS = (
    *("latency_ratio", "latency_overhead_ms", "throughput_over_in_process", "throughput_over_litserve"),
    *("throughput_over_fastapi", "p95_short_behind_long_ratio", "slo_attainment", "fairness_index"),
)
WAITS = TenantWaits(edits=2, answered=2, mean=0.5, p50=0.4, p95=0.6, p99=0.6)
NAMES = ("erase", "compose", "style", "identity", "reference")


@pytest.fixture
def report() -> Report:
    plan = {"edits": 12, "steps": 8, "rounds": 2, "clients": 16}
    facts = {"expert_set": "tiny", "cpus": 2, "device": "cpu", "dtype": "float32", "trace": "mixed.jsonl", "plan": plan}
    return Report(
        environment=facts,
        latencies={"served": [0.51, 0.53, 0.52], "in_process": [0.5, 0.5, 0.5]},
        stages={"denoise": {"served": 300.0, "in_process": 290.0}, "way_in": {"served": 7.5, "in_process": None}},
        throughput=Throughput({"served": [2.0, 2.0], "in_process": [1.6, 2.0], "fastapi": [5.0, 6.0]}, 1),
        behind_long={"served": [[0.2, 0.4]], "serial": [[1.0, 2.0]], "alone": [[0.1, 0.2]]},
        tenants={1: TenantsLoad(4.8, 1.0, (WAITS,)), 2: TenantsLoad(4.8, 0.96, (WAITS, WAITS))},
        replays={"served": Replayed(0.9, 1, 0.4, 0.9), "fastapi": Replayed(0.0, 10, None, None)},
        missing={"litserve": "left out by --without"},
    )


def test_the_document_has_every_promised_key_and_null_for_what_was_left_out(report: Report) -> None:
    document = json.loads(json.dumps(report.document()))

    assert {name: document[name] for name in KEYS} == {
        "latency_ratio": pytest.approx(1.04),
        "latency_overhead_ms": pytest.approx(20.0),
        "throughput_over_in_process": pytest.approx(0.9),
        "throughput_over_litserve": None,
        "throughput_over_fastapi": pytest.approx(2.75),
        "p95_short_behind_long_ratio": pytest.approx(0.2),
        "slo_attainment": pytest.approx(0.9),
        "fairness_index": 0.96,  # of the number of tenants at which it is lowest
    }
    assert set(document) == {"version", *KEYS, "goals", "missing", "stages", "details", "environment"}
    assert document["stages"]["way_in"] == {"served": 7.5, "in_process": None}
    assert document["details"]["tenants"]["2"]["tenants"][1]["p95"] == 0.6
    assert document["missing"] == {"litserve": "left out by --without"}


def test_a_throughput_ratio_is_above_one_where_the_platform_is_faster(report: Report) -> None:
    details = report.document()["details"]

    assert details["throughput"]["edits_per_second"]["served"] == pytest.approx(6.0)
    assert details["figures"]["throughput_over_fastapi"]["spread"] == {"low": 2.5, "high": 3.0}


def test_verdicts_are_given_where_there_is_a_goal_and_a_value(report: Report) -> None:
    goals = report.document()["goals"]

    assert set(goals) == set(GOALS)
    assert {name: goal["met"] for name, goal in goals.items()} == {
        "latency_ratio": True,
        "latency_overhead_ms": True,
        "throughput_over_in_process": True,
        "throughput_over_litserve": None,
        "throughput_over_fastapi": True,
        "fairness_index": True,
    }


def test_the_table_says_what_was_not_measured_and_why(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    show(report)

    shown = capsys.readouterr()
    table = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.out.splitlines()[1:]}
    assert table["throughput_over_litserve"] == ["-", "-", "at least 2", "not measured"]
    assert table["throughput_over_fastapi"] == ["2.750", "2.5 to 3", "at least 2", "met"]
    assert table["way_in"][:2] == ["7.5", "-"]
    assert table["sum"][:2] == ["307.5", "290.0"]
    assert "2 tenants: fairness index 0.960, p95 of the slowest 0.60 s." in shown.err
    assert "litserve: left out by --without." in shown.err
    assert "served 90%, fastapi 0%" in shown.err


def test_the_serial_arm_takes_one_edit_at_a_time_and_no_traffic(tmp_path: Path) -> None:
    config = ServeConfig(
        arms={"main": {"expert_set": "tiny", "long_tail": ["erase", "reference"]}}, auth={"required": True}
    )

    changed = with_serial_arm(config, NAMES, tmp_path)

    serial, main_arm = changed.arms[SERIAL_ARM], changed.arms["main"]
    assert (serial.weight, serial.experts["erase"].max_ongoing_requests) == (0.0, 1)
    assert serial.long_tail == NAMES[1:]
    assert main_arm.long_tail == ("reference",)  # the measured expert has a deployment of its own on both sides
    assert ServeConfig(**changed.model_dump()) == changed
    assert changed.auth.required is False
    assert str(tmp_path) in changed.state.database
    assert changed.http.port > 0


def test_a_configuration_of_several_arms_is_refused(tmp_path: Path) -> None:
    config = ServeConfig(arms={"a": {"expert_set": "tiny"}, "b": {"expert_set": "tiny"}})

    with pytest.raises(InputError, match="has 2 arms"):
        with_serial_arm(config, NAMES, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--without", "nginx"], "baseline 'nginx' does not exist"),
        (["--config", "nowhere"], "configuration 'nowhere' does not exist"),
        (["--config", "ab"], "has 2 arms"),
        (["--trace", "nowhere.jsonl"], "cannot be read"),
        (["--rounds", "0"], "--rounds"),
        (["--out", "missing/serve.json"], "does not exist"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "serve", *arguments]) == 2

    shown = capsys.readouterr().err
    assert sentence in shown
    assert "Starting" not in shown
