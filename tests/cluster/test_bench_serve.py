"""`careedit bench serve` as a user runs it: a cluster, a baseline, and one document."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(900)  # a cluster of eight replicas and another server load their models
def test_a_quick_run_measures_the_platform_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("careedit"), "bench", "serve", "--quick", "--json"]
    done = subprocess.run(
        [*command, "--without", "litserve", "--out", tmp_path / "serve.json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert json.loads((tmp_path / "serve.json").read_text("utf-8")) == document
    for name in (
        "latency_ratio",
        "throughput_over_in_process",
        "throughput_over_fastapi",
        "p95_short_behind_long_ratio",
    ):
        assert document[name] > 0
    assert document["latency_overhead_ms"] is not None
    assert 0 <= document["slo_attainment"] <= 1
    assert document["throughput_over_litserve"] is None
    assert document["details"]["throughput"]["largest_difference"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["serve.json"]
