"""`careedit plan --check-against-local`: the simulation and the served platform on the same trace, in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from careedit_deployments.bench.trace import TraceRow

APART = 3.0
"""Factor by which the simulation's latencies may be off on a machine that does other things, too."""


@pytest.mark.timeout(1200)
def test_the_simulation_says_what_the_served_platform_does_with_a_small_trace(tmp_path: Path) -> None:
    rows = [
        TraceRow(arrival_s=1.5 * i, size="64x64", steps=16 if i % 3 else 32, slo_ms=10_000, expert="erase")
        for i in range(16)
    ]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(['{"careedit_trace": 1}', *(row.model_dump_json() for row in rows)]) + "\n", "utf-8")
    command = [Path(sys.executable).with_name("careedit"), "plan", "--check-against-local"]
    done = subprocess.run(
        [*command, "--trace", trace, "--json"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["requests"] == found["measured"]["answered"] == found["predicted"]["answered"] == len(rows)
    for name in ("p50", "p95", "per_second"):
        assert 1 / APART < found["predicted"][name] / found["measured"][name] < APART, found
    assert found["profile"]["step_s"] > 0 and found["profile"]["source"] == "measured in the same run"
